"""``tussis worker``: serve a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tussis.worker.device.arguments import OnDevice

F = TypeVar("F", bound=Callable[..., Any])


def _shared_options(command: F) -> F:
    """Both kinds of worker take these."""
    for option in (
        click.option("--log-format", type=click.Choice(["json", "console"]), help="How to log [json]."),
        click.option(
            "--metrics-port", type=click.IntRange(0, 65_535), help="Serve Prometheus metrics there; 0: any free port."
        ),
        click.option("--model", help="The model to serve: path or s3:// URI of an ONNX file [TUSSIS_MODEL]."),
        click.option("--concurrency", type=click.IntRange(1, 256), help="Child processes [default: one a core]."),
    ):
        command = option(command)
    return command


@click.group()
def worker() -> None:
    """Run a worker: take jobs from the queues, analyse, store the results."""


@worker.command()
@_shared_options
@click.pass_context
def cpu(ctx: click.Context, /, **flags: Any) -> None:
    """Serve on the CPU, one recording a child process at a time.

    Takes from the queues tussis.cpu and tussis.any. Every child loads the model once and warms up; the worker takes its
    first message when all are ready, and logs "worker_ready". The first start with a model takes some seconds more: it
    tries how to run it fastest, and logs "graph_chosen".

    SIGTERM or Ctrl-C stops it: recordings in work are finished or, after TUSSIS_SOFT_SHUTDOWN_S, given back.

    \b
    Needs in the environment:
      TUSSIS_BROKER_URL    redis://[:password@]host:port/db
      TUSSIS_DATABASE_URL  postgresql://user:password@host:port/database
      TUSSIS_MODEL         /models/cough.onnx or s3://bucket/cough.onnx, cough.json beside it
      TUSSIS_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...  where the recordings are
    """
    ctx.exit(_run(flags, None))


@worker.command()
@_shared_options
@click.option("--device-index", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option(
    "--provider",
    type=click.Choice(["cuda", "tensorrt", "cpu"]),
    default="cuda",
    show_default=True,
    help="What runs the model; cpu is for trials of this path without a GPU.",
)
@click.pass_context
def gpu(ctx: click.Context, /, device_index: int, provider: str, **flags: Any) -> None:
    """Serve on an NVIDIA GPU: one device process, and children that fetch and decode for it.

    Takes from the queues tussis.gpu and tussis.any. The device process owns the GPU and the model; recordings that wait
    together share a run (TUSSIS_BATCH_SEGMENTS, TUSSIS_BATCH_WAIT_MS). One worker a GPU; give it one or two children a
    core. Without the GPU it refuses to start: nothing falls back to the CPU.

    Needs the extra gpu (pip install '.[gpu]' in a checkout). Environment and stop are those of `tussis worker cpu`.
    """
    from tussis.worker.device.arguments import OnDevice, Provider

    ctx.exit(_run(flags, OnDevice(Provider(provider), device_index)))


def _run(flags: dict[str, Any], on: OnDevice | None) -> int:
    from tussis.shared.settings import load_settings

    settings = load_settings(**flags)
    from tussis.worker import logs
    from tussis.worker.parent import environment
    from tussis.worker.parent.deployment import check_deployment
    from tussis.worker.standard_error import as_json_lines

    # Before Celery is imported.
    ignored = environment.drop_foreign()
    check_deployment(settings)
    logs.configure(settings.log_format, settings.log_level)
    if ignored:
        _log = logs.get("worker")
        _log.info("environment_ignored", names=ignored)
    with as_json_lines() if settings.log_format == "json" else nullcontext():
        # Imported before the fork: the children share its memory and start at once.
        from tussis.worker.parent.service import run_worker

        return run_worker(settings, on)
