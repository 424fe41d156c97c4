"""``tussis up``: servers and workers on this machine, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--workers", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True, help="How many.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(".tussis") / "up",
    show_default=True,
    help="Where the servers' data, model and logs lie.",
)
@click.option(
    "--model",
    metavar="ONNX",
    type=click.Path(path_type=Path),
    help="The model to serve.  [the one that comes with Tussis, else one of random weights]",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 256),
    help="Processes of each worker.  [the cores, divided among the workers]",
)
@click.pass_context
def up(ctx: click.Context, workers: int, data: Path, model: Path | None, concurrency: int | None) -> None:
    """Run everything on this machine: PostgreSQL, broker, S3 store and workers, until Ctrl-C.

    Starts them from pip wheels on free ports of 127.0.0.1, migrates, makes the bucket "tussis", and prints the
    addresses as exports, which also stand in DIR/environment. Then it says what happens, one line an event. What ends
    by itself is started again. At the end, also when it is killed, everything stops; the data stays for the next time.

    For work on one machine and for trying things out: docs/operate.md has the deployment. Settings in the environment
    are not read.

    \b
    Examples:
      tussis up --workers 2
      . .tussis/up/environment           (in another terminal)
      tussis enqueue --prefix s3://tussis/
      tussis results
    """
    from tussis.worker.local.screen import Screen
    from tussis.worker.up.run import Wishes, run

    ctx.exit(run(Wishes(data=data, workers=workers, children=concurrency, model=model), Screen()))
