"""When a delivery that failed is tried again, and when it is given up."""

from __future__ import annotations

import random
from typing import Final

#: Seconds after the first attempt in which a webhook is tried again: a day.
RETRY_FOR_S: Final = 86_400.0
#: The first delay, and the longest one, seconds. The delay doubles each time.
FIRST_DELAY_S: Final = 5.0
LONGEST_DELAY_S: Final = 1800.0
#: The longest time of a Retry-After that is honoured, seconds.
LONGEST_RETRY_AFTER_S: Final = 3600.0
#: The longest time for which all deliveries pause after 429 (Too Many Requests), seconds.
LONGEST_PAUSE_S: Final = 60.0


def delay_s(attempts: int, retry_after_s: float | None, jitter: float | None = None) -> float:
    """Seconds until the next attempt, after so many attempts.

    The delay doubles from 5 s to 30 minutes, times a random ``jitter`` between 0.5 and 1, so that many webhooks that
    failed together do not come back together. It is at least what the receiver asked for, up to an hour.
    """
    doubled = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts - 1, 30))
    random_part = random.uniform(0.5, 1.0) if jitter is None else jitter
    return max(doubled * random_part, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))


def is_over(first_at: float, now: float) -> bool:
    """Whether a webhook that has just failed is given up. One that waited while the notifier was stopped is tried once
    more, because this is asked after an attempt."""
    return now >= first_at + RETRY_FOR_S
