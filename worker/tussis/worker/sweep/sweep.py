"""Compares a bucket's listing with store and ledger, and enqueues the objects that have neither answer nor open job.

A sweep holds one page of the listing at a time and needs one command to the broker and at most two queries for it, so
that ten million keys need the memory of a thousand. To enqueue an object twice does no harm, so a sweep may be
interrupted and started again at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from tussis.shared.coverage import Coverage
from tussis.shared.errors import InvalidJob, InvalidUri, TussisError
from tussis.shared.forgetting import Named
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, job_id_for
from tussis.shared.queues import Device
from tussis.shared.s3 import ListedObject
from tussis.shared.states import AnalysisState
from tussis.shared.store.known import AnalysisCriteria, Deleted, Known
from tussis.shared.store.records import ResultFilter
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress

#: Keys per page: the number in one answer of S3's listing.
PAGE = 1000
#: Seconds between two checks of a full queue.
POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to sweep and what to send. ``max_depth`` is the most messages that wait or are in flight."""

    prefix: ObjectAddress
    criteria: AnalysisCriteria
    model: str | None
    profile: str | None
    coverage: Coverage | None
    priority: int
    device: Device
    max_depth: int
    retry_failed: bool = False
    retry_cancelled: bool = False
    dry_run: bool = False


@dataclass
class SweepCounts:
    """The findings of a sweep so far."""

    listed: int = 0
    answered: int = 0
    open: int = 0
    failed: int = 0
    discarded: int = 0
    deleted: int = 0
    """Objects whose analyses `tussis retain` deleted."""
    refused: int = 0
    """Objects for which no valid job can be made."""
    cancelled: int = 0
    """Objects whose job was cancelled."""
    forgotten: int = 0
    """Objects that `tussis forget` forgot."""
    enqueued: int = 0
    """Listed objects that were enqueued, or in a dry run would be."""
    stranded: int = 0
    """Unfinished analyses without an open job, because the broker lost it. Sent again, not included in ``enqueued``."""

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class SweptPage:
    """The result of one page: all keys up to ``last_key`` are done, and ``uris`` were, or would be, enqueued."""

    last_key: str
    uris: list[str] = field(default_factory=list)
    refusals: list[TussisError] = field(default_factory=list)


