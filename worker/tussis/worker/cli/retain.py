"""``tussis retain``: delete old segments, and on request old results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tussis.worker.cli.moments import moment

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.command()
@click.option(
    "--older-than",
    "before",
    metavar="TIME",
    required=True,
    callback=moment,
    help="Delete what is older than this: 400d (ago), or 2025-11-22 (UTC).",
)
@click.option(
    "--results",
    is_flag=True,
    help="Also delete the results and failures that are older, and the recordings that then have none.",
)
@click.option(
    "--tombstones",
    is_flag=True,
    help="Also delete the tombstones that are older. A sweep then enqueues their objects again.",
)
@click.option("--yes", is_flag=True, help="Delete. Without it, only print what would be deleted.")
def retain(before: datetime, results: bool, tombstones: bool, yes: bool) -> None:
    """Print what is older than a time, and delete it with --yes.

    Without --results it deletes only segments: the monthly partitions in which every segment is older, and old rows of
    segments_default. Results, bags and cough events stay. The age is the time since the first attempt.

    With --results it also deletes results and failures, with their bags, cough events, attempts and jobs. Analyses
    without an answer, and answers that are newer than TIME, stay. For each deleted analysis a tombstone stays: a sweep
    does not enqueue its object again. The objects in S3 are not touched.

    Workers may run meanwhile. It needs the rights of the owner of the tables. Interrupt and repeat it at any time.

    \b
    Examples:
      tussis retain --older-than 400d
      tussis retain --older-than 400d --yes
      tussis retain --older-than 730d --results --yes
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.connection import connect_engine, place
    from tussis.shared.store.faults import database_errors
    from tussis.shared.store.repository import Store

    if before > datetime.now(UTC):
        raise click.UsageError(f"--older-than {before:%Y-%m-%d %H:%M} is in the future (UTC): give an earlier time")
    engine = connect_engine(load_settings().need_database(), statement_timeout_s=0)
    with Store(engine) as store, database_errors(place(engine.url)):
        store.verify_schema()
        click.echo(f"Older than {before:%Y-%m-%d %H:%M} UTC:")
        found = _print_old(engine, before, results=results, tombstones=tombstones)
        if not found:
            click.echo("  nothing")
        elif not yes:
            click.echo("Nothing was deleted. Delete it with --yes.")
        else:
            _delete(engine, before, results=results, tombstones=tombstones)


def _print_old(engine: Engine, before: datetime, *, results: bool, tombstones: bool) -> bool:
    """Print what is older. False: there is nothing."""
    from tussis.shared.store import retention

    lines = [
        f"partition {old.name}: {old.rows:,} segments, {old.size_bytes / 1e6:,.1f} MB"
        for old in retention.old_partitions(engine, before)
    ]
    if rows := retention.old_default_rows(engine, before):
        lines.append(f"segments_default: {rows:,} segments")
    if results and (old := retention.old_analyses(engine, before)).analyses:
        lines.append(f"{old.analyses:,} analyses with all their rows, and {old.recordings:,} recordings")
    if tombstones and (number := retention.old_tombstones(engine, before)):
        lines.append(f"{number:,} tombstones")
    for line in lines:
        click.echo(f"  {line}")
    return bool(lines)


def _delete(engine: Engine, before: datetime, *, results: bool, tombstones: bool) -> None:
    from tussis.shared.store import retention
    from tussis.worker.cli.who import who_of

    who = who_of(None)
    for old in retention.old_partitions(engine, before):
        retention.drop_old_partition(engine, old.name, before, actor=who)
        click.echo(f"dropped the partition {old.name}")
    if rows := sum(retention.delete_default_rows(engine, before, actor=who)):
        click.echo(f"deleted {rows:,} segments of segments_default")
    if results:
        batches = list(retention.delete_analyses(engine, before, actor=who))
        analyses, recordings = sum(each.analyses for each in batches), sum(each.recordings for each in batches)
        click.echo(f"deleted {analyses:,} analyses and {recordings:,} recordings")
    if tombstones:
        click.echo(f"deleted {retention.delete_tombstones(engine, before, actor=who):,} tombstones")
