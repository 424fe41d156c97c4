"""``tussis cancel``: cancel jobs that no attempt runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tussis.worker.cancel.cancel import Counts


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--batch", metavar="NAME", help="Cancel the open jobs of this batch.")
@click.option("--prefix", metavar="S3_URI", help="Cancel the open jobs for objects under s3://bucket/prefix.")
@click.option("--yes", is_flag=True, help="Cancel. Without it, only print what would be cancelled.")
@click.option("--by", metavar="TEXT", help="Who cancels, stored with the jobs.  [user@host]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def cancel(
    ctx: click.Context,
    job_ids: tuple[str, ...],
    batch: str | None,
    prefix: str | None,
    yes: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Print which open jobs would be cancelled, by queue, and cancel them with --yes.

    Select jobs by ID, by batch, or by prefix. A job that waits, is deferred, or that no worker has begun never starts.
    It ends as cancelled, and its outcome is told at once. A job whose attempt runs is not stopped: it finishes. Jobs of
    the shadow model are left.

    A cancelled job is not a failure. A sweep does not enqueue its recording again, unless it has --retry-cancelled.
    `tussis enqueue` does, and the job then runs.

    Interrupt and repeat it at any time. Workers may run meanwhile. The exit status is 1 if a job that was selected by
    ID is not cancelled, otherwise 0.

    \b
    Examples:
      tussis cancel --prefix s3://clinic/2026/
      tussis cancel --prefix s3://clinic/2026/ --yes
    """
    if sum(map(bool, (job_ids, batch, prefix))) != 1:
        raise click.UsageError("Select jobs: give IDs, --batch or --prefix, and only one of them.")
    from tussis.shared.broker import connect, redact
    from tussis.shared.errors import JobUnknown
    from tussis.shared.ledger import Ledger
    from tussis.shared.messages import is_job_id
    from tussis.shared.open_jobs import OpenJobs
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store
    from tussis.shared.uris import parse_s3_prefix, shown
    from tussis.worker.cancel.cancel import Cancel
    from tussis.worker.cancel.selection import ALREADY, counts_as_json, not_cancelled, selected
    from tussis.worker.cli.who import who_of

    address = None if prefix is None else parse_s3_prefix(prefix)
    for job_id in job_ids:
        if not is_job_id(job_id):
            raise JobUnknown(f"{shown(job_id)} is not a job id: use the UUID that `tussis enqueue` printed")
    who = who_of(by)
    settings = load_settings()
    url = settings.need_broker()
    client, where = connect(url), redact(url)
    with Store.connect(settings.need_database()) as store:
        store.verify_schema()
        chosen = selected(client, where, job_ids, batch, address)
        work = Cancel(OpenJobs(client, where), Ledger(client, where, bounds=settings.outcome_bounds), store, who)
        _follow(work.run(chosen) if yes else work.preview(chosen), len(chosen), work.counts)
        reasons = not_cancelled(job_ids, work.left, store)
    if as_json:
        click.echo(json.dumps(counts_as_json(work.counts, yes) | ({"not_cancelled": reasons} if job_ids else {})))
    else:
        _print(work.counts, yes)
        for job_id, reason in reasons.items():
            click.echo(printable(f"tussis: {job_id} {reason}"), err=True)
    ctx.exit(1 if any(reason != ALREADY for reason in reasons.values()) else 0)


def _follow(steps: Iterator[Counts], total: int, counts: Counts) -> None:
    """Do the work. Show the progress on a terminal."""
    shown = sys.stderr.isatty()
    for done in steps:
        if shown:
            click.echo(f"\r\x1b[K{done.cancelled:,} of {total:,}", err=True, nl=False)
    if shown:
        click.echo("\r\x1b[K", err=True, nl=False)


def _print(counts: Counts, yes: bool) -> None:
    for queue, number in sorted(counts.queues.items()):
        click.echo(f"{printable(queue)}\t{number:,}")
    parts = [f"{counts.cancelled:,} {'cancelled' if yes else 'would be cancelled'}"]
    others = [
        (counts.deferred, "of them deferred"),
        (counts.running, "run and finish"),
        (counts.answered, "have their answer already"),
        (counts.received, "received by workers: run the command again"),
        (counts.unreadable, "unreadable: they become dead letters"),
    ]
    parts += [f"{number:,} {text}" for number, text in others if number]
    click.echo(", ".join(parts) + ("" if yes or not counts.cancelled else ": repeat it with --yes"), err=True)