class Sweep:
    """One sweep. Iterate over :meth:`run`, which does the work. :attr:`counts` is up to date after each step.

    ``listing`` returns the objects under the request's prefix after a key. ``on_full`` is called with the depth while
    the queue is full.
    """

    def __init__(
        self,
        request: SweepRequest,
        listing: Callable[[str], Iterable[ListedObject]],
        ledger: Ledger,
        store: Store,
        *,
        counts: SweepCounts | None = None,
        on_full: Callable[[int], None] = lambda depth: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.counts = counts or SweepCounts()
        self._request = request
        self._listing = listing
        self._ledger = ledger
        self._store = store
        self._on_full = on_full
        self._pause = pause

    def run(self, start_after: str = "") -> Iterator[SweptPage]:
        """Send the stranded analyses again first, then process the listing after the key ``start_after``.

        Raises the errors of the listing, the broker and the store. The steps that were yielded before are done.
        """
        yield from self._take_up_stranded(start_after)
        objects = iter(self._listing(start_after))
        while page := list(islice(objects, PAGE)):
            yield self._settle(page)

    def _take_up_stranded(self, start_after: str) -> Iterator[SweptPage]:
        """Send the jobs of unfinished analyses that have no open job, for any model and profile."""
        for state in (AnalysisState.RUNNING, AnalysisState.WAITING):
            begun = self._store.results(ResultFilter(state=state, prefix=self._request.prefix.uri))
            while batch := list(islice(begun, PAGE)):
                # The broker after the store: a job that ends in between is sent again, which does no harm.
                still_open = self._ledger.which_open([analysis.job_id for analysis in batch])
                jobs = [
                    replace(self._store.retry_job(analysis), reopen=False, priority=self._request.priority)
                    for analysis in batch
                    if analysis.job_id not in still_open
                ]
                sent = self._send(jobs)
                self.counts.stranded += len(sent)
                yield SweptPage(start_after, [job.uri for job in sent])

    def _settle(self, page: list[ListedObject]) -> SweptPage:
        jobs: dict[tuple[str, str], Job] = {}
        refusals: list[TussisError] = []
        now = time.time()
        for listed in page:
            try:
                jobs[listed.key, listed.etag] = self._job(listed, now)
            except (InvalidUri, InvalidJob) as error:
                refusals.append(error)
        # The broker before the store: a job that ends between the two queries is found in the store.
        still_open = self._ledger.which_open([job.job_id for job in jobs.values()])
        forgotten = set()
        if jobs:
            answers = self._store.forgotten([Named(job.bucket, job.key) for job in jobs.values()])
            forgotten = {which for which, answer in zip(jobs, answers, strict=True) if answer}
        known = self._store.known(self._request.prefix.bucket, list(jobs), self._request.criteria)
        wanted = []
        for which, job in jobs.items():
            if which in forgotten:
                self.counts.forgotten += 1
            elif job.job_id in still_open:
                self.counts.open += 1
            elif (message := self._message(job, known.get(which))) is not None:
                wanted.append(message)
        sent = self._send(wanted)
        self.counts.enqueued += len(sent)
        self.counts.open += len(wanted) - len(sent)
        self.counts.refused += len(refusals)
        self.counts.listed += len(page)
        return SweptPage(page[-1].key, [job.uri for job in sent], refusals)

    def _job(self, listed: ListedObject, now: float) -> Job:
        request = self._request
        bucket = request.prefix.bucket
        return Job(
            job_id=job_id_for(
                bucket,
                listed.key,
                version_id=None,
                etag=listed.etag,
                model=request.model,
                profile=request.profile,
                coverage=request.coverage,
            ),
            bucket=bucket,
            key=listed.key,
            etag=listed.etag,
            enqueued_at=now,
            model=request.model,
            profile=request.profile,
            coverage=request.coverage,
            priority=request.priority,
            device=request.device,
        )

    def _message(self, job: Job, known: Known | Deleted | None) -> Job | None:
        """The message to send. If there is nothing to do, the object is counted and the result is None."""
        if known is None:
            return job
        if isinstance(known, Deleted):
            self.counts.deleted += 1
            return None
        match known.state:
            case AnalysisState.SUCCEEDED:
                self.counts.answered += 1
            case AnalysisState.DISCARDED:
                self.counts.discarded += 1
            case AnalysisState.RUNNING | AnalysisState.WAITING:
                self.counts.open += 1
            case AnalysisState.FAILED if known.reopens or self._request.retry_failed:
                newer = 0.0 if known.newer_than is None else known.newer_than.timestamp()
                return replace(job, enqueued_at=max(job.enqueued_at, newer), reopen=self._request.retry_failed)
            case AnalysisState.FAILED:
                self.counts.failed += 1
            case AnalysisState.CANCELLED if self._request.retry_cancelled:
                newer = 0.0 if known.newer_than is None else known.newer_than.timestamp()
                return replace(job, enqueued_at=max(job.enqueued_at, newer))
            case AnalysisState.CANCELLED:
                self.counts.cancelled += 1
        return None

    def _send(self, jobs: list[Job]) -> list[Job]:
        """Enqueue the jobs as the queue has room for them. Returns those that were not open already."""
        if self._request.dry_run:
            return jobs
        sent: list[Job] = []
        while jobs:
            room = self._room()
            batch, jobs = jobs[:room], jobs[room:]
            for job, answer in zip(batch, self._ledger.open_many(batch), strict=True):
                if answer:
                    sent.append(job)
        return sent

    def _room(self) -> int:
        """The number of messages that the queue has room for. Waits until it is at least one."""
        while True:
            depth = self._ledger.depth()
            held = depth.total_waiting + depth.in_flight
            if held < self._request.max_depth:
                return self._request.max_depth - held
            self._on_full(held)
            self._pause(POLL_S)
