"""``tussis upload``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tussis.producer.options import address_options, job_options, wait_options
from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.producer.report import EnqueueReport
    from tussis.producer.upload_files import LocalFile
    from tussis.shared.errors import TussisError
    from tussis.shared.job_requests import JobRequest
    from tussis.shared.settings import Settings
    from tussis.shared.uploads import Uploaded
    from tussis.shared.uris import ObjectAddress


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE... | -")
@click.option(
    "--prefix",
    metavar="URI",
    help="Where the files are stored: s3://bucket/prefix.  [TUSSIS_UPLOAD_PREFIX]",
)
@click.option(
    "--keep-names", is_flag=True, help="The key is the file's path below its folder.  [date, random id, extension]"
)
@job_options
@wait_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("-q", "--quiet", is_flag=True, help="Print no line for each recording.")
@address_options
@click.pass_context
def upload(
    ctx: click.Context,
    files: tuple[str, ...],
    prefix: str | None,
    keep_names: bool,
    model: str | None,
    profile: str | None,
    coverage: str | None,
    priority: int,
    device: str,
    metadata: dict[str, Any] | None,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
    quiet: bool,
    broker_url: str | None,
    s3_endpoint_url: str | None,
) -> None:
    """Upload files to the object store, and enqueue them.

    A folder stands for all files below it, without hidden ones. With - the recording is read from standard input.

    Prints JOB_ID<tab>URI<tab>FILE for each recording, and a summary on standard error. With --wait, the lines are
    those of the outcomes, as the jobs end: JOB_ID<tab>URI<tab>cough, no cough or the error class<tab>bag
    probability<tab>FILE. --json prints objects with these fields. The exit status is 1 if a file was refused or a job
    failed, and 3 if jobs are still open after --timeout. The other files are uploaded and enqueued.

    A new object is stored for each call, even for the same file. Its key has the date and a random id. With
    --keep-names, a file that is stored already is not uploaded again, and a key with other content is not replaced.
    The id of a job is that of `tussis enqueue` for the object.

    \b
    Examples:
      tussis upload cough.wav --prefix s3://clinic/uploads/ --wait
      tussis upload recordings/ --prefix s3://clinic/2026/ --keep-names
      arecord -d 5 -f S16_LE -r 16000 | tussis upload - --metadata '{"site": "north"}' --wait
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout needs --wait.")
    if files.count("-") > 1 or ("-" in files and keep_names):
        raise click.UsageError("- can be given once." if files.count("-") > 1 else "- has no name to keep.")
    from tussis.producer.client import Producer
    from tussis.producer.report import EnqueueReport
    from tussis.producer.upload_files import Uploader, expand
    from tussis.shared.job_requests import JobRequest
    from tussis.shared.s3 import s3_client
    from tussis.shared.settings import load_settings
    from tussis.shared.uploads import UPLOAD_READ_TIMEOUT_S

    settings = load_settings(broker_url=broker_url, s3_endpoint_url=s3_endpoint_url, upload_prefix=prefix)
    like = JobRequest("", None, None, model, profile, priority, device, metadata, coverage=coverage)
    where = _checked(settings, like)
    s3 = s3_client(settings, read_timeout_s=UPLOAD_READ_TIMEOUT_S)
    uploader = Uploader(s3, where, keep_names, settings.max_bytes)
    with (
        contextlib.closing(s3),
        Producer(settings=settings) as producer,
        EnqueueReport(as_json=as_json, quiet=quiet, dry_run=False, wait=wait) as report,
    ):
        waiting: set[str] = set()

        def uploaded(file: LocalFile, stored: Uploaded) -> None:
            report.files[stored.uri] = file.path
            waiting.add(stored.uri)

        def refused(file: LocalFile, error: TussisError) -> None:
            report.refuse(file.path, error, "file")

        with _naming(waiting, report):
            for item in producer.enqueue_many(uploader.requests(expand(files), like, uploaded, refused), chunk=1):
                waiting.discard(item.request.uri)
                report.add(item)
        if wait:
            report.wait(producer, timeout_s)
    ctx.exit(report.status)


def _checked(settings: Settings, like: JobRequest) -> ObjectAddress:
    """The bucket, and the start of the keys. Raises what would prevent the enqueueing: nothing is uploaded then."""
    from dataclasses import replace

    from tussis.shared.broker import broker_errors, connect, redact
    from tussis.shared.errors import SettingsInvalid
    from tussis.shared.job_requests import job_for
    from tussis.shared.uploads import parse_upload_prefix

    if settings.upload_prefix is None:
        raise SettingsInvalid("no place for the files is set: pass --prefix s3://bucket/prefix/")
    where = parse_upload_prefix(settings.upload_prefix)
    job_for(replace(like, uri=f"s3://{where.bucket}/a", etag="a"), 0.0).to_json()
    url = settings.need_broker()
    with connect(url) as client, broker_errors(redact(url)):
        client.ping()
    return where


@contextlib.contextmanager
def _naming(waiting: set[str], report: EnqueueReport) -> Iterator[None]:
    """After an error, name the objects that were uploaded and are not enqueued."""
    try:
        yield
    except BaseException:
        for uri in sorted(waiting):
            told = f"tussis: uploaded, and not enqueued: {uri} ({report.files[uri]}): use `tussis enqueue`"
            click.echo(printable(told), err=True)
        raise
