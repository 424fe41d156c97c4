"""``tussis enqueue``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, cast

import click

from tussis.producer.options import address_options, job_options, max_depth_option, wait_options
from tussis.shared.errors import InvalidJob

if TYPE_CHECKING:
    from tussis.producer.report import EnqueueReport
    from tussis.shared.job_requests import JobRequest

_STDIN = "-"
_STDIN_CHUNK = 65_536


@click.command()
@click.argument("uris", nargs=-1, metavar="URI... | -")
@click.option("--prefix", metavar="URI", help="Enqueue every object under s3://bucket/prefix.")
@click.option("--version-id", metavar="ID", help="Version id of the object in S3; only with one URI.")
@click.option(
    "--etag", metavar="ETAG", help="Entity tag of the object, which also pins its content; only with one URI."
)
@job_options
@click.option("--again", is_flag=True, help="Analyse recordings again that already have a result.")
@click.option("--no-head", is_flag=True, help="Do not request the entity tag from S3; the job id is then random.")
@click.option("--batch", metavar="NAME", help="Enqueue the jobs in the batch NAME, and close it at the end.")
@max_depth_option
@click.option(
    "--max-wait",
    "max_wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait of --max-depth for the next job; 0: none.  [no limit]",
)
@wait_options
@click.option("--dry-run", is_flag=True, help="Print the recordings that would be enqueued; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("-q", "--quiet", is_flag=True, help="Print no line for each recording.")
@address_options
@click.pass_context
def enqueue(
    ctx: click.Context,
    uris: tuple[str, ...],
    prefix: str | None,
    version_id: str | None,
    etag: str | None,
    model: str | None,
    profile: str | None,
    coverage: str | None,
    priority: int,
    device: str,
    metadata: dict[str, Any] | None,
    again: bool,
    no_head: bool,
    batch: str | None,
    max_depth: int | None,
    max_wait_s: float | None,
    wait: bool,
    timeout_s: float | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    broker_url: str | None,
    s3_endpoint_url: str | None,
) -> None:
    """Enqueue recordings for analysis.

    Prints JOB_ID<tab>URI for each recording, and a summary on standard error. Control characters in a key are printed
    as escapes such as \\t; --json prints the exact key. A job that is already open keeps its id and is not sent again.
    The exit status is 1 if a recording was refused. The other recordings are enqueued.

    With --wait, the lines are those of the outcomes, as the jobs end: JOB_ID<tab>URI<tab>cough, no cough or the error
    class<tab>bag probability; --json prints the outcomes (docs/outcomes.md). The exit status is also 1 if a job failed,
    and 3 if jobs are still open after --timeout. It needs no database, and the broker's rights to read outcomes.

    With --batch, `tussis batch NAME` shows how many of the jobs have ended. Jobs that are open already join the batch.
    It is closed when all recordings are enqueued, also if some were refused, and not after another error.

    With --max-depth, the command waits while as many jobs are open, also those of other producers. If none of them ends
    within --max-wait, it ends with exit status 1, and the recordings that it has not printed are not enqueued.

    \b
    Examples:
      tussis enqueue s3://clinic/2026/11/a.wav
      tussis enqueue s3://clinic/a.wav s3://clinic/b.mp3 --priority 0
      tussis enqueue --prefix s3://clinic/2026/11/ --dry-run
      tussis enqueue - < list.txt
      tussis enqueue --prefix s3://clinic/2026/11/ --batch november --max-depth 20000
      tussis enqueue s3://clinic/a.wav --wait --timeout 60
      tussis job JOB_ID

    With -, the list is read from standard input, and each line is enqueued as soon as it arrives. A line is a URI or a
    JSON object. The object has the field "uri", and optionally version_id, etag, model, profile, coverage, priority,
    device, metadata and again. They override the options. A key that contains a newline, or starts or ends with a
    blank, needs an object:

    \b
      {"uri": "s3://clinic/a.wav", "priority": 2, "metadata": {"site": "north"}}

    docs/enqueue.md describes the Python API and the use from other languages.
    """
    _check_usage(uris, prefix, version_id or etag)
    if (wait and dry_run) or (timeout_s is not None and not wait):
        raise click.UsageError("--wait is not for --dry-run." if wait else "--timeout needs --wait.")
    if max_wait_s is not None and max_depth is None:
        raise click.UsageError("--max-wait needs --max-depth.")
    from tussis.producer.client import Producer
    from tussis.producer.report import EnqueueReport
    from tussis.shared.errors import ObjectMissing
    from tussis.shared.job_requests import JobRequest
    from tussis.shared.settings import load_settings

    settings = load_settings(broker_url=broker_url, s3_endpoint_url=s3_endpoint_url)
    if not dry_run:
        settings.need_broker()
    like = JobRequest("", version_id, etag, model, profile, priority, device, metadata, again, coverage)
    with (
        Producer(settings=settings, head=not no_head) as producer,
        EnqueueReport(as_json=as_json, quiet=quiet, dry_run=dry_run, wait=wait) as report,
    ):
        chunks = [producer.listed(prefix, like)] if prefix else _requests(uris, like, report)
        empty = True
        for chunk in chunks:
            for item in producer.enqueue_many(
                chunk,
                dry_run=dry_run,
                batch=batch,
                max_depth=max_depth,
                max_wait_s=max_wait_s,
                on_full=report.full,
            ):
                report.add(item)
                empty = False
        if prefix and empty:
            raise ObjectMissing(f"no object is under {prefix}: check the prefix")
        if batch is not None and not dry_run:
            producer.close_batch(batch)
        if wait:
            report.wait(producer, timeout_s)
    ctx.exit(report.status)


def _check_usage(uris: tuple[str, ...], prefix: str | None, pin: str | None) -> None:
    if bool(uris) == bool(prefix):
        raise click.UsageError("Pass URIs, - for standard input, or --prefix.")
    if pin and (len(uris) != 1 or uris[0] == _STDIN):
        raise click.UsageError("--version-id and --etag need exactly one URI.")


def _requests(uris: tuple[str, ...], like: JobRequest, report: EnqueueReport) -> Iterator[Iterable[JobRequest]]:
    """The requests for the arguments, in portions that can be enqueued at once."""
    from dataclasses import replace

    named: list[JobRequest] = []
    for uri in uris:
        if uri != _STDIN:
            named.append(replace(like, uri=uri))
            continue
        yield named
        named = []
        for lines in _arriving_lines():
            yield _requests_of(lines, like, report)
    yield named


def _requests_of(lines: list[bytes], like: JobRequest, report: EnqueueReport) -> Iterator[JobRequest]:
    from tussis.shared.errors import TussisError
    from tussis.shared.job_requests import request_from_line

    for raw in lines:
        # Only ASCII blanks are removed: a key may end with another blank.
        line = raw.strip(b" \t\r\v\f").decode("utf-8", errors="surrogateescape")
        if not line:
            continue
        try:
            if not line.isascii() and any("\udc80" <= char <= "\udcff" for char in line):
                raise InvalidJob("the line is not UTF-8")
            yield request_from_line(line, like)
        except TussisError as error:
            report.refuse(line, error)


def _arriving_lines() -> Iterator[list[bytes]]:
    """The lines of standard input. Yields all lines that have arrived, so that no line waits for a slow writer."""
    stdin = cast(BufferedIOBase, sys.stdin.buffer)
    rest = b""
    while chunk := stdin.read1(_STDIN_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    yield [rest]
