"""The answers as a table, their counts, and the exit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from tussis.shared import errors
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis, JobAnswer
from tussis.shared.text import probability
from tussis.worker.demo.upload import BUCKET

#: The largest number of rows in the table. The store has all answers.
_MOST_ROWS: Final = 60
#: The width of a terminal, in characters, from which the table has all its columns.
_WIDE: Final = 130

#: Error classes of a faulty recording. Any other failure is an error of Tussis.
FILE_FAULTS: Final = frozenset(
    {errors.ObjectTooLarge.error_class, errors.AudioError.error_class}
    | {kind.error_class for kind in errors.AudioError.__subclasses__()}
)


@dataclass(frozen=True)
class Tally:
    """The answers and their counts. ``before``: the times of the answers that are older than this run."""

    answers: tuple[JobAnswer, ...]
    cough: int
    no_cough: int
    failed: int
    own_faults: tuple[str, ...]
    audio_s: float
    before: tuple[datetime, ...]

    @classmethod
    def of(cls, answers: Sequence[JobAnswer], began: datetime) -> Tally:
        """Count ``answers`` and sort them by URI. ``began`` is the start of this run."""
        ordered = tuple(sorted(answers, key=lambda answer: answer.analysis.uri))
        analyses = [answer.analysis for answer in ordered]
        failed = [analysis for analysis in analyses if analysis.state is not AnalysisState.SUCCEEDED]
        return cls(
            answers=ordered,
            cough=sum(1 for analysis in analyses if analysis.decision),
            no_cough=sum(1 for analysis in analyses if analysis.decision is False),
            failed=len(failed),
            own_faults=tuple(str(one.error_class) for one in failed if one.error_class not in FILE_FAULTS),
            audio_s=sum(analysis.duration_s or 0.0 for analysis in analyses),
            before=tuple(one.finished_at for one in analyses if one.finished_at and one.finished_at < began),
        )

    def words(self) -> str:
        """The counts in one line."""
        return f"{self.cough} cough, {self.no_cough} no cough, {self.failed} failed"

    def status(self, own_recordings: bool) -> int:
        """The exit status: 1 after an unexpected failure, else 0.

        With ``own_recordings``, the user's own folder, a failure because of a faulty file is expected. Synthetic
        recordings must all get results.
        """
        return int(bool(self.own_faults) or (self.failed > 0 and not own_recordings))


def results_table(tally: Tally, width: int, safe: Callable[[str], Text]) -> Table:
    """The table for a screen of ``width`` characters; ``safe`` makes the names of files printable."""
    shown = _shown(tally.answers)
    wide = is_wide(width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="bold")
    table.title = "Results" if len(shown) == len(tally.answers) else f"{len(shown)} of {len(tally.answers)} results"
    table.add_column("recording" if wide else f"recording, in s3://{BUCKET}/", overflow="fold")
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("P(cough)", justify="right", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("segments", justify="right", no_wrap=True)
    if wide:
        table.add_column("strongest", justify="right", no_wrap=True)
        table.add_column("model", overflow="fold")
        table.add_column("profile", no_wrap=True)
    for answer in shown:
        one = answer.analysis
        cells = [safe(one.uri if wide else one.key), *_cells(one)]
        if wide:
            cells += [_strongest(answer), safe(one.model or ""), safe(one.profile)]
        table.add_row(*cells)
    return table


def is_wide(width: int) -> bool:
    """Whether a screen of this width has room for the model and profile of each result."""
    return width >= _WIDE


def served(tally: Tally) -> str:
    """The models, profiles and thresholds of the answers."""
    pairs = {(one.analysis.model, one.analysis.profile, one.analysis.threshold) for one in tally.answers}
    named = sorted(
        f"{model or 'no model'}, profile {profile}" + ("" if threshold is None else f", threshold {threshold}")
        for model, profile, threshold in pairs
    )
    return "; ".join(named)


def failures(tally: Tally) -> list[tuple[str, str]]:
    """Key and reason of the first ten failures."""
    failed = [one.analysis for one in tally.answers if one.analysis.error_class is not None]
    return [(one.key, f"{one.error_class}: {one.error_message}") for one in failed[:10]]


def _shown(answers: tuple[JobAnswer, ...]) -> list[JobAnswer]:
    """The answers for the table, at most ``_MOST_ROWS``, in order. Failures are kept before results."""
    by_interest = sorted(answers, key=lambda answer: answer.analysis.error_class is None)
    kept = {answer.job_id for answer in by_interest[:_MOST_ROWS]}
    return [answer for answer in answers if answer.job_id in kept]


def _cells(one: Analysis) -> list[Text]:
    length = Text("" if one.duration_s is None else f"{one.duration_s:.1f} s")
    if one.bag_probability is None:
        return [length, Text("-", style="dim"), Text(one.error_class or one.state.value, style="bold red"), Text("-")]
    answer = Text("cough", style="bold yellow") if one.decision else Text("no cough", style="dim")
    segments = f"{one.segments} of {one.segments_total}" if one.truncated else str(one.segments)
    return [length, Text(probability(one.bag_probability, one.threshold)), answer, Text(segments)]


def _strongest(answer: JobAnswer) -> Text:
    """The start and end of the segment with the highest probability."""
    if not answer.segments:
        return Text("-")
    best = max(answer.segments, key=lambda segment: segment.probability)
    return Text(f"{best.start_s:.1f} to {best.end_s:.1f} s")
