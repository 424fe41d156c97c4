"""The client library of upstream: enqueue recordings and receive the outcomes of jobs.

The entry point is ``from tussis.producer import Producer``. Each name is imported at its first use, so that the command
line does not load a broker client that it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tussis.producer.client import Enqueued, Producer
    from tussis.shared.batches import BatchOutcome, BatchStatus
    from tussis.shared.job_requests import JobRequest
    from tussis.shared.outcomes import JobOutcome

__all__ = ["BatchOutcome", "BatchStatus", "Enqueued", "JobOutcome", "JobRequest", "Producer"]

_MODULES = {
    "BatchOutcome": "tussis.shared.batches",
    "BatchStatus": "tussis.shared.batches",
    "Enqueued": "tussis.producer.client",
    "JobOutcome": "tussis.shared.outcomes",
    "JobRequest": "tussis.shared.job_requests",
    "Producer": "tussis.producer.client",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
