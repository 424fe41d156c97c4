"""The producer: enqueue one or many recordings, each in one atomic step on the broker, and receive their outcomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tussis.shared.admission import Admission, admit
from tussis.shared.allowed import AllowedBuckets
from tussis.shared.batches import Batches, BatchOutcome, BatchStatus
from tussis.shared.broker import connect, redact
from tussis.shared.errors import MessageTooLarge, TussisError
from tussis.shared.job_requests import JobRequest, job_for
from tussis.shared.ledger import Ledger, Opening, SentOpening, prepare_opening
from tussis.shared.messages import Job
from tussis.shared.outcome_group import TAKE_OVER_S, OutcomeGroup
from tussis.shared.outcome_reader import OutcomeReader
from tussis.shared.outcomes import JobOutcome
from tussis.shared.pins import Pins, requests_under
from tussis.shared.s3 import s3_client as make_s3_client

if TYPE_CHECKING:
    import redis

    from tussis.shared.settings import Settings

DEFAULT_CHUNK = 500


@dataclass(frozen=True)
class Enqueued:
    """The outcome of one request of :meth:`Producer.enqueue_many`."""

    request: JobRequest
    job_id: str | None
    """None if the request was refused, and in a dry run."""
    sent: bool
    """False if nothing was sent: the job was already open, the request was refused, or it is a dry run."""
    error: TussisError | None = None
    """Why the request was refused."""


@dataclass(frozen=True)
class _Chunk:
    """Requests, and for each its job or its error."""

    requests: Sequence[JobRequest]
    jobs: Sequence[Job | TussisError]
    opening: Opening | None
    """The jobs in the format of the broker, prepared while it processes the previous chunk; None without jobs."""


class Producer:
    """Enqueues recordings and receives the outcomes of jobs. A context manager that several threads can share.

    ``broker_url`` None means ``TUSSIS_BROKER_URL``. ``s3_client`` is a boto3 client; None creates one at the first
    request to S3. With ``head=False``, :meth:`enqueue` and :meth:`enqueue_many` send no request to S3: a job without
    ``version_id`` and ``etag`` then gets a random id, and the worker analyses the content that it finds.
    ``head_threads`` is the maximum number of concurrent requests of :meth:`enqueue_many` to S3. ``settings`` None means
    the environment, read at the first call that needs it.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        s3_client: Any = None,
        head: bool = True,
        head_threads: int = 16,
        settings: Settings | None = None,
    ) -> None:
        self._broker_url = broker_url
        self._settings_given = settings
        self._s3_given = s3_client
        self._head = head
        self._head_threads = head_threads
        self._pins = Pins(self._s3, head_threads)
        self._lock = threading.Lock()
        self._redis: redis.Redis | None = None
        self._url = ""
        self._ledger: Ledger | None = None
        self._s3_made: Any = None

    def enqueue(
        self,
        uri: str,
        *,
        version_id: str | None = None,
        etag: str | None = None,
        model: str | None = None,
        profile: str | None = None,
        priority: int = 5,
        device: str = "any",
        metadata: Mapping[str, Any] | None = None,
        again: bool = False,
        coverage: str | None = None,
        batch: str | None = None,
        max_depth: int | None = None,
        max_wait_s: float | None = 0.0,
    ) -> str:
        """Enqueue one recording; returns its job id.

        When this returns, the broker holds the job. If the same job is already open, this returns its id and sends
        nothing. The arguments are those of :class:`JobRequest`, and of :class:`Admission`: ``batch`` is the batch that
        the job joins (see :meth:`close_batch`), and ``max_depth`` the most open jobs. If there are as many, this waits
        ``max_wait_s`` seconds for room (None: without a limit) and raises :class:`QueueFull`.

        Raises :class:`InvalidUri`, :class:`InvalidJob`,
        :class:`ObjectMissing`, :class:`BucketMissing`, :class:`StorageAccessDenied`, :class:`StorageCredentials`,
        :class:`StorageUnavailable`, :class:`BrokerUnavailable`, :class:`BrokerRefused`, :class:`TooManyBatches` and
        :class:`SettingsInvalid`, all within 10 s.
        """
        admission = _admission(batch, max_depth, max_wait_s)
        request = JobRequest(uri, version_id, etag, model, profile, priority, device, metadata, again, coverage)
        if self._head and not request.pinned:
            request = self._pins.pin(request)
        job = self._job(request, time.time())
        ledger = self._open_ledger()
        if admission is None:
            ledger.open(job)
        else:
            list(admit(ledger, [job], admission))
        return job.job_id

    def enqueue_many(
        self,
        requests: Iterable[str | JobRequest],
        *,
        chunk: int = DEFAULT_CHUNK,
        dry_run: bool = False,
        batch: str | None = None,
        max_depth: int | None = None,
        max_wait_s: float | None = 0.0,
        on_full: Callable[[int], None] = lambda depth: None,
    ) -> Generator[Enqueued, None, None]:
        """Enqueue a stream of URIs and requests; yields the outcome of each, in order.

        Works during the iteration, ``chunk`` requests at a time. While the broker processes one chunk, the next one is
        read from the stream and prepared. At most these two chunks are in memory. A request that is wrong, or whose
        object is missing, is refused, and the iteration continues. An error that concerns all requests ends the
        iteration: it raises :class:`BrokerUnavailable`, :class:`BrokerRefused`, :class:`StorageUnavailable`,
        :class:`StorageCredentials`, :class:`SettingsInvalid` or :class:`TooManyBatches`. Outcomes that were already
        yielded are final, and the other requests can safely be enqueued again. ``dry_run`` does everything except
        sending, returns no ids and needs no broker.

        ``batch``, ``max_depth`` and ``max_wait_s`` are those of :class:`Admission`. ``max_wait_s`` is the longest wait
        for room for the next request; then it raises :class:`QueueFull`. ``on_full`` is called with the number of open
        jobs while there is no room. The batch is not closed at the end: see :meth:`close_batch`.
        """
        if not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        admission = _admission(batch, max_depth, max_wait_s)
        stream = (JobRequest(item) if isinstance(item, str) else item for item in requests)
        chunks = self._chunks(stream, chunk, admission)
        current = next(chunks, None)
        if current is None:
            return
        ahead = max_depth is None
        """Whether a chunk is sent before the outcomes of the one before are yielded. With a bound, it would overtake
        those for which there is no room."""
        sent = None if dry_run else self._send(current.opening)
        try:
            while current is not None:
                upcoming, problem = _next_chunk(chunks)
                answers: Iterator[bool] = iter(() if sent is None else sent.answers())
                sent = None
                if not ahead and not dry_run and current.opening is not None:
                    assert admission is not None
                    named = [job for job in current.jobs if isinstance(job, Job)]
                    answers = admit(self._open_ledger(), named, admission, list(answers), on_full=on_full)
                elif not dry_run and upcoming is not None:
                    sent = self._send(upcoming.opening)
                for request, job in zip(current.requests, current.jobs, strict=True):
                    if isinstance(job, TussisError):
                        yield Enqueued(request, None, sent=False, error=job)
                    elif dry_run:
                        yield Enqueued(request, None, sent=False)
                    else:
                        yield Enqueued(request, job.job_id, sent=next(answers))
                if problem is not None:
                    raise problem
                if not ahead and not dry_run and upcoming is not None:
                    sent = self._send(upcoming.opening)
                current = upcoming
        finally:
            if sent is not None:
                sent.close()

    def close_batch(self, name: str) -> BatchStatus:
        """Close a batch, when all its jobs are enqueued. It is done, and told, when the last of them has ended.

        A batch without jobs is made if there is none. A batch that gets another job later is open again: close it
        again. Raises :class:`InvalidJob`, :class:`TooManyBatches`, :class:`BrokerUnavailable` and
        :class:`BrokerRefused`.
        """
        return self._batches().close(name, make=True)

    def batch(self, name: str) -> BatchStatus:
        """The progress of a batch. Raises :class:`BatchUnknown` and the errors of :meth:`close_batch`."""
        return self._batches().status(name)

    def wait_batch(self, name: str, timeout_s: float | None = None) -> BatchStatus:
        """Wait until a batch is done: closed, and without open jobs. It needs no database.

        ``timeout_s`` None waits without a limit. Raises :class:`WaitTimeout` and the errors of :meth:`batch`.
        """
        return self._batches().wait(name, timeout_s)

    def listed(self, prefix_uri: str, like: JobRequest | None = None) -> Iterator[JobRequest]:
        """A request for every object under ``s3://bucket/prefix``, pinned by the entity tag in the listing.

        Input for :meth:`enqueue_many`, which then sends no further request to S3. Streams the listing. ``like`` has the
        other fields. Raises :class:`InvalidUri` and the storage errors of :meth:`enqueue`.
        """
        return requests_under(prefix_uri, self._s3, like or JobRequest(prefix_uri))

    def wait(self, job_ids: Iterable[str], timeout_s: float | None = None) -> dict[str, JobOutcome]:
        """Wait until all these jobs have ended; returns the outcome of each by job id. It needs no database.

        Raises the errors of :meth:`wait_each`. To have the outcomes of the jobs that ended in time, use that method.
        """
        return {outcome.job_id: outcome for outcome in self.wait_each(job_ids, timeout_s)}

    def wait_each(self, job_ids: Iterable[str], timeout_s: float | None = None) -> Generator[JobOutcome, None, None]:
        """The outcome of each of these jobs, as they end. A job that has ended before is among the first.

        ``timeout_s`` None waits without a limit, 0 does not wait. Raises :class:`WaitTimeout` (its ``open_ids`` are
        still open), :class:`JobUnknown` (its ``job_ids`` are not open, and their outcomes are no longer kept),
        :class:`OutcomeUnreadable`, :class:`BrokerUnavailable` and :class:`BrokerRefused`.
        """
        client, where = self._broker()
        yield from OutcomeReader(client, where).wait_each(job_ids, timeout_s)

    def outcomes(
        self,
        group: str,
        consumer: str | None = None,
        *,
        idle_s: float | None = None,
        take_over_s: float = TAKE_OVER_S,
        on_batch: Callable[[BatchOutcome], None] | None = None,
    ) -> OutcomeGroup:
        """All outcomes of the deployment, one by one, in a group of readers that the broker remembers.

        The arguments and the errors are those of :class:`OutcomeGroup`.
        """
        client, where = self._broker()
        return OutcomeGroup(client, where, group, consumer, idle_s=idle_s, take_over_s=take_over_s, on_batch=on_batch)

    def close(self) -> None:
        """Close the connections that this producer opened. The producer cannot be used afterwards."""
        self._pins.close()
        if self._redis is not None:
            self._redis.close()
        if self._s3_made is not None:
            self._s3_made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, stream: Iterator[JobRequest], size: int, admission: Admission | None) -> Iterator[_Chunk]:
        while requests := list(islice(stream, size)):
            jobs = self._prepare(requests)
            try:
                opening = _opening(jobs, admission)
            except MessageTooLarge:
                # The preparation of a chunk serialises each job once and finds its size. Only now is each job checked.
                jobs = [_sendable(job) for job in jobs]
                opening = _opening(jobs, admission)
            yield _Chunk(requests, jobs, opening)

    def _prepare(self, requests: Sequence[JobRequest]) -> list[Job | TussisError]:
        """The jobs of the requests, in order. A refused request has an error in the place of its job."""
        asked = [request for request in requests if self._head and not request.pinned]
        pinned = iter(self._pins.pin_many(asked))
        now = time.time()
        jobs: list[Job | TussisError] = []
        for request in requests:
            answer = next(pinned) if self._head and not request.pinned else request
            if isinstance(answer, TussisError):
                jobs.append(answer)
                continue
            try:
                jobs.append(self._job(answer, now))
            except TussisError as error:
                jobs.append(error)
        return jobs

    def _job(self, request: JobRequest, now: float) -> Job:
        """The job of a request. With settings, it is refused here if no worker may read its object."""
        job = job_for(request, now)
        if self._settings_given is not None:
            AllowedBuckets.parse(self._settings_given.allowed_buckets).check(job.bucket, job.key)
        return job

    def _send(self, opening: Opening | None) -> SentOpening | None:
        return None if opening is None else self._open_ledger().send_prepared(opening)

    def _open_ledger(self) -> Ledger:
        client, where = self._broker()
        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger(client, where)
            return self._ledger

    def _batches(self) -> Batches:
        return Batches(*self._broker())

    def _broker(self) -> tuple[redis.Redis, str]:
        """A client of the broker, and the broker's address for messages."""
        with self._lock:
            if self._redis is None:
                self._url = self._address()
                self._redis = connect(self._url)
            return self._redis, redact(self._url)

    def _address(self) -> str:
        if self._broker_url is None:
            return self._settings().need_broker()
        # Without TLS nothing in the settings concerns the URL.
        tls = self._broker_url.lower().startswith("rediss:")
        return self._settings().broker_address(self._broker_url) if tls else self._broker_url

    def _s3(self) -> Any:
        if self._s3_given is not None:
            return self._s3_given
        with self._lock:
            if self._s3_made is None:
                self._s3_made = make_s3_client(self._settings(), connections=self._head_threads)
            return self._s3_made

    def _settings(self) -> Settings:
        if self._settings_given is not None:
            return self._settings_given
        from tussis.shared.settings import load_settings  # importing pydantic takes 0.1 s

        return load_settings()


def _admission(batch: str | None, max_depth: int | None, max_wait_s: float | None) -> Admission | None:
    """None if jobs are opened without a batch and without a bound. Raises :class:`InvalidJob`."""
    return None if batch is None and max_depth is None else Admission(batch, max_depth, max_wait_s)


def _opening(jobs: Sequence[Job | TussisError], admission: Admission | None) -> Opening | None:
    """The jobs without the errors, in the format of the broker; None without jobs. Raises :class:`MessageTooLarge`."""
    named = [job for job in jobs if isinstance(job, Job)]
    if not named:
        return None
    return prepare_opening(named) if admission is None else prepare_opening(named, admission.batch, admission.max_depth)


def _sendable(job: Job | TussisError) -> Job | TussisError:
    """The job, or the error if its message is too large."""
    if isinstance(job, Job):
        try:
            job.to_json()
        except MessageTooLarge as error:
            return error
    return job


def _next_chunk(chunks: Iterator[_Chunk]) -> tuple[_Chunk | None, Exception | None]:
    """The next chunk, or the error that prevents it. The caller raises it after the outcomes of the previous chunk."""
    try:
        return next(chunks, None), None
    except Exception as error:
        return None, error
