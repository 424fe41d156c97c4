"""``tussis outcomes``: the outcomes of jobs as they end, and outcomes again from the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tussis.shared.text import json_line, printable
from tussis.worker.cli.moments import check_span, moment
from tussis.worker.cli.who import who_of

if TYPE_CHECKING:
    from tussis.shared.batches import BatchOutcome
    from tussis.shared.outcome_reader import OutcomeReader

#: Outcomes that one step of the broker sends again.
_BATCH = 100


@click.group(invoke_without_command=True)
@click.option("--group", metavar="NAME", help="Read all outcomes, from where the group NAME stopped.")
@click.option("--consumer", metavar="NAME", help="Name of this reader in the group.  [the name of the host]")
@click.option(
    "--idle", "idle_s", type=click.FloatRange(min=0), metavar="SECONDS", help="End after SECONDS without any."
)
@click.option("--batches", is_flag=True, help="Print the ends of batches too.")
@click.pass_context
def outcomes(ctx: click.Context, group: str | None, consumer: str | None, idle_s: float | None, batches: bool) -> None:
    """Print the outcomes of jobs as they end, one JSON object per line.

    It needs the broker only, and prints the outcomes of all jobs of the deployment from now on. With --group, the
    broker remembers what the group has read. A new group begins with the oldest outcome that is kept. An outcome is
    acknowledged when its line is written. With --batches, a batch that is done is a line with "batch" instead of
    "job_id". If outcomes that the group has not read are no longer kept, a line on
    standard error says so, and the exit status is 1 in the end.

    \b
    Examples:
      tussis outcomes
      tussis outcomes --group billing --idle 60
      tussis outcomes replay --since 2h

    docs/outcomes.md describes the format.
    """
    if ctx.invoked_subcommand is not None:
        if group or consumer or batches or idle_s is not None:
            raise click.UsageError("--group, --consumer, --idle and --batches are not for a subcommand.")
        return
    if consumer and not group:
        raise click.UsageError("--consumer needs --group.")
    from tussis.shared.broker import connect, redact
    from tussis.shared.errors import OutcomesGap, OutcomeUnreadable
    from tussis.shared.outcome_group import OutcomeGroup
    from tussis.shared.outcome_reader import OutcomeReader
    from tussis.shared.settings import load_settings

    url = load_settings().need_broker()
    client, where = connect(url), redact(url)
    if group is None:
        for text in _from_now_on(OutcomeReader(client, where), idle_s, batches):
            click.echo(json_line(text))
        return
    reader = OutcomeGroup(client, where, group, consumer, idle_s=idle_s, on_batch=_print_batch if batches else None)
    status = 0
    while True:
        try:
            for outcome in reader:
                click.echo(json_line(outcome.to_json()))
            break
        except (OutcomesGap, OutcomeUnreadable) as error:
            click.echo(printable(f"tussis: {error}"), err=True)
            status = 1
    ctx.exit(status)


@outcomes.command()
@click.option(
    "--since",
    callback=moment,
    required=True,
    metavar="TIME",
    help="Time from which jobs ended: 2026-11-22, 2026-11-22T14:30 (UTC), or 90s, 30min, 2h, 7d ago.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest number of outcomes.  [half of TUSSIS_OUTCOMES_KEPT]",
)
@click.option("--dry-run", is_flag=True, help="Count the outcomes; send nothing.")
@click.pass_context
def replay(ctx: click.Context, since: datetime, limit: int | None, dry_run: bool) -> None:
    """Send the outcomes of jobs that ended since a time again, from the database.

    It appends them to the stream, the oldest first and marked "replayed": true, for readers that missed some. Every
    group of readers receives them. They push older outcomes out of the stream, so --limit should stay below
    TUSSIS_OUTCOMES_KEPT. If more jobs ended, a line on standard error has the time for the next call, and the exit
    status is 1. Jobs that are open again are left out: their outcomes follow.
    """
    check_span(since, None)
    from tussis.shared.broker import connect, redact
    from tussis.shared.ledger import Ledger
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    settings = load_settings()
    url = settings.need_broker()
    ledger = Ledger(connect(url), redact(url), bounds=settings.outcome_bounds)
    largest = limit or max(1, settings.outcomes_kept // 2)
    with Store.connect(settings.need_database()) as store:
        store.verify_schema()
        ends = store.ended_since(since, largest + 1)
        if not dry_run:
            store.note_deed("replay", who_of(None), {"since": since.isoformat(), "jobs": min(len(ends), largest)})
    chosen = ends[:largest]
    sent = 0
    for first in range(0, len(chosen), _BATCH):
        batch = [end.outcome for end in chosen[first : first + _BATCH]]
        opened = ledger.which_open([outcome.job_id for outcome in batch])
        batch = [outcome.again() for outcome in batch if outcome.job_id not in opened]
        if not dry_run:
            ledger.tell_again(batch)
        sent += len(batch)
    click.echo(f"{sent:,} outcomes {'would be ' if dry_run else ''}sent again")
    if len(ends) > largest:
        following = ends[largest].ended_at.isoformat()
        click.echo(
            f"tussis: more jobs ended after that: when the readers have read these, --since {following}", err=True
        )
        ctx.exit(1)


def _print_batch(ended: BatchOutcome) -> None:
    click.echo(json.dumps(vars(ended)))


def _from_now_on(reader: OutcomeReader, idle_s: float | None, batches: bool) -> Iterator[str]:
    """The JSON of each outcome from now on, or end of a batch. Ends after ``idle_s`` seconds without an entry."""
    from tussis.shared.outcome_reader import BLOCK_MS

    position, last = reader.last_id(), time.monotonic()
    while True:
        left_ms = BLOCK_MS if idle_s is None else min(BLOCK_MS, (last + idle_s - time.monotonic()) * 1000)
        entries = reader.read_after(position, left_ms)
        for entry in entries:
            position, last = entry.entry_id, time.monotonic()
            text = entry.batch if batches else b""
            if text or entry.text:
                yield (text or entry.text).decode("utf-8", "replace")
        if not entries and idle_s is not None and time.monotonic() >= last + idle_s:
            return
