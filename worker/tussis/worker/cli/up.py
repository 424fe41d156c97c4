"""``tussis up``: run servers and workers on this machine, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--workers", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of workers."
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(".tussis") / "up",
    show_default=True,
    help="Directory for the data of the servers, the model and the logs.",
)
@click.option(
    "--model",
    metavar="ONNX",
    type=click.Path(path_type=Path),
    help="ONNX file of the model.  [default: the shipped model, otherwise a model with random weights]",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 256),
    help="Number of child processes of each worker.  [default: the cores divided by the workers]",
)
@click.option("--serve", is_flag=True, help="Run `tussis serve` too. It needs the extra serve.")
@click.pass_context
def up(ctx: click.Context, workers: int, data: Path, model: Path | None, concurrency: int | None, serve: bool) -> None:
    """Run servers and workers on this machine until Ctrl-C.

    Starts PostgreSQL, a broker and an S3 store from pip wheels on free ports of 127.0.0.1, migrates the database,
    creates the bucket "tussis" and starts the workers. Prints the addresses as shell exports and writes them to
    DIR/environment. Then prints one line per event. A process that ends unexpectedly is started again. All processes
    always stop on exit, also after a kill. The data stays for the next run.

    Use it for development and for trials. docs/operate.md describes a deployment. Settings in the environment are not
    read.

    \b
    Examples:
      tussis up --workers 2
      . .tussis/up/environment           (in another terminal)
      tussis enqueue --prefix s3://tussis/
      tussis results
    """
    from tussis.worker.local.screen import Screen
    from tussis.worker.up.run import UpRequest, run

    ctx.exit(run(UpRequest(data=data, workers=workers, children=concurrency, model=model, serve=serve), Screen()))
