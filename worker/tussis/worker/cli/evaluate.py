"""``tussis evaluate``: compare the results of a model with labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.messages import is_model_name
from tussis.shared.uris import shown
from tussis.worker.cli.moments import check_span, moment

if TYPE_CHECKING:
    from tussis.worker.cli.evaluate_answers import Gathered
    from tussis.worker.evaluation.evaluation import Case
    from tussis.worker.evaluation.labels import Label, Span

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("sources", nargs=-1, metavar="[RECORDING]...")
@click.option("--labels", required=True, metavar="CSV", type=_FILE, help="File with the columns file and label.")
@click.option("--events", metavar="CSV", type=_FILE, help="File with the columns file, start_s and end_s: the coughs.")
@click.option("--from-store", is_flag=True, help="Use the newest result of each recording in the store.")
@click.option("--results", metavar="FILE", type=_FILE, help="Use results in a file of `tussis analyze --json`.")
@click.option(
    "--model",
    help="Path or s3:// URI of an ONNX file; with --from-store and --results NAME[@VERSION].  "
    "[default: as `tussis analyze`; with --from-store and --results the only model there]",
)
@click.option("--profile", help="Preprocessing profile.  [default: the profile in the model's manifest]")
@click.option("--coverage", type=click.Choice(["head", "full"]), help="[default: the coverage in the model's manifest]")
@click.option("--prefix", metavar="S3_URI", help="With --from-store: only recordings under s3://bucket/start-of-key.")
@click.option("--since", metavar="TIME", callback=moment, help="With --from-store: only analyses from this time on.")
@click.option("--until", metavar="TIME", callback=moment, help="With --from-store: only analyses before this time.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="The decision is cough if the bag probability is above it.  [default: the threshold of the results]",
)
@click.option("--by", multiple=True, metavar="COLUMN", help="Also for each value of this column of --labels.")
@click.option(
    "--for-precision",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Choose the threshold with this precision that finds the most coughs: 0.9.",
)
@click.option(
    "--for-false-alarms",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Choose the thresholds with at most N false alarms an hour that find the most coughs.",
)
@click.option(
    "--bout-pause",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Labelled coughs with a shorter pause are one bout; 0: leave them as they are.  [default: 2]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    sources: tuple[str, ...],
    labels: Path,
    events: Path | None,
    from_store: bool,
    results: Path | None,
    model: str | None,
    profile: str | None,
    coverage: str | None,
    prefix: str | None,
    since: datetime | None,
    until: datetime | None,
    threshold: float | None,
    by: tuple[str, ...],
    for_precision: float | None,
    for_false_alarms: float | None,
    bout_pause: float | None,
    as_json: bool,
) -> None:
    """Compare the results of a model with the labels of people.

    It prints AUROC, average precision, sensitivity, specificity and precision, false alarms an hour, the quality of
    cough events, and the calibration, each with its 95 % interval. docs/evaluate.md explains every number and the
    files.

    RECORDING is a file, a folder, or an s3:// URI. Recordings with a label are analysed as by `tussis analyze`. Without
    RECORDING the paths and URIs in --labels are analysed. With --from-store or --results nothing is analysed.

    The exit status is 1 if the analysis of a recording failed. The numbers are then those of the others.

    \b
    Examples:
      tussis evaluate recordings/ --labels labels.csv --model cough.onnx
      tussis evaluate --labels labels.csv --events coughs.csv --by site --by device
      tussis evaluate --labels labels.csv --from-store --model cough@3 --for-precision 0.9
      tussis evaluate --labels labels.csv --results answers.jsonl --json
    """
    check_span(since, until)
    if bool(sources) + from_store + (results is not None) > 1:
        raise click.UsageError("give recordings, --from-store or --results: only one of them")
    if not from_store and (prefix, since, until) != (None, None, None):
        raise click.UsageError("--prefix, --since and --until need --from-store")
    if from_store or results is not None:
        if profile is not None or coverage is not None:
            raise click.UsageError("--profile and --coverage are for recordings that are analysed now")
        if model is not None and not is_model_name(model):
            raise click.UsageError(f"--model {shown(model)} is not NAME or NAME@VERSION")
    from tussis.worker.evaluation.evaluation import EvaluationRequest, check_columns
    from tussis.worker.evaluation.evaluation import evaluate as run
    from tussis.worker.evaluation.events import BOUT_PAUSE_S
    from tussis.worker.evaluation.labels import read_events, read_labels

    read = {label.file: label for label in read_labels(labels)}
    coughs = {} if events is None else _labelled_events(read_events(events), read)
    check_columns(list(read.values()), by)
    gathered = _gather(sources, list(read), labels, from_store, results, model, profile, coverage, prefix, since, until)
    cases = _cases(read, gathered, coughs, BOUT_PAUSE_S if bout_pause is None else bout_pause)
    used = _threshold(cases) if threshold is None else threshold
    done = run(cases, EvaluationRequest(tuple(dict.fromkeys(by)), used, for_precision, for_false_alarms))
    if as_json:
        from tussis.worker.cli.evaluate_json import as_object

        click.echo(json.dumps(as_object(done, cases, gathered)))
    else:
        from tussis.worker.cli.evaluate_text import print_evaluation

        print_evaluation(done, cases, gathered)
    ctx.exit(1 if gathered.failed else 0)


def _gather(
    sources: tuple[str, ...],
    names: list[str],
    labels: Path,
    from_store: bool,
    results: Path | None,
    model: str | None,
    profile: str | None,
    coverage: str | None,
    prefix: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Gathered:
    from tussis.shared.settings import load_settings
    from tussis.worker.cli import evaluate_answers

    if results is not None:
        return evaluate_answers.from_file(results, model, names)
    if not from_store:
        settings = load_settings(model=model)
        return evaluate_answers.from_model(sources, names, labels, settings, profile, coverage)
    from tussis.shared.states import AnalysisState
    from tussis.shared.store.records import ResultFilter
    from tussis.shared.store.repository import Store

    wanted = ResultFilter(since=since, until=until, state=AnalysisState.SUCCEEDED, prefix=prefix, model=model)
    with Store.connect(load_settings().need_database()) as store:
        store.verify_schema()
        return evaluate_answers.from_store(store, wanted, names)


def _labelled_events(
    events: Mapping[str, tuple[Span, ...]], labels: Mapping[str, Label]
) -> Mapping[str, tuple[Span, ...]]:
    """Name in the file of labels -> its coughs. Raises :class:`LabelsInvalid` for an event without a label."""
    from tussis.shared.errors import LabelsInvalid
    from tussis.worker.evaluation.matching import names_of

    found = names_of(labels, events, LabelsInvalid)
    missing = set(events) - set(found.values())
    if missing:
        raise LabelsInvalid(
            f"{len(missing)} recordings in the file of events have no label, for example {shown(min(missing))}: add "
            "them to the file of labels"
        )
    return {name: events[file] for name, file in found.items()}


def _cases(
    labels: Mapping[str, Label], gathered: Gathered, coughs: Mapping[str, tuple[Span, ...]], pause_s: float
) -> list[Case]:
    """The labelled results. Raises :class:`ResultsInvalid` if several models gave them."""
    from tussis.shared.errors import ResultsInvalid
    from tussis.worker.evaluation.evaluation import case_of

    models = sorted({one.model for one in gathered.scored.values()})
    if len(models) > 1:
        raise ResultsInvalid(
            f"the results are from {len(models)} models, {', '.join(models)}: choose one with --model NAME@VERSION"
        )
    return [
        case_of(label, gathered.scored[name], coughs.get(name), pause_s)
        for name, label in labels.items()
        if name in gathered.scored
    ]


def _threshold(cases: list[Case]) -> float:
    """The threshold of the results. Raises :class:`ResultsInvalid` if they have several."""
    from tussis.shared.errors import ResultsInvalid

    found = sorted({case.scored.threshold for case in cases})
    if len(found) > 1:
        listed = ", ".join(f"{one:g}" for one in found)
        raise ResultsInvalid(f"the results have {len(found)} thresholds, {listed}: choose one with --threshold")
    return found[0]
