"""``python -m tests.soak``: run the pipeline under random faults, then compare jobs and answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tussis.shared.text import printable


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 24 * 60),
    default=5.0,
    show_default=True,
    help="How long faults are injected.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same faults.")
@click.option("--workers", type=click.IntRange(1, 16), default=2, show_default=True, help="Workers of one child each.")
@click.option("--model", type=click.Path(path_type=Path), help="The model [the one that ships with Tussis].")
@click.option("--data", type=click.Path(path_type=Path), help="Where servers and logs lie [a new temporary folder].")
@click.pass_context
def main(ctx: click.Context, minutes: float, seed: int, workers: int, model: Path | None, data: Path | None) -> None:
    """Run the real pipeline on embedded servers, with a random fault every few seconds.

    Good, broken, long, slow, missing and crashing recordings are enqueued. Children, workers, broker and database are
    killed, connections are cut and frozen, and the object store answers with errors. Then the queues drain, and the
    totals are checked: enqueued = results + failures, no duplicates, nothing open. The exit status is 1 when a check
    fails.

    \b
    Example:
      make soak ARGS='--minutes 20 --seed 7'
    """
    from tests.soak.run import soak as run
    from tussis.shared.errors import ModelRefused
    from tussis.worker.detector.manifest import read_manifest
    from tussis.worker.detector.shipped import default_model
    from tussis.worker.local.interrupts import Interrupted, interrupts

    chosen = model or default_model()
    if chosen is None:
        raise ModelRefused("no model ships with this version: pass --model cough.onnx")
    read_manifest(chosen)  # report a wrong model here, not a minute later in a worker's log
    folder = data or Path(tempfile.mkdtemp(prefix="tussis-soak-"))
    click.echo(f"soak of {minutes:g} minutes, seed {seed}, logs in {printable(str(folder))}")
    with interrupts() as handled:
        try:
            account = run(minutes, seed, folder.absolute(), chosen.absolute(), workers, click.echo)
        except Interrupted as interrupted:
            click.echo(f"stopped by {interrupted.cause}; no account")
            ctx.exit(interrupted.status)
        handled.disarm()
    for line in account.lines():
        click.echo(line)
    ctx.exit(1 if account.problems else 0)


if __name__ == "__main__":
    main(prog_name="python -m tests.soak")
