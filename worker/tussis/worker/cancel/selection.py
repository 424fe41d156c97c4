"""Which jobs a request to cancel selects, and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from tussis.shared.batches import Batches
from tussis.shared.open_jobs import OpenJobs
from tussis.shared.store.cancellations import Verdict
from tussis.shared.store.records import JobAnswer
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress
from tussis.worker.cancel.cancel import Counts, under

#: Reason of a job that was cancelled before.
ALREADY: Final = "is cancelled already"


def selected(
    client: redis.Redis, where: str, job_ids: Sequence[str], batch: str | None, prefix: ObjectAddress | None
) -> list[str]:
    """The ids of the jobs to cancel. Raises :class:`BatchUnknown`."""
    if prefix is not None:
        return list(OpenJobs(client, where).find(under(prefix)))
    if batch is not None:
        Batches(client, where).status(batch)
        return list(OpenJobs(client, where).of_batch(batch))
    return list(dict.fromkeys(job_ids))


def not_cancelled(job_ids: Sequence[str], left: Mapping[str, Verdict | None], store: Store) -> dict[str, str]:
    """Job id -> why this call does not cancel it. Jobs that it cancels are left out."""
    texts = {
        Verdict.RUNS: "runs: it finishes",
        Verdict.ANSWERED: "has its answer already",
        Verdict.SHADOW: "is a job of the shadow model: see `tussis models shadow --help`",
        Verdict.UNREADABLE: "cannot be read: it becomes a dead letter",
        Verdict.CHANGED: "was received by a worker again and again: run the command again",
    }
    reasons = {}
    for job_id in dict.fromkeys(job_ids):
        verdict = left.get(job_id, Verdict.CANCELLED)
        if verdict is None:
            reasons[job_id] = _ended(store.job(job_id))
        elif verdict is not Verdict.CANCELLED:
            reasons[job_id] = texts[verdict]
    return reasons


def _ended(answer: JobAnswer | None) -> str:
    """Why a job that is not open cannot be cancelled."""
    if answer is None:
        return "is not open, and no worker has received it: check the id"
    state = answer.analysis.state.value
    return ALREADY if state == "cancelled" else f"is not open: it is {state}"


def counts_as_json(counts: Counts, done: bool) -> dict[str, Any]:
    """The counts of a call. ``done``: it cancelled the jobs, and did not only look."""
    return {
        "done": done,
        "cancelled": counts.cancelled,
        "queues": dict(sorted(counts.queues.items())),
        "deferred": counts.deferred,
        "running": counts.running,
        "answered": counts.answered,
        "received": counts.received,
        "closed": counts.closed,
        "unreadable": counts.unreadable,
    }
