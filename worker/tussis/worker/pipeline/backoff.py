"""When to try again after a transient fault: capped exponential delays with equal jitter.

The name and the formula are those of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: half of
the delay is fixed and the other half is random, so that recordings that failed together do not come back together.
"""

from __future__ import annotations

import random


def ceiling_s(failures: int, base_s: float, cap_s: float) -> float:
    """The longest delay after the given number of transient faults (at least 1), seconds."""
    # 2 ** 63 s is past every cap; without the bound a long history overflows a float.
    return min(cap_s, base_s * 2.0 ** min(failures - 1, 62))


def delay_s(failures: int, base_s: float, cap_s: float, rng: random.Random | None = None) -> float:
    """A delay between half the ceiling and the ceiling, uniformly distributed, seconds: equal jitter.

    Full jitter, from 0 to the ceiling, could meet a fault that lasts a second again after a millisecond.
    """
    ceiling = ceiling_s(failures, base_s, cap_s)
    return (rng or random).uniform(ceiling / 2, ceiling)


def exhausted(failures: int, base_s: float, cap_s: float, total_s: float) -> bool:
    """Whether the ceilings of that many delays add up to more than ``total_s``.

    The limit is on the delays and not on the clock: a database that was away, a worker that was stopped or a long
    queue count towards nothing.
    """
    total = 0.0
    for number in range(1, failures + 1):
        total += ceiling_s(number, base_s, cap_s)
        if total > total_s:
            return True
    return False
