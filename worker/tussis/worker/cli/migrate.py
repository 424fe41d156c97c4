"""``tussis migrate``: migrate the database to the schema of this version of Tussis."""

from __future__ import annotations

import sys

import click

from tussis.shared.errors import SchemaMismatch


@click.command()
@click.option(
    "--to",
    "target",
    metavar="REVISION",
    help="Migrate to this revision instead of the newest. base: remove the schema.",
)
@click.option(
    "--check", is_flag=True, help="Change nothing. The exit status is 1 unless the database has the newest revision."
)
@click.option(
    "--yes", is_flag=True, help="Downgrade without confirmation, and delete the data that the older schema cannot hold."
)
def migrate(target: str | None, check: bool, yes: bool) -> None:
    """Migrate the database in TUSSIS_DATABASE_URL to the schema of this version.

    Run it after an installation or an upgrade, before the workers start. Stop workers of another version first: they
    refuse to start on the new schema. Each step is one transaction. Several processes may run the command at the same
    time: one of them migrates.

    It also grants the rights of the roles tussis_worker, tussis_analyst and tussis_analyst_full again
    (docs/security.md), and makes the missing monthly partitions of the table segments, for the present month and 13
    months ahead. Run it at least once a year, also without an upgrade. Workers may run meanwhile.

    \b
    Examples:
      tussis migrate
      tussis migrate --check
      tussis migrate --to base      removes the schema and all results
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store import migrate as schema

    if check and (target or yes):
        raise click.UsageError("--check changes nothing and compares with the newest revision: omit --to and --yes")
    known = (schema.BASE, *schema.revisions())
    wanted = target or schema.head()
    if wanted not in known:
        raise click.BadParameter(f"no revision {wanted!r}: use one of {', '.join(known)}", param_hint="--to")
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
    elif known.index(wanted) > known.index(found):
        schema.upgrade(url, wanted)
        click.echo(f"{found} -> {wanted}")
    else:
        _confirm(found, wanted, yes)
        schema.downgrade(url, wanted)
        click.echo(f"{found} -> {wanted}")
    if wanted == schema.head():
        _make_partitions(url)
        _grant_rights(url)


def _make_partitions(url: str) -> None:
    from tussis.shared.store.partitions import make_partitions

    for made in make_partitions(url):
        moved = f", with {made.rows:,} rows of segments_default" if made.rows else ""
        click.echo(f"made the partition {made.name}{moved}", err=True)


def _grant_rights(url: str) -> None:
    from tussis.shared.store.migrate import grant_rights

    if missing := grant_rights(url):
        click.echo(
            f"this login may not create the roles {', '.join(missing)}: they have no rights; create them as an "
            "administrator (CREATE ROLE name NOLOGIN) and run `tussis migrate` again, or use one login for everything",
            err=True,
        )


def _confirm(found: str, wanted: str, yes: bool) -> None:
    if yes:
        return
    question = f"The downgrade from {found} to {wanted} deletes every result that {wanted} cannot hold. Continue?"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Confirm with --yes.")
    click.confirm(question, abort=True)
