"""``tussis demo``: the whole pipeline once over, on this machine."""

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
    help="Where servers, recordings, model and logs lie.",
)
@click.option(
    "--recordings",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="How many recordings.  [24; with --audio all there are]",
)
@click.option(
    "--model",
    metavar="ONNX",
    type=click.Path(path_type=Path),
    help="The model to serve.  [the one that comes with Tussis, else one of random weights]",
)
@click.option(
    "--concurrency", metavar="N", type=click.IntRange(1, 256), help="Children of the worker.  [one a core, at most 4]"
)
@click.option("--again", is_flag=True, help="Analyse anew what an earlier demo has analysed.")
@click.option("--keep", is_flag=True, help="Leave servers and worker running until Ctrl-C, to look around.")
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
    """Run the whole pipeline once on this machine, with real servers and no set-up.

    Starts PostgreSQL, a Redis-compatible broker and an S3 store from pip wheels on free ports of 127.0.0.1, uploads
    recordings, starts a worker, enqueues them, and shows the results from PostgreSQL. At the end, and when it is
    interrupted or killed, all of it stops; the data stays for the next time. Settings in the environment are not read.

    The exit status is 0 when every recording has a result. A file below --audio that is broken counts as answered: it
    is shown as failed, with its reason.

    \b
    Examples:
      tussis demo
      tussis demo --audio ~/recordings
      tussis demo --keep
    """
    from tussis.worker.demo.run import Wishes, run
    from tussis.worker.local.screen import Screen

    wishes = Wishes(
        data=data,
        # `make demo` passes the option always, empty when no folder is given.
        audio=Path(audio).expanduser() if audio else None,
        recordings=recordings,
        model=model,
        children=concurrency,
        again=again,
        keep=keep,
    )
    ctx.exit(run(wishes, Screen()))
