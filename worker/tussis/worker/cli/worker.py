"""``tussis worker``: serve a model."""

from __future__ import annotations

import click


@click.group()
def worker() -> None:
    """Run a worker: take jobs from the queues, analyse, store the results."""


@worker.command()
@click.option("--concurrency", type=click.IntRange(1, 256), help="Child processes [default: one a core].")
@click.option("--model", help="The model to serve: path or s3:// URI of an ONNX file [TUSSIS_MODEL].")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65_535), help="Serve Prometheus metrics there; 0: any free port."
)
@click.option("--log-format", type=click.Choice(["json", "console"]), help="How to log [json].")
@click.pass_context
def cpu(
    ctx: click.Context, concurrency: int | None, model: str | None, metrics_port: int | None, log_format: str | None
) -> None:
    """Serve on the CPU, one recording a child process at a time.

    Takes from the queues tussis.cpu and tussis.any. Every child loads the model once and warms up; the worker takes its
    first message when all are ready, and logs "worker_ready".

    SIGTERM or Ctrl-C stops it: recordings in work are finished or, after TUSSIS_SOFT_SHUTDOWN_S, given back.

    \b
    Needs in the environment:
      TUSSIS_BROKER_URL    redis://[:password@]host:port/db
      TUSSIS_DATABASE_URL  postgresql://user:password@host:port/database
      TUSSIS_MODEL         /models/cough.onnx or s3://bucket/cough.onnx, cough.json beside it
      TUSSIS_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...  where the recordings are
    """
    from tussis.shared.queues import Device
    from tussis.shared.settings import load_settings

    settings = load_settings(concurrency=concurrency, model=model, metrics_port=metrics_port, log_format=log_format)
    from tussis.worker import logs
    from tussis.worker.deployment import check_deployment

    check_deployment(settings)
    logs.configure(settings.log_format, settings.log_level)
    # Imported before the fork: the children share its memory and start at once.
    from tussis.worker.service import run_worker

    ctx.exit(run_worker(settings, Device.CPU))


@worker.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def gpu() -> None:
    """Serve on a GPU: not part of this version."""
    from tussis.shared.errors import NotInstalled

    raise NotInstalled("tussis worker gpu is not part of this version of Tussis: use tussis worker cpu")
