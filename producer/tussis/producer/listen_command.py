"""``tussis listen``."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tussis.producer.options import address_options, job_options, max_depth_option

if TYPE_CHECKING:
    from tussis.producer.listener import Listener, ListenOptions
    from tussis.shared.settings import Settings


@click.group()
def listen() -> None:
    """Enqueue recordings when an object store reports that they were uploaded."""


@listen.command("sqs")
@click.option("--queue-url", metavar="URL", help="URL of the SQS queue.  [TUSSIS_SQS_QUEUE_URL]")
@click.option(
    "--bucket", "buckets", metavar="NAME", multiple=True, help="Enqueue only objects of this bucket. Repeatable."
)
@click.option(
    "--prefix", "prefixes", metavar="TEXT", multiple=True, help="Enqueue only keys that start with it. Repeatable."
)
@click.option(
    "--suffix", "suffixes", metavar="TEXT", multiple=True, help="Enqueue only keys that end with it. Repeatable."
)
@job_options
@max_depth_option
@click.option(
    "--visibility",
    "visibility_s",
    type=click.IntRange(10, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Time for which SQS hides a received message. It is extended during a wait.",
)
@click.option(
    "--alive-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="File that is touched every few seconds, for the check of an orchestrator.",
)
@address_options
def sqs(
    queue_url: str | None,
    buckets: tuple[str, ...],
    prefixes: tuple[str, ...],
    suffixes: tuple[str, ...],
    model: str | None,
    profile: str | None,
    coverage: str | None,
    priority: int,
    device: str,
    metadata: dict[str, Any] | None,
    max_depth: int | None,
    visibility_s: int,
    alive_file: Path | None,
    broker_url: str | None,
    s3_endpoint_url: str | None,
) -> None:
    """Enqueue the objects that the notifications in an SQS queue name.

    It reads the notifications of S3, directly, through SNS or through EventBridge, and those of stores that write the
    same shapes. A message is deleted after its objects are enqueued. One that cannot be read stays in the SQS queue,
    whose redrive policy moves it to a dead-letter queue.

    The command runs until SIGTERM or Ctrl-C, and waits while SQS, S3 or the broker is away. Several of them can read
    one SQS queue. The same object is enqueued once: it has the same job id as with `tussis enqueue`.

    \b
    Examples:
      tussis listen sqs --queue-url https://sqs.eu-central-1.amazonaws.com/123456789012/uploads
      tussis listen sqs --bucket clinic --prefix 2026/ --suffix .wav --suffix .mp3
      tussis listen sqs --max-depth 20000 --priority 7

    docs/s3-events.md describes how to set the notifications up.
    """
    from tussis.producer import event_log
    from tussis.producer.listener import ListenOptions
    from tussis.shared.errors import SettingsInvalid
    from tussis.shared.hidden_keys import hider_of
    from tussis.shared.job_requests import JobRequest, job_for
    from tussis.shared.s3_events import ObjectFilter
    from tussis.shared.settings import load_settings

    settings = load_settings(broker_url=broker_url, s3_endpoint_url=s3_endpoint_url, sqs_queue_url=queue_url)
    settings.need_broker()
    if settings.sqs_queue_url is None:
        raise SettingsInvalid("no SQS queue is given: use --queue-url URL, or set TUSSIS_SQS_QUEUE_URL")
    like = JobRequest("", None, None, model, profile, priority, device, metadata, coverage=coverage)
    job_for(replace(like, uri="s3://bucket/key"), 0.0).to_json()  # raises for a wrong option
    options = ListenOptions(like, ObjectFilter(buckets, prefixes, suffixes), max_depth)
    event_log.configure(settings.log_format, settings.log_level, hider_of(settings))
    _run(settings, settings.sqs_queue_url, visibility_s, alive_file, options)


def _run(
    settings: Settings, queue_url: str, visibility_s: int, alive_file: Path | None, options: ListenOptions
) -> None:
    from tussis.producer.client import Producer
    from tussis.producer.listener import Listener
    from tussis.producer.sqs import SqsQueue
    from tussis.shared.broker import broker_errors, connect, redact

    def check() -> None:
        url = settings.need_broker()
        with broker_errors(redact(url)), closing(connect(url)) as client:
            client.ping()

    with ExitStack() as stack:
        queue = stack.enter_context(closing(SqsQueue(queue_url, visibility_s)))
        producer = stack.enter_context(Producer(settings=settings))
        alive = (lambda: None) if alive_file is None else alive_file.touch
        listener = Listener(queue, producer, options, check=check, alive=alive)
        _stop_on_signals(listener)
        listener.run()


def _stop_on_signals(listener: Listener) -> None:
    """Stop at the first signal. A second one ends the process at once: SQS delivers the messages in hand again."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        listener.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
