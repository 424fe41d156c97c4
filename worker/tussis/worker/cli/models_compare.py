"""``tussis models compare``: two models side by side on the same recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.errors import NotInstalled, TooFewRecordings
from tussis.shared.installation import pip_line
from tussis.worker.cli.models_compare_output import ComparisonReport, Side
from tussis.worker.cli.models_recordings import Recordings

if TYPE_CHECKING:
    from tussis.worker.evaluation.flips import MostFlips
    from tussis.worker.evaluation.labels import Label
    from tussis.worker.modelling.comparison import AnswerPair
    from tussis.worker.modelling.labelled import LabelledComparison


def _most_flips(ctx: click.Context, param: click.Parameter, value: str | None) -> MostFlips | None:
    from tussis.worker.evaluation.flips import MostFlips

    try:
        return None if value is None else MostFlips.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("sources", nargs=-1, required=True, metavar="AUDIO...")
@click.option(
    "--max-flips", metavar="N|P%", callback=_most_flips, help="Exit status 1 if more decisions flip, such as 5 or 0.5%."
)
@click.option("--labels", metavar="CSV", type=click.Path(path_type=Path), help="File with the columns file and label.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all recordings.")
@click.pass_context
def compare(
    ctx: click.Context,
    a: str,
    b: str,
    sources: tuple[str, ...],
    max_flips: MostFlips | None,
    labels: Path | None,
    as_json: bool,
) -> None:
    """Compare the models A and B on the same recordings.

    A and B are paths or s3:// URIs of ONNX files. AUDIO is files, folders and s3:// prefixes. Each model gets the
    profile, the coverage and the threshold of its own manifest. The output has the differences of the probabilities,
    the decisions that flip, the sizes and the speeds. The recordings that differ most are first.

    A recording that neither model can analyse is named and left out. One that only one model can analyse counts as a
    flip. The speed is processor time of one thread, with both models in turns, on this machine.

    With --labels it also shows how well each model agrees with known labels (cough or no-cough), and which of the two
    is right where they differ.

    The exit status is 1 if --max-flips is exceeded or if no recording could be compared.

    \b
    Examples:
      tussis models compare cough.onnx cough-int8.onnx recordings/
      tussis models compare s3://models/cough-3.onnx s3://models/cough-4.onnx s3://clinic/2026/ --max-flips 0.5%
    """
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.shared.settings import load_settings

    settings = load_settings()
    try:
        import torch

        from tussis.worker.modelling.comparison import (
            AnswerPair,
            ComparedModel,
            Refusal,
            answers_of,
            summarise,
            worst_first,
        )
        from tussis.worker.modelling.timing import speed_of
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise NotInstalled(f"the comparison needs {missing}: {pip_line('cpu')}") from None
    from tussis.worker.detector.detector import Detector
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.evaluation.labels import read_labels
    from tussis.worker.pipeline.analysis import Analyzer

    # Read before the models run, so that a mistake in the file is reported at once.
    known = None if labels is None else read_labels(labels)
    torch.set_num_threads(1)  # the preprocessing of one recording is too short for several threads
    paths = [resolve_model(each, settings.model_cache_dir, lambda: models_s3(settings)) for each in (a, b)]
    models = [ComparedModel.of(Detector.load(path, intra_op_threads=settings.concurrency)) for path in paths]
    analyzer = Analyzer.of(models[0].detector, None, None, settings, lambda: s3_client(settings))
    recordings, pairs = Recordings(sources, analyzer), []
    for source, data in recordings.read("comparing"):
        pair = AnswerPair(source, *answers_of(data, models, analyzer.limits))
        if isinstance(pair.a, Refusal) and isinstance(pair.b, Refusal):
            recordings.leave_out(source, pair.a.error_class, pair.a.message)
        else:
            pairs.append(pair)
    if not pairs:
        raise TooFewRecordings("no recording could be compared: give at least one that can be read")
    found = ComparisonReport(
        (Side.of(a, paths[0], models[0]), Side.of(b, paths[1], models[1])),
        summarise(pairs),
        speed_of(*(Detector.load(path, intra_op_threads=1) for path in paths)),
        worst_first(pairs),
        None if known is None else _labelled(pairs, known),
    )
    if as_json:
        click.echo(json.dumps({**found.document(), "left_out": recordings.left_out}))
    else:
        found.show()
    if max_flips is not None and not max_flips.admits(found.summary.flips, found.summary.recordings):
        click.echo(
            f"tussis: {found.summary.flips:,} of {found.summary.recordings:,} decisions flip, the limit is {max_flips}",
            err=True,
        )
        ctx.exit(1)


def _labelled(pairs: Sequence[AnswerPair], labels: Sequence[Label]) -> LabelledComparison:
    from tussis.shared.errors import LabelsInvalid
    from tussis.worker.evaluation.matching import names_of
    from tussis.worker.modelling.labelled import compare_with_labels

    known = {label.file: label.is_cough for label in labels}
    names = names_of([pair.source for pair in pairs], known, LabelsInvalid)
    return compare_with_labels(pairs, {source: known[name] for source, name in names.items()})
