"""The delays after transient errors: capped exponential delays with equal jitter.

Name and formula are from M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Half of the delay
is fixed and the other half is random, so that recordings that failed together do not come back together.
"""

from __future__ import annotations

import random


def ceiling_s(failures: int, base_s: float, cap_s: float) -> float:
    """The longest delay after the given number of transient errors (at least 1), in seconds."""
    # 2 ** 62 is more than every cap. Without the bound, a large number overflows a float.
    return min(cap_s, base_s * 2.0 ** min(failures - 1, 62))


def delay_s(failures: int, base_s: float, cap_s: float, rng: random.Random | None = None) -> float:
    """A random delay in seconds, uniformly distributed between half the ceiling and the ceiling: equal jitter.

    Full jitter, from 0 to the ceiling, could retry after a millisecond, while an error of one second still lasts.
    """
    ceiling = ceiling_s(failures, base_s, cap_s)
    return (rng or random).uniform(ceiling / 2, ceiling)


def exhausted(failures: int, base_s: float, cap_s: float, total_s: float) -> bool:
    """Whether the ceilings of this number of delays add up to more than ``total_s``.

    The limit is on the delays and not on the elapsed time: the time of an unavailable database, a stopped worker or a
    long queue does not count.
    """
    total = 0.0
    for number in range(1, failures + 1):
        total += ceiling_s(number, base_s, cap_s)
        if total > total_s:
            return True
    return False
