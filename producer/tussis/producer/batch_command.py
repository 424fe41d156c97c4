"""``tussis batch``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tussis.producer.report import STILL_OPEN
from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.shared.batches import BatchStatus

_COLUMNS = ("batch", "state", "total", "succeeded", "failed", "cancelled", "open", "rate", "time left")
#: Columns from this one on are numbers and flush right.
_NUMBERS = 2
_STATES = {
    "open": "open: its producer has not closed it",
    "closed": "closed: no further jobs are expected",
    "done": "done",
}


@click.command()
@click.argument("name", required=False)
@click.option("--wait", is_flag=True, help="Wait until the batch is done.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait of --wait; exit status 3 if the batch is not done then.  [no limit]",
)
@click.option("--close", is_flag=True, help="Close the batch, because its producer ended before it did.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each batch.")
@click.option("--broker-url", metavar="URL", help="URL of the broker.  [TUSSIS_BROKER_URL]")
@click.pass_context
def batch(
    ctx: click.Context,
    name: str | None,
    wait: bool,
    timeout_s: float | None,
    close: bool,
    as_json: bool,
    broker_url: str | None,
) -> None:
    """Show the progress of a batch, or list all batches.

    NAME is that of `tussis enqueue --batch NAME`. The batch is done when its producer has closed it, as `tussis
    enqueue` does at its end, and none of its jobs is open. The rate counts the jobs of the batch that ended in the
    last minutes, and the time left is for the jobs that are open. It needs the broker only.

    The exit status is 1 if a job of the batch failed or was cancelled, 3 if the batch is not done after --timeout,
    otherwise 0.

    \b
    Examples:
      tussis enqueue --prefix s3://clinic/2026/11/ --batch november
      tussis batch november
      tussis batch november --wait --timeout 3600
      tussis batch

    docs/enqueue.md describes batches.
    """
    if name is None and (wait or close):
        raise click.UsageError("--wait and --close need the NAME of a batch.")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout needs --wait.")
    from tussis.shared.batches import Batches
    from tussis.shared.broker import connect, redact
    from tussis.shared.errors import WaitTimeout
    from tussis.shared.settings import load_settings

    url = load_settings(broker_url=broker_url).need_broker()
    batches = Batches(connect(url), redact(url))
    if name is None:
        _print_all(batches.all(), as_json)
        return
    status = batches.close(name) if close else batches.status(name)
    if wait:
        progress = sys.stderr.isatty()
        try:
            status = batches.wait(name, timeout_s, _print_progress if progress else lambda status: None)
        except WaitTimeout as error:
            _clear(progress)
            click.echo(printable(f"tussis: {error}"), err=True)
            status = batches.status(name)
        _clear(progress)
    if as_json:
        click.echo(json.dumps(status.to_dict()))
    else:
        _print(status)
    unfinished = wait and not status.done
    ctx.exit(STILL_OPEN if unfinished else int(bool(status.failed or status.cancelled)))


def _print(status: BatchStatus) -> None:
    """Print a batch as text, one line for each fact."""
    rate = "none: no job ended in the last hour"
    if status.rate_per_s is not None and status.rate_span_s is not None:
        rate = f"{_rate(status)}, in the last {_duration(status.rate_span_s)}"
    facts = {
        "batch": status.name,
        "state": _STATES[status.state],
        "total": f"{status.total:,}",
        "succeeded": f"{status.succeeded:,}",
        "failed": f"{status.failed:,}",
        "cancelled": f"{status.cancelled:,}",
        "open": f"{status.open:,}",
        "rate": rate,
        "time left": "unknown" if status.left_s is None else _duration(status.left_s),
        "opened at": _moment(status.opened_at),
        "closed at": _moment(status.closed_at),
        "done at": _moment(status.done_at),
    }
    if status.done:
        del facts["rate"], facts["time left"]
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<{width}}  {value}")


def _print_all(statuses: Sequence[BatchStatus], as_json: bool) -> None:
    if as_json:
        for status in statuses:
            click.echo(json.dumps(status.to_dict()))
        return
    rows = [_COLUMNS, *map(_row, statuses)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if column >= _NUMBERS else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


def _row(status: BatchStatus) -> tuple[str, ...]:
    counts = (status.total, status.succeeded, status.failed, status.cancelled, status.open)
    left = "-" if status.left_s is None or status.done else _duration(status.left_s)
    return (status.name, status.state, *(f"{count:,}" for count in counts), _rate(status), left)


def _print_progress(status: BatchStatus) -> None:
    ended = status.total - status.open
    left = "unknown" if status.left_s is None else _duration(status.left_s)
    click.echo(f"\r\x1b[K{ended:,} of {status.total:,} ended, {_rate(status)}, time left {left}", err=True, nl=False)


def _clear(progress: bool) -> None:
    if progress:
        click.echo("\r\x1b[K", err=True, nl=False)


def _rate(status: BatchStatus) -> str:
    """The rate in the unit in which it is at least one."""
    if status.rate_per_s is None:
        return "-"
    for unit, seconds in (("s", 1), ("min", 60)):
        if status.rate_per_s * seconds >= 1:
            return f"{status.rate_per_s * seconds:,.1f}/{unit}"
    return f"{status.rate_per_s * 3600:,.1f}/h"


def _duration(seconds: float) -> str:
    """A length of time with its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds")
