"""``tussis migrate``: the database's schema, brought to this version of Tussis."""

from __future__ import annotations

import sys

import click

from tussis.shared.errors import SchemaMismatch


@click.command()
@click.option(
    "--to", "target", metavar="REVISION", help="Go to this revision instead of the newest; base: none at all."
)
@click.option(
    "--check", is_flag=True, help="Change nothing; exit with 1 unless the database is on the newest revision."
)
@click.option("--yes", is_flag=True, help="Go back to an older revision without asking, and lose what it cannot hold.")
def migrate(target: str | None, check: bool, yes: bool) -> None:
    """Bring the database of TUSSIS_DATABASE_URL to the schema of this version.

    Each step is one transaction; several of these may run at once, one does the work. Workers of another version
    refuse to start on the new schema: stop them first.

    \b
    Examples:
      tussis migrate
      tussis migrate --check
      tussis migrate --to base      removes the schema and every result in it
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store import migrate as schema

    if check and (target or yes):
        raise click.UsageError("--check looks at the newest revision and changes nothing: leave out --to and --yes")
    known = (schema.BASE, *schema.revisions())
    wanted = target or schema.head()
    if wanted not in known:
        raise click.BadParameter(f"no revision {wanted!r}: there are {', '.join(known)}", param_hint="--to")
    url = load_settings().need_database()
    found = schema.current(url) or schema.BASE
    if found not in known:
        raise SchemaMismatch(
            f"the database is on schema revision {found}, which this version of Tussis does not know (its newest is "
            f"{schema.head()}): use the version of Tussis that belongs to the database"
        )
    if check:
        if found != wanted:
            raise SchemaMismatch(f"the database is on revision {found}, not {wanted}: run `tussis migrate`")
        click.echo(f"{found}: up to date")
        return
    if found == wanted:
        click.echo(f"{found}: nothing to do")
        return
    if known.index(wanted) > known.index(found):
        schema.upgrade(url, wanted)
    else:
        _confirm(found, wanted, yes)
        schema.downgrade(url, wanted)
    click.echo(f"{found} -> {wanted}")


def _confirm(found: str, wanted: str, yes: bool) -> None:
    if yes:
        return
    question = f"Going from {found} back to {wanted} deletes every result that {wanted} cannot hold. Go on?"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say so with --yes.")
    click.confirm(question, abort=True)
