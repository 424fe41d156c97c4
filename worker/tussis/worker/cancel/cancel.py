"""Cancels open jobs: chooses them in the ledger, stores them as cancelled, and closes them with their outcome.

The rows of some jobs are stored before these jobs are closed. After a kill in between, the jobs are still open: the
next call, or the claim of the worker that gets the message, finds the row and closes the job. So each job ends once, as
answered or as cancelled: the database decides.

Jobs of the shadow model are left: their recording has its answer already, and `tussis models shadow --stop` ends them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.open_jobs import OpenJobs, Place
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.store.cancellations import Cancellation, Verdict
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress

#: Jobs of one transaction, and of one step of the broker.
AT_ONCE = 500
#: Closed jobs after which their messages are removed from the lists.
PRUNE_AFTER = 20_000

#: Chooses messages (decoded JSON).
Choice = Callable[[Mapping[str, Any]], bool]


def under(prefix: ObjectAddress) -> Choice:
    """The jobs for objects of a bucket whose keys start with the key of ``prefix``."""

    def chosen(message: Mapping[str, Any]) -> bool:
        key = message.get("key")
        named = message.get("bucket") == prefix.bucket and isinstance(key, str) and key.startswith(prefix.key)
        return named and not message.get("shadow")

    return chosen


@dataclass
class CancelCounts:
    """The chosen jobs so far. ``queues`` has the cancelled ones: queue or model queue -> number."""

    queues: Counter[str] = field(default_factory=Counter)
    deferred: int = 0
    """Those of the cancelled jobs that were deferred."""
    running: int = 0
    """An attempt runs. It finishes."""
    answered: int = 0
    """They have their answer, and are closed soon."""
    received: int = 0
    """Workers received them again and again. The next call decides."""
    closed: int = 0
    """They are not open, or ended between the choice and the decision."""
    unreadable: int = 0
    """No worker can read their messages. They become dead letters."""

    @property
    def cancelled(self) -> int:
        return self.queues.total()


class Cancel:
    """Cancels jobs. Iterate over :meth:`preview` or :meth:`run`. :attr:`counts` is up to date after each step.

    :attr:`left` has the ids of the jobs that are not cancelled, with the reason. None: the job is not open.
    """

    def __init__(self, jobs: OpenJobs, ledger: Ledger, store: Store, cancelled_by: str) -> None:
        self.counts = CancelCounts()
        self.left: dict[str, Verdict | None] = {}
        self._jobs = jobs
        self._ledger = ledger
        self._store = store
        self._cancelled_by = cancelled_by

    def preview(self, job_ids: Sequence[str]) -> Iterator[CancelCounts]:
        """Count what :meth:`run` would cancel now."""
        for chosen in _in_steps(job_ids):
            jobs = self._read(chosen)
            places = self._jobs.places(jobs)
            for job_id, verdict in self._store.cancel_verdicts(jobs).items():
                if verdict is Verdict.CANCELLED:
                    self._count(job_id, places)
                else:
                    self._leave(job_id, verdict)
            yield self.counts

    def run(self, job_ids: Sequence[str]) -> Iterator[CancelCounts]:
        """Cancel the jobs, some hundred at a time, and remove their messages at the end.

        Raises the errors of the broker and of the store. The jobs of the earlier steps are cancelled.
        """
        closed: dict[str, float] = {}
        for chosen in _in_steps(job_ids):
            jobs = self._read(chosen)
            places = self._jobs.places(jobs)
            found = self._store.cancel(jobs, self._cancelled_by)
            ended = []
            for job in jobs:
                cancelled = found[job.job_id]
                if cancelled.verdict is Verdict.CANCELLED:
                    ended.append((job, _outcome(job, cancelled)))
                else:
                    self._leave(job.job_id, cancelled.verdict)
            self._ledger.close_each(ended)
            for job, _ in ended:
                self._count(job.job_id, places)
                closed[job.job_id] = job.enqueued_at
            if len(closed) >= PRUNE_AFTER:
                self._jobs.prune(closed)
                closed.clear()
            yield self.counts
        if closed:
            self._jobs.prune(closed)

    def _read(self, job_ids: Sequence[str]) -> list[Job]:
        jobs, unreadable = self._jobs.read(job_ids)
        self.counts.unreadable += len(unreadable)
        closed = set(job_ids) - {job.job_id for job in jobs} - set(unreadable)
        self.counts.closed += len(closed)
        self.left |= dict.fromkeys(closed)
        self.left |= dict.fromkeys(unreadable, Verdict.UNREADABLE)
        self.left |= {job.job_id: Verdict.SHADOW for job in jobs if job.shadow}
        return [job for job in jobs if not job.shadow]

    def _count(self, job_id: str, places: Mapping[str, Place]) -> None:
        self.counts.queues[places[job_id].queue] += 1
        self.counts.deferred += places[job_id].deferred

    def _leave(self, job_id: str, verdict: Verdict) -> None:
        self.left[job_id] = verdict
        match verdict:
            case Verdict.RUNS:
                self.counts.running += 1
            case Verdict.ANSWERED:
                self.counts.answered += 1
            case Verdict.UNREADABLE:
                self.counts.unreadable += 1
            case _:
                self.counts.received += 1


def _in_steps(job_ids: Sequence[str]) -> Iterator[list[str]]:
    ids = iter(job_ids)
    while chosen := list(islice(ids, AT_ONCE)):
        yield chosen


def _outcome(job: Job, cancelled: Cancellation) -> JobOutcome:
    return JobOutcome(
        job_id=job.job_id,
        uri=job.uri,
        state=OutcomeState.CANCELLED,
        enqueued_at=job.enqueued_at,
        started_at=None if cancelled.started_at is None else cancelled.started_at.timestamp(),
        finished_at=None if cancelled.cancelled_at is None else cancelled.cancelled_at.timestamp(),
        analysis_id=cancelled.analysis_id,
    )
