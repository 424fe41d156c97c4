"""The results of labelled recordings for ``tussis evaluate``: from a model, from the store, or from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.errors import LabelsInvalid, OperatorError, ResultsInvalid, StorageAccessDenied, TussisError
from tussis.worker.evaluation.matching import names_of
from tussis.worker.evaluation.scored import Scored, ScoredAnswers, read_results, scored_of

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.records import Analysis, ResultFilter, Segment
    from tussis.shared.store.repository import Store

#: Analyses whose segments are read with one query.
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Gathered:
    """The results, and what is left out."""

    scored: Mapping[str, Scored]
    """Name in the file of labels -> result."""
    failed: Mapping[str, str]
    """Recording with a label -> why it has no result."""
    unlabelled: Sequence[str]
    """Recordings without a label."""
    missing: Sequence[str]
    """Names in the file of labels without a recording or a result."""


def from_model(
    sources: Sequence[str],
    names: Sequence[str],
    labels: Path,
    settings: Settings,
    profile: str | None,
    coverage: str | None,
) -> Gathered:
    """Analyse the recordings that have a label, as ``tussis analyze`` does.

    ``sources`` are files, folders and S3 URIs. Without any, the names in the file of labels are paths, from the current
    folder or from the folder of ``labels``, and URIs.
    """
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.worker.cli.sources import expand
    from tussis.worker.detector.shipped import default_model
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.detector.tuning.choice import open_chosen
    from tussis.worker.pipeline.analysis import Analyzer

    if sources:
        recordings = list(expand(sources, lambda: s3_client(settings)))
        by_recording = names_of(recordings, names, LabelsInvalid)
    else:
        recordings = []
        by_recording = {path: name for name in names for path in [_path(name, labels)] if path is not None}
    _check_found(by_recording, names, recordings)
    shipped = default_model() if settings.model is None else None
    path = shipped or resolve_model(settings.need_model(), settings.model_cache_dir, lambda: models_s3(settings))
    threads = settings.concurrency
    detector = open_chosen(path, None, intra_op_threads=threads, cache_dir=settings.model_cache_dir)
    analyzer = Analyzer.of(detector, profile, coverage, settings, lambda: s3_client(settings))
    found = _analyze(by_recording, lambda source: scored_of(analyzer.analyze(source)))
    return _gathered(found, by_recording, names, recordings)


def from_store(store: Store, wanted: ResultFilter, names: Sequence[str]) -> Gathered:
    """The newest result of each recording that has a label."""
    exact = set(names) if all(name.startswith("s3://") for name in names) else None
    newest: dict[str, Analysis] = {}
    unlabelled: dict[str, None] = {}
    for analysis in store.results(wanted):
        if exact is not None and analysis.uri not in exact:
            unlabelled.setdefault(analysis.uri)
        else:
            newest.setdefault(analysis.uri, analysis)
    by_recording = names_of(newest, names, LabelsInvalid)
    _check_found(by_recording, names, [*newest, *unlabelled])
    scored = []
    uris = list(by_recording)
    for batch in (uris[first : first + _BATCH] for first in range(0, len(uris), _BATCH)):
        segments = store.segments_of_each([newest[uri].id for uri in batch])
        scored += [_scored(newest[uri], segments.get(newest[uri].id, ())) for uri in batch]
    return _gathered(ScoredAnswers(tuple(scored), {}), by_recording, names, [*newest, *unlabelled])


def from_file(path: Path, model: str | None, names: Sequence[str]) -> Gathered:
    """The results in a file that ``tussis analyze --json`` wrote."""
    answers = read_results(path, model)
    recordings = [*(one.uri for one in answers.scored), *answers.failed]
    by_recording = names_of(recordings, names, LabelsInvalid)
    _check_found(by_recording, names, recordings)
    return _gathered(answers, by_recording, names, recordings)


def _analyze(recordings: Iterable[str], analyze: Callable[[str], Scored]) -> ScoredAnswers:
    scored, failed = [], {}
    sources = list(recordings)
    with click.progressbar(sources, label=f"analyse {len(sources)} recordings", file=sys.stderr) as bar:
        for source in bar:
            try:
                scored.append(analyze(source))
            except TussisError as error:
                # Access may be denied to one object only. Every other operator's error concerns all recordings.
                if isinstance(error, OperatorError) and not isinstance(error, StorageAccessDenied):
                    raise
                failed[source] = f"{error.error_class}: {error}"
    return ScoredAnswers(tuple(scored), failed)


def _path(name: str, labels: Path) -> str | None:
    if name.startswith("s3://"):
        return name
    return next((str(path) for path in (Path(name), labels.parent / name) if path.is_file()), None)


def _check_found(by_recording: Mapping[str, str], names: Sequence[str], recordings: Sequence[str]) -> None:
    from tussis.shared.uris import shown

    if by_recording:
        return
    if not recordings:
        raise LabelsInvalid(f"there are no recordings: no file exists for a label, for example {shown(names[0])}")
    raise LabelsInvalid(
        f"no recording has a label: the first label is for {shown(names[0])}, the first of {len(recordings):,} "
        f"recordings is {shown(recordings[0])}"
    )


def _gathered(
    answers: ScoredAnswers, by_recording: Mapping[str, str], names: Sequence[str], recordings: Sequence[str]
) -> Gathered:
    scored = {by_recording[one.uri]: one for one in answers.scored if one.uri in by_recording}
    failed = {uri: why for uri, why in answers.failed.items() if uri in by_recording}
    named = set(by_recording.values())
    if not scored:
        uri, why = next(iter(failed.items()))
        raise ResultsInvalid(f"no labelled recording has a result, for example {uri}: {why}")
    return Gathered(
        scored=scored,
        failed=failed,
        unlabelled=[uri for uri in recordings if uri not in by_recording],
        missing=[name for name in names if name not in named],
    )


def _scored(analysis: Analysis, segments: Sequence[Segment]) -> Scored:
    from tussis.worker.cli.results import as_object

    return scored_of(as_object(analysis, tuple(segments)))
