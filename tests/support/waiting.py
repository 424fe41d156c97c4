"""Tests wait for conditions, not for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Factor on all limits. They are given for a quiet machine; a slow or busy one needs longer. A test that passes does
#: not get slower.
PATIENCE = 3.0


def wait_until(condition: Callable[[], T], timeout_s: float, what: str, every_s: float = 0.02) -> T:
    """Poll until ``condition()`` is true, and return its value.

    Raises:
        TimeoutError: it is not true after `PATIENCE` times ``timeout_s`` seconds; the message has ``what`` and the last
            value.
    """
    limit_s = PATIENCE * timeout_s
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {limit_s:g} s for {what}; last seen: {value!r}")
        time.sleep(every_s)
