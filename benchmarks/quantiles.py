"""Quantiles of measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed: the nearest rank, no interpolation.

    ``share`` is above 0 and at most 1. Raises ValueError without values.
    """
    if not values:
        raise ValueError("there is no quantile of no values")
    return sorted(values)[math.ceil(share * len(values)) - 1]
