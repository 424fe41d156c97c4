"""``tussis worker``: run a CPU or GPU worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tussis.worker.device.arguments import OnDevice

F = TypeVar("F", bound=Callable[..., Any])


def _shared_options(command: F) -> F:
    """The options that both kinds of worker have."""
    for option in (
        click.option(
            "--log-format", type=click.Choice(["json", "console"]), help="Format of the log.  [default: json]"
        ),
        click.option(
            "--metrics-port",
            type=click.IntRange(0, 65_535),
            help="Serve Prometheus metrics on this port; 0: any free port.  [default: TUSSIS_METRICS_PORT]",
        ),
        click.option("--model", help="Path or s3:// URI of the ONNX file.  [default: TUSSIS_MODEL]"),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 256),
            help="Number of child processes.  [default: one per core]",
        ),
    ):
        command = option(command)
    return command


@click.group()
def worker() -> None:
    """Run a worker: take jobs from the queues, analyse the recordings, store the results."""


@worker.command()
@_shared_options
@click.pass_context
def cpu(ctx: click.Context, /, **flags: Any) -> None:
    """Run a worker on the CPU.

    Takes jobs from the queues tussis.cpu and tussis.any. Each child process analyses one recording at a time. Every
    child first loads the model and warms up. When all are ready, the worker logs "worker_ready" and takes its first
    message. The first start with a model takes some seconds longer: the worker measures which graph is fastest, and
    logs "graph_chosen".

    SIGTERM or Ctrl-C stops the worker. It finishes the recordings in work. Those that are unfinished after
    TUSSIS_SOFT_SHUTDOWN_S are handed back to their queues.

    \b
    Required settings in the environment:
      TUSSIS_BROKER_URL    redis://[:password@]host:port/db
      TUSSIS_DATABASE_URL  postgresql://user:password@host:port/database
      TUSSIS_MODEL         /models/cough.onnx or s3://bucket/cough.onnx, with cough.json beside it
      TUSSIS_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...  the store of the recordings
    """
    ctx.exit(_run(flags, None))


@worker.command()
@_shared_options
@click.option("--device-index", type=click.IntRange(0), default=0, show_default=True, help="Index of the GPU.")
@click.option(
    "--provider",
    type=click.Choice(["cuda", "tensorrt", "cpu"]),
    default="cuda",
    show_default=True,
    help="onnxruntime provider that runs the model; cpu is for tests without a GPU.",
)
@click.pass_context
def gpu(ctx: click.Context, /, device_index: int, provider: str, **flags: Any) -> None:
    """Run a worker on an NVIDIA GPU.

    Takes jobs from the queues tussis.gpu and tussis.any. The children fetch and decode the recordings. One device
    process owns the GPU and runs the model. Recordings that wait at the same time share a run (TUSSIS_BATCH_SEGMENTS,
    TUSSIS_BATCH_WAIT_MS). Run one worker per GPU, with one or two children per core. Without a GPU the worker does not
    start: it never falls back to the CPU.

    Needs the extra gpu (pip install '.[gpu]' in a checkout). Environment and stop: as for `tussis worker cpu`.
    """
    from tussis.worker.device.arguments import OnDevice, Provider

    ctx.exit(_run(flags, OnDevice(Provider(provider), device_index)))


def _run(flags: dict[str, Any], on: OnDevice | None) -> int:
    from tussis.shared.hidden_keys import hider_of
    from tussis.shared.settings import load_settings

    settings = load_settings(**flags)
    from tussis.worker import logs
    from tussis.worker.parent import environment
    from tussis.worker.parent.deployment import check_deployment
    from tussis.worker.standard_error import as_json_lines

    # Before Celery is imported.
    ignored = environment.drop_foreign()
    check_deployment(settings)
    logs.configure(settings.log_format, settings.log_level, hider_of(settings))
    if ignored:
        _log = logs.get("worker")
        _log.info("environment_ignored", names=ignored)
    with as_json_lines() if settings.log_format == "json" else nullcontext():
        # Imported before the fork, so that the children share the memory and start without imports.
        from tussis.worker.parent.service import run_worker

        return run_worker(settings, on)
