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
    help="Folder of the audio pack, with its manifest.csv.  [default: TUSSIS_TEST_DATA]",
)
model_option = click.option(
    "--model",
    default=MODEL,
    type=click.Path(dir_okay=False, path_type=Path),
    help="ONNX file.  [default: the shipped one]",
)
work_option = click.option(
    "--work",
    default=REPOSITORY / ".tussis" / "training",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of scenes and checkpoints. An interrupted run continues from them.  [default: .tussis/training]",
)


class _TrainByDefault(click.Group):
    """Runs the command ``train`` if no command is given."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["train", *args]
        return super().parse_args(context, args)


@click.group(cls=_TrainByDefault)
def main() -> None:
    """Train the reference detector, or measure it. Without a command: train."""


@main.command()
@data_option
@work_option
@model_option
@click.option("--scenes", default=16_000, show_default=True, help="Number of training scenes.")
@click.option("--utterances", default=3_000, show_default=True, help="Number of sentences of synthesised speech.")
@click.option("--checks", default=600, show_default=True, help="Number of validation scenes.")
@click.option("--epochs", default=36, show_default=True, help="Number of epochs. Each uses half of the scenes.")
@click.option("--seed", default=1, show_default=True, help="Seed of all random choices.")
@click.option("--processes", default=2, show_default=True, help="Number of processes, of one thread each.")
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
    """Train the detector and export it.

    Computes the scenes, trains, chooses the threshold on the split val and writes the ONNX file and its manifest. An
    interrupted run continues when it is started again.
    """
    from training import speech
    from training.run import Size, run_training

    missing = speech.missing()
    if missing:
        raise click.ClickException(missing)
    run_training(Size(scenes, utterances, checks, epochs, seed, processes), data, work, model, _timed())


@main.command()
@data_option
@model_option
@click.option(
    "--split", type=click.Choice(["val", "test"]), default="test", show_default=True, help="Split to measure."
)
@click.option(
    "--card",
    default=CARD,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Model card to write, with numbers and figure beside it.",
)
@click.option("--scenes", default=33, show_default=True, help="Number of background scenes of 15 s per class.")
@click.option(
    "--noisy-scenes",
    default=16,
    show_default=True,
    help="Number of background scenes of 15 s per class at each level of added noise.",
)
@click.option(
    "--coughs", default=None, type=int, help="At most this number of coughs is mixed and altered.  [default: all]"
)
@click.option("--processes", default=2, show_default=True, help="Number of processes, of one thread each.")
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
    """Measure a model and write its model card.

    Use the split val while you choose a model, and the split test only for the final measurement.
    """
    from training.evaluate import Effort
    from training.run import run_evaluation

    run_evaluation(Effort(processes, scenes, noisy_scenes, coughs), model, data, split, card, _timed())


@main.command("card")
@click.option("--card", default=CARD, type=click.Path(dir_okay=False, path_type=Path), help="Model card to write.")
def write_card(card: Path) -> None:
    """Write the model card again, from the numbers in the JSON file beside it.

    Use it after a change of the text of the card.
    """
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
