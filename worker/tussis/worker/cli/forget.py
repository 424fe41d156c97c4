"""``tussis forget``: erase recordings or a person everywhere Tussis keeps anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.text import printable
from tussis.worker.cli.moments import moment

if TYPE_CHECKING:
    from tussis.shared.forgetting import Target
    from tussis.worker.forget.report import Report


@click.command()
@click.argument("uris", nargs=-1, metavar="[S3_URI]...")
@click.option("--prefix", "prefixes", multiple=True, metavar="S3_URI", help="All recordings under s3://bucket/prefix.")
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="All recordings with this metadata subject.")
@click.option(
    "--older-than",
    "before",
    metavar="TIME",
    callback=moment,
    help="With --prefix: only recordings that no job has used since 365d (ago), or 2025-11-22 (UTC).",
)
@click.option("--delete-objects", is_flag=True, help="Also delete the objects in the object store, in all versions.")
@click.option("--lift", is_flag=True, help="Delete the tombstones, so that the recordings may be analysed again.")
@click.option(
    "--replay",
    "journal_to_replay",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="After a restore: write the tombstones of this journal again, and erase what they name.",
)
@click.option("--again", is_flag=True, help="Erase again what any tombstone names.")
@click.option("--yes", is_flag=True, help="Erase. Without it, only print what would be erased.")
@click.option("--by", metavar="TEXT", help="Who erases, stored in the audit trail.  [user@host]")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the tombstones to this file.  [TUSSIS_FORGET_JOURNAL]",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the report to this file, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def forget(
    uris: tuple[str, ...],
    prefixes: tuple[str, ...],
    subjects: tuple[str, ...],
    before: datetime | None,
    delete_objects: bool,
    lift: bool,
    journal_to_replay: Path | None,
    again: bool,
    yes: bool,
    by: str | None,
    journal: Path | None,
    report_path: Path | None,
    as_json: bool,
) -> None:
    """Print what Tussis keeps of recordings or of a person, and erase it with --yes.

    It erases rows, metadata, failures, dead letters, open jobs, outcomes and webhooks, and lets the broker write its
    append-only file again. A tombstone stays, a keyed hash: no result of a forgotten recording is stored again, and a
    sweep does not enqueue it. An open job ends with the failure `forgotten`, whose outcome names no object. The objects
    stay unless --delete-objects is given.

    Workers may run meanwhile. It needs the rights of the owner of the tables. Interrupt and repeat it at any time.

    \b
    Examples:
      tussis forget --subject P-0117
      tussis forget --subject P-0117 --delete-objects --yes --report P-0117.json
      tussis forget --prefix s3://clinic/tenant-7/ --older-than 365d --yes
      tussis forget --lift s3://clinic/2026/a.wav --yes
    """
    from tussis.shared.broker import connect, redact
    from tussis.shared.forgetting import object_target, prefix_target, subject_target
    from tussis.shared.ledger import Ledger
    from tussis.shared.s3 import s3_client
    from tussis.shared.settings import load_settings
    from tussis.shared.store.connection import connect_engine, place
    from tussis.shared.store.faults import database_errors
    from tussis.shared.store.repository import Store
    from tussis.worker.cli.who import who_of
    from tussis.worker.forget.forget import Forget

    targets: list[Target] = [
        *map(object_target, uris),
        *map(prefix_target, prefixes),
        *map(subject_target, subjects),
    ]
    if sum(map(bool, (targets, journal_to_replay, again))) != 1:
        raise click.UsageError("Give recordings, prefixes or subjects; or --replay, or --again.")
    if lift and (delete_objects or not targets):
        raise click.UsageError("--lift takes recordings, prefixes or subjects, and not --delete-objects.")
    if delete_objects and not targets:
        raise click.UsageError("--delete-objects takes recordings, prefixes or subjects.")
    if before is not None:
        if lift or uris or subjects or len(prefixes) != 1:
            raise click.UsageError("--older-than takes one --prefix, and neither recordings, subjects nor --lift.")
        if before > datetime.now(UTC):
            raise click.UsageError(f"--older-than {before:%Y-%m-%d %H:%M} is in the future (UTC): give an earlier time")
    who = who_of(by)
    settings = load_settings()
    broker_url = settings.need_broker()
    client, where = connect(broker_url), redact(broker_url)
    engine = connect_engine(settings.need_database(), statement_timeout_s=0)
    with Store(engine) as store, database_errors(place(engine.url)):
        store.verify_schema()
        work = Forget(
            engine,
            client,
            where,
            Ledger(client, where, bounds=settings.outcome_bounds),
            who,
            s3_client(settings) if delete_objects else None,
            journal or settings.forget_journal,
        )
        if lift:
            _lift(work.lift(targets) if yes else None, as_json)
        elif before is not None:
            if yes:
                _print_report(work.run_old(targets[0], before), report_path, as_json)
            else:
                _print_preview(work.preview_old(targets[0], before), as_json)
        elif targets and not yes:
            _print_preview(work.preview(targets), as_json)
        elif not yes:
            raise click.UsageError("Nothing is erased without --yes.")
        elif journal_to_replay is not None:
            _print_report(work.replay(journal_to_replay), report_path, as_json)
        else:
            _print_report(work.run(targets) if targets else work.again(), report_path, as_json)


def _lift(lifted: int | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"done": lifted is not None, "lifted": lifted}))
    elif lifted is None:
        click.echo("Nothing was lifted. Lift the tombstones with --yes.")
    else:
        click.echo(f"lifted {lifted:,} tombstones")


def _print_preview(counts: dict[str, int], as_json: bool) -> None:
    from tussis.worker.forget.report import counted

    if as_json:
        click.echo(json.dumps({"done": False, "counts": dict(sorted(counts.items()))}))
        return
    for line in counted(dict(sorted(counts.items())), "would erase"):
        click.echo(line)
    click.echo("Nothing was erased. Erase it with --yes.", err=True)


def _print_report(report: Report, path: Path | None, as_json: bool) -> None:
    from tussis.shared.errors import OutputUnwritable

    document = json.dumps({"done": True, **report.as_dict()})
    if path is not None:
        try:
            path.write_text(document + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputUnwritable(f"cannot write {path}: {error.strerror or error}") from error
    if as_json:
        click.echo(document)
    else:
        for line in report.lines():
            click.echo(printable(line))
