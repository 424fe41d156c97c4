"""Compare the distribution of a measure in a period with that in a reference period. Pure functions of counts.

The population stability index (PSI) of two samples in the same bins, with the shares p and q of a bin:

    PSI = sum over the bins of (p - q) ln(p / q)

It is 0 for equal shares and never negative. A bin that only one sample has counts as half a result in the other,
because the logarithm of 0 has no value. Rules of thumb: below 0.1 little has changed, from 0.25 on much (N. Siddiqi,
*Credit Risk Scorecards*, Wiley 2006).

Two samples of the same distribution have no PSI of 0 either. Theirs is about (1/n + 1/m) times a chi-squared variable
with one degree of freedom less than there are bins (B. Yurdakul, *Statistical Properties of Population Stability
Index*, Western Michigan University 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

#: The least number of results in each of the two periods. With fewer, chance alone can reach :data:`SMALL`.
LEAST_RESULTS: Final = 100
#: From this PSI on, a measure has changed a little, or much.
SMALL, LARGE = 0.1, 0.25
#: The normal quantile of 0.999: one of 1,000 equal measures is above :func:`chance_limit`.
_NORMAL_QUANTILE: Final = 3.0902

#: A bin, or a category -> the number of results in it.
Counts: TypeAlias = Mapping[int | str, int]


class Change(StrEnum):
    """How much a measure has changed."""

    NONE = "none"
    SMALL = "small"
    LARGE = "large"
    UNKNOWN = "too few results"


def psi(counts: Counts, reference: Counts) -> float:
    """The population stability index of two samples. Raises ValueError if one is empty."""
    n, m = _total(counts), _total(reference)
    found = 0.0
    for one in _occupied(counts, reference):
        p, q = (counts.get(one) or 0.5) / n, (reference.get(one) or 0.5) / m
        found += (p - q) * math.log(p / q)
    return found


def expected_psi(counts: Counts, reference: Counts) -> float:
    """The mean PSI of two samples of these sizes and bins if nothing has changed."""
    return _freedom(counts, reference) * _spread(counts, reference)


def chance_limit(counts: Counts, reference: Counts) -> float:
    """The PSI that chance exceeds once in 1,000 times if nothing has changed (approximation of Wilson and Hilferty)."""
    freedom = _freedom(counts, reference)
    if freedom == 0:
        return 0.0
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _NORMAL_QUANTILE * math.sqrt(part)) ** 3 * _spread(counts, reference))


def ks_distance(counts: Counts, reference: Counts) -> float:
    """The Kolmogorov-Smirnov distance of two samples in numbered bins, 0 to 1: the largest difference of the shares
    below a limit of the bins. The distance of the samples themselves is this or more."""
    n, m = _total(counts), _total(reference)
    below = below_reference = largest = 0.0
    for one in sorted({*counts, *reference}, key=int):
        below += counts.get(one, 0) / n
        below_reference += reference.get(one, 0) / m
        largest = max(largest, abs(below - below_reference))
    return largest


def change(counts: Counts, reference: Counts) -> Change:
    """How much the measure has changed. A PSI within the limit of chance is no change."""
    if min(sum(counts.values()), sum(reference.values())) < LEAST_RESULTS:
        return Change.UNKNOWN
    found = psi(counts, reference)
    if found < SMALL or found <= chance_limit(counts, reference):
        return Change.NONE
    return Change.LARGE if found >= LARGE else Change.SMALL


def most_changed(counts: Counts, reference: Counts) -> int | str:
    """The bin whose share has changed most; of several, the first by its text."""
    n, m = _total(counts), _total(reference)
    bins = sorted(_occupied(counts, reference), key=str)
    return max(bins, key=lambda one: abs(counts.get(one, 0) / n - reference.get(one, 0) / m))


def _occupied(counts: Counts, reference: Counts) -> set[int | str]:
    return {one for one in (*counts, *reference) if counts.get(one) or reference.get(one)}


def _freedom(counts: Counts, reference: Counts) -> int:
    return len(_occupied(counts, reference)) - 1


def _spread(counts: Counts, reference: Counts) -> float:
    return 1 / _total(counts) + 1 / _total(reference)


def _total(counts: Counts) -> int:
    total = sum(counts.values())
    if not total:
        raise ValueError("a sample without results has no distribution")
    return total
