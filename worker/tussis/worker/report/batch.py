"""Numbers about many analyses, taken one by one."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis
from tussis.worker.evaluation.curves import Scored

BINS: Final = 20
"""Bins of the histogram, each 0.05 wide."""
SLOWEST: Final = 10
COUGH, NO_COUGH, FAILED = "cough", "no cough", "failed"


@dataclass(slots=True)
class Failures:
    """The failures with one error class."""

    count: int
    newest: Analysis


@dataclass(slots=True)
class Batch:
    """Numbers about analyses. They need the same memory for any number of analyses, except for the labelled ones."""

    labels: Mapping[str, bool] = field(default_factory=dict)
    """URI -> whether the recording has a cough."""
    states: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    """Of results: name@version, profile and coverage."""
    thresholds: Counter[float] = field(default_factory=Counter)
    histogram: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(BINS)])
    """Results of each bin of the bag probability, by decision."""
    days: dict[date, Counter[str]] = field(default_factory=dict)
    """Results and failures of each day in UTC, by the time at which they finished."""
    failures: dict[str, Failures] = field(default_factory=dict)
    warnings: Counter[str] = field(default_factory=Counter)
    recorded_s: float = 0.0
    analyzed_s: float = 0.0
    events: int = 0
    cough_seconds: float = 0.0
    scored: dict[str, Scored] = field(default_factory=dict)
    """Labelled URI -> probability and label of its newest result."""
    decided: dict[str, bool] = field(default_factory=dict)
    """Labelled URI -> decision of its newest result."""
    _slowest: list[tuple[float, int, Analysis]] = field(default_factory=list)

    def add(self, analysis: Analysis) -> None:
        """Count an analysis. They come newest first."""
        self.states[analysis.state.value] += 1
        if analysis.decision is not None:
            self._add_result(analysis, COUGH if analysis.decision else NO_COUGH)
        elif analysis.state is AnalysisState.FAILED:
            self._add_failure(analysis)
        if analysis.finished_at is not None and analysis.state is not AnalysisState.CANCELLED:
            heapq.heappush(self._slowest, (took_s(analysis), -analysis.id, analysis))
            if len(self._slowest) > SLOWEST:
                heapq.heappop(self._slowest)

    @property
    def total(self) -> int:
        """Number of analyses."""
        return self.states.total()

    @property
    def results(self) -> int:
        """Number of analyses with a result."""
        return self.states[AnalysisState.SUCCEEDED.value]

    def slowest(self) -> list[Analysis]:
        """The analyses whose last attempt took longest, the slowest first."""
        return [analysis for *_, analysis in sorted(self._slowest, key=lambda row: row[:2], reverse=True)]

    def failures_by_class(self) -> list[tuple[str, Failures]]:
        """Failures by error class, the most frequent class first."""
        return sorted(self.failures.items(), key=lambda item: (-item[1].count, item[0]))

    def _add_result(self, analysis: Analysis, decision: str) -> None:
        assert analysis.bag_probability is not None
        assert analysis.threshold is not None
        assert analysis.finished_at is not None
        self.models[f"{analysis.model}, {analysis.profile}, {analysis.coverage}"] += 1
        self.thresholds[analysis.threshold] += 1
        self.histogram[min(BINS - 1, int(analysis.bag_probability * BINS))][decision] += 1
        self._day(analysis)[decision] += 1
        self.warnings.update(analysis.warnings or ())
        self.recorded_s += analysis.duration_s or 0.0
        self.analyzed_s += analysis.analyzed_s or 0.0
        self.events += analysis.events or 0
        self.cough_seconds += analysis.cough_seconds or 0.0
        is_cough = self.labels.get(analysis.uri)
        if is_cough is not None and analysis.uri not in self.scored:
            self.scored[analysis.uri] = (analysis.bag_probability, is_cough)
            self.decided[analysis.uri] = bool(analysis.decision)

    def _add_failure(self, analysis: Analysis) -> None:
        name = analysis.error_class or ""
        if name in self.failures:
            self.failures[name].count += 1
        else:
            self.failures[name] = Failures(1, analysis)
        self._day(analysis)[FAILED] += 1

    def _day(self, analysis: Analysis) -> Counter[str]:
        assert analysis.finished_at is not None
        return self.days.setdefault(analysis.finished_at.date(), Counter())


def took_s(analysis: Analysis) -> float:
    """Seconds from the start to the end of the last attempt."""
    return 0.0 if analysis.finished_at is None else (analysis.finished_at - analysis.started_at).total_seconds()
