"""``tussis health``: probes for an orchestrator. Reads a few small files; imports neither Celery nor torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tussis.shared.text import printable


@click.group()
def health() -> None:
    """Probe the workers on this machine or in this container.

    The exit status is 0 if every worker passes the probe, otherwise 1. Use it as the probe of an orchestrator. It reads
    the files in TUSSIS_RUN_DIR, which must have the same value as for the workers, and takes a fraction of a second.
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--worker", metavar="NAME", help="Only this worker, with its name in `tussis status`.  [default: all]"
        ),
        click.option(
            "--silence",
            metavar="SECONDS",
            type=click.FloatRange(1, 3600),
            default=15.0,
            show_default=True,
            help="Longest time since the last update of a worker. A worker that is silent for longer fails.",
        ),
    ):
        command = option(command)
    return command


@health.command()
@_options
@click.pass_context
def live(ctx: click.Context, worker: str | None, silence: float) -> None:
    """Check whether the workers are alive.

    Restart a worker that is not alive. A worker is alive while its event loop runs and it takes the messages that wait.
    It is also alive while its children load the model, while the broker or the database is unavailable (a restart does
    not help), and while it stops.
    """
    from tussis.worker.status import probes

    _report(ctx, "live", probes.live, worker, silence)


@health.command()
@_options
@click.pass_context
def ready(ctx: click.Context, worker: str | None, silence: float) -> None:
    """Check whether the workers are ready to analyse recordings.

    A worker is ready if it is alive and connected, and every child has loaded the model. It is not ready before the
    model is loaded, while a child that ended is replaced, while it waits for the broker, the database or the operator,
    and while it stops. If another model than that of the worker is active, or a queue is paused, the worker is ready
    and the text says so.
    """
    from tussis.worker.status import probes

    _report(ctx, "ready", probes.ready, worker, silence)


def _report(ctx: click.Context, word: str, probe: Callable[..., Any], worker: str | None, silence: float) -> None:
    from tussis.shared.settings import load_settings

    folder = load_settings().run_dir
    verdicts = probe(folder, worker, silence)
    if not verdicts:
        click.echo(printable(f"no worker{f' {worker}' if worker else ''} runs with TUSSIS_RUN_DIR={folder}"))
        ctx.exit(1)
    for verdict in verdicts:
        remark = f" ({verdict.remark})" if verdict.remark else ""
        click.echo(printable(f"{verdict.worker}: {word if verdict.well else f'not {word}: {verdict.reason}'}{remark}"))
    ctx.exit(0 if all(verdict.well for verdict in verdicts) else 1)
