"""``python -m training``: train the reference detector and write it into the package's model folder."""

from __future__ import annotations

import time
from pathlib import Path

import click

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = REPOSITORY / "worker" / "tussis" / "worker" / "models" / "tussis-reference.onnx"
CARD = REPOSITORY / "docs" / "model-card.md"

data_option = click.option(
    "--data",
    envvar="TUSSIS_TEST_DATA",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the audio pack, with its manifest.csv. [env: TUSSIS_TEST_DATA]",
)
model_option = click.option(
    "--model",
    default=MODEL,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The ONNX file; default: the shipped one.",
)
work_option = click.option(
    "--work",
    default=REPOSITORY / ".tussis" / "training",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where scenes and checkpoints are kept, so that a broken run goes on; default: .tussis/training.",
)


class _TrainByDefault(click.Group):
    """Runs the command ``train`` if no command is given."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["train", *args]
        return super().parse_args(context, args)


@click.group(cls=_TrainByDefault)
def main() -> None:
    """Train the reference detector (the default), or measure it."""


@main.command()
@data_option
@work_option
@model_option
@click.option("--scenes", default=16_000, show_default=True, help="Scenes to learn from.")
@click.option("--utterances", default=3_000, show_default=True, help="Sentences of synthesised speech.")
@click.option("--checks", default=600, show_default=True, help="Scenes of the validation.")
@click.option("--epochs", default=36, show_default=True, help="Of half the scenes each.")
@click.option("--seed", default=1, show_default=True)
@click.option("--processes", default=2, show_default=True, help="Of one thread each.")
def train(
    data: Path,
    work: Path,
    model: Path,
    scenes: int,
    utterances: int,
    checks: int,
    epochs: int,
    seed: int,
    processes: int,
) -> None:
    """Compute scenes, train, choose the threshold on val, export."""
    from training import speech
    from training.run import Size, run_training

    missing = speech.missing()
    if missing:
        raise click.ClickException(missing)
    run_training(Size(scenes, utterances, checks, epochs, seed, processes), data, work, model, _timed())


@main.command()
@data_option
@model_option
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--card",
    default=CARD,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The card; numbers and figure beside it.",
)
@click.option("--scenes", default=33, show_default=True, help="Background scenes of 15 s for each class.")
@click.option("--noisy-scenes", default=16, show_default=True, help="The same at each level of added noise.")
@click.option("--coughs", default=None, type=int, help="At most so many coughs are mixed and altered; default: all.")
@click.option("--processes", default=2, show_default=True)
def evaluate(
    data: Path,
    model: Path,
    split: str,
    card: Path,
    scenes: int,
    noisy_scenes: int,
    coughs: int | None,
    processes: int,
) -> None:
    """Measure a model and write its card. ``test`` is for the final measurement only."""
    from training.evaluate import Effort
    from training.run import run_evaluation

    run_evaluation(Effort(processes, scenes, noisy_scenes, coughs), model, data, split, card, _timed())


@main.command("card")
@click.option("--card", default=CARD, type=click.Path(dir_okay=False, path_type=Path))
def write_card(card: Path) -> None:
    """Write the card again from the numbers in the JSON file beside it."""
    from training.card import rendered
    from training.results import read

    card.write_text(rendered(read(card.with_suffix(".json"))), "utf-8")


class _Timed:
    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, line: str) -> None:
        click.echo(f"[{time.monotonic() - self.began:6.0f} s] {line}")


def _timed() -> _Timed:
    return _Timed()


if __name__ == "__main__":
    main(prog_name="python -m training")
