"""``tussis health``: probes for an orchestrator. Reads a few small files; imports neither Celery nor torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tussis.shared.text import printable


@click.group()
def health() -> None:
    """Probe the workers on this machine (in this container): exit status 0 when all are well, 1 when not.

    Looks at TUSSIS_RUN_DIR, which has to be the workers' own. Takes a fraction of a second.
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--worker", metavar="NAME", help="Only this worker, as tussis status names it.  [all]"),
        click.option(
            "--silence",
            metavar="SECONDS",
            type=click.FloatRange(1, 3600),
            default=15.0,
            show_default=True,
            help="How long a worker may give no sign of life.",
        ),
    ):
        command = option(command)
    return command


@health.command()
@_options
@click.pass_context
def live(ctx: click.Context, worker: str | None, silence: float) -> None:
    """Is it alive? When not, it should be killed and started anew.

    A worker is alive while its event loop turns and it takes what waits. It is alive, too, while its children load the
    model, while the broker or the database is away (starting anew mends neither), and while it stops.
    """
    from tussis.worker.status import probes

    _answer(ctx, "live", probes.live, worker, silence)


@health.command()
@_options
@click.pass_context
def ready(ctx: click.Context, worker: str | None, silence: float) -> None:
    """Is it ready? It is alive, connected, every child has loaded the model, and nothing holds it up.

    Not ready: before the model is loaded, while a child that died is replaced, while it waits for the broker, the
    database or an operator, and while it stops.
    """
    from tussis.worker.status import probes

    _answer(ctx, "ready", probes.ready, worker, silence)


def _answer(ctx: click.Context, word: str, probe: Callable[..., Any], worker: str | None, silence: float) -> None:
    from tussis.shared.settings import load_settings

    folder = load_settings().run_dir
    verdicts = probe(folder, worker, silence)
    if not verdicts:
        click.echo(printable(f"no worker{f' {worker}' if worker else ''} runs with TUSSIS_RUN_DIR={folder}"))
        ctx.exit(1)
    for verdict in verdicts:
        click.echo(printable(f"{verdict.worker}: {word if verdict.well else f'not {word}: {verdict.reason}'}"))
    ctx.exit(0 if all(verdict.well for verdict in verdicts) else 1)
