"""``tussis demo``: one run of the whole pipeline on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from tussis.worker.demo import DEFAULT_DATA


@click.command()
@click.option("--audio", metavar="DIR", help="Analyse the audio files below DIR instead of synthesised recordings.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=DEFAULT_DATA,
    show_default=True,
    help="Directory for the data of the servers, the recordings, the model and the logs.",
)
@click.option(
    "--recordings",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="Number of recordings.  [default: 24; with --audio all files]",
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
    help="Number of child processes of the worker.  [default: one per core, at most 4]",
)
@click.option("--again", is_flag=True, help="Analyse recordings again that an earlier demo has analysed.")
@click.option("--keep", is_flag=True, help="Keep servers and worker running until Ctrl-C.")
@click.pass_context
def demo(
    ctx: click.Context,
    audio: str | None,
    data: Path,
    recordings: int | None,
    model: Path | None,
    concurrency: int | None,
    again: bool,
    keep: bool,
) -> None:
    """Run the whole pipeline once on this machine.

    Starts PostgreSQL, a Redis-compatible broker and an S3 store from pip wheels on free ports of 127.0.0.1. Uploads
    recordings, starts a worker, enqueues the recordings and prints the results from PostgreSQL. Use it to try Tussis
    without any set-up. Settings in the environment are not read.

    Servers and worker always stop on exit, also after an interruption. The data stays for the next run.

    The exit status is 0 if every recording has a result. A broken file below --audio is shown as failed, with the
    reason, and does not change the exit status.

    \b
    Examples:
      tussis demo
      tussis demo --audio ~/recordings
      tussis demo --keep
    """
    from tussis.worker.demo.run import DemoRequest, run
    from tussis.worker.local.screen import Screen

    request = DemoRequest(
        data=data,
        # `make demo` passes the option always, empty when no folder is given.
        audio=Path(audio).expanduser() if audio else None,
        recordings=recordings,
        model=model,
        children=concurrency,
        again=again,
        keep=keep,
    )
    ctx.exit(run(request, Screen()))
