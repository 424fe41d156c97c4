"""The rows of ``tussis drift``: one for each measure, with what has changed in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tussis.shared.drift import (
    LEAST_RESULTS,
    Change,
    chance_limit,
    change,
    expected_psi,
    ks_distance,
    most_changed,
    psi,
)
from tussis.shared.store.drift import MEASURES, DriftGroup, Sample
from tussis.shared.store.views.drift import EDGES
from tussis.shared.text import probability

_LEVELS = ("rms_dbfs", "peak_dbfs")


@dataclass(frozen=True)
class Row:
    """One measure of one group. The numbers of a comparison are None if a period has too few results for it.

    ``ks`` is None for a category as well. ``median`` and ``reference_median`` are None for a category, and minus
    infinity for the level of digital silence.
    """

    group: str
    measure: str
    results: int
    reference_results: int
    change: Change
    psi: float | None
    expected_psi: float | None
    chance_limit: float | None
    ks: float | None
    median: float | None
    reference_median: float | None
    words: str

    def above(self, limit: float) -> bool:
        """Whether the PSI is above the limit, and above what chance can explain."""
        return self.psi is not None and self.chance_limit is not None and self.psi > max(limit, self.chance_limit)


def rows_of(groups: Iterable[DriftGroup]) -> list[Row]:
    """A row for each measure of each group, the largest PSI first, rows without PSI last."""
    rows = [
        _row(group.name, measure, group.period[measure], group.reference[measure])
        for group in groups
        for measure in MEASURES
    ]
    return sorted(rows, key=lambda row: -1.0 if row.psi is None else row.psi, reverse=True)


def _row(group: str, measure: str, period: Sample, reference: Sample) -> Row:
    enough = min(period.results, reference.results) >= LEAST_RESULTS
    there = min(period.results, reference.results) > 0
    return Row(
        group=group,
        measure=measure,
        results=period.results,
        reference_results=reference.results,
        change=change(period.counts, reference.counts),
        psi=psi(period.counts, reference.counts) if enough else None,
        expected_psi=expected_psi(period.counts, reference.counts) if enough else None,
        chance_limit=chance_limit(period.counts, reference.counts) if enough else None,
        ks=ks_distance(period.counts, reference.counts) if enough and measure in EDGES else None,
        median=period.median,
        reference_median=reference.median,
        words=_words(measure, period, reference) if there else "",
    )


def _words(measure: str, period: Sample, reference: Sample) -> str:
    """The medians, or the shares of the bin that has changed most if there are no medians or they look the same."""
    if period.median is not None and reference.median is not None:
        before, now = _value(measure, reference.median), _value(measure, period.median)
        if before != now:
            unit = _unit(measure)
            before = before.removesuffix(unit) if before.endswith(unit) and now.endswith(unit) else before
            return f"median {before} -> {now}"
    one = most_changed(period.counts, reference.counts)
    before, now = (_share(sample.counts.get(one, 0) / sample.results) for sample in (reference, period))
    name = bin_words(measure, one) if isinstance(one, int) else category_words(measure, one)
    return f"{name} {before} -> {now}"


def bin_words(measure: str, index: int) -> str:
    """The values of a bin: ``-30 to -27 dBFS``."""
    if measure == "clipped_share" and index == 0:
        return "no clipping"
    edges = [f"{100 * edge:g}" if measure == "clipped_share" else f"{edge:g}" for edge in EDGES[measure]]
    unit = " %" if measure == "clipped_share" else _unit(measure)
    if index == 0:
        return f"below {edges[0]}{unit}"
    if index == len(edges):
        return f"{edges[-1]}{unit} or more"
    lower = "0" if measure == "clipped_share" and index == 1 else edges[index - 1]
    return f"{lower} to {edges[index]}{unit}"


def category_words(measure: str, name: str) -> str:
    """A category in words: ``no warning`` for an empty text."""
    match measure:
        case "warnings":
            return name or "no warning"
        case "rate_hz" if name:
            return f"{name} Hz"
        case "channels" if name:
            return f"{name} channel{'' if name == '1' else 's'}"
    return name or f"without {measure}"


def _value(measure: str, value: float) -> str:
    if measure == "bag_probability":
        return probability(value)
    if measure == "clipped_share":
        return _share(value)
    if math.isinf(value):
        return "digital silence"
    return (f"{value:.2g}" if measure == "dc_offset" else f"{value:.1f}") + _unit(measure)


def _unit(measure: str) -> str:
    return " dBFS" if measure in _LEVELS else " s" if measure == "duration_s" else ""


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"
