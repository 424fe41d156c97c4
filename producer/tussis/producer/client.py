"""The producer: enqueue recordings, one or many, each in one atomic step on the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tussis.producer.jobs import JobRequest, job_for
from tussis.producer.objects import Pins, requests_under
from tussis.shared.broker import connect, redact
from tussis.shared.errors import MessageTooLarge, TussisError
from tussis.shared.ledger import Ledger, Opening, SentOpening, prepare_opening
from tussis.shared.messages import Job
from tussis.shared.s3 import s3_client as make_s3_client

if TYPE_CHECKING:
    import redis

    from tussis.shared.settings import Settings

DEFAULT_BATCH = 500


@dataclass(frozen=True)
class Enqueued:
    """What became of one request of :meth:`Producer.enqueue_many`."""

    request: JobRequest
    job_id: str | None
    """None where the request was refused, and in a dry run."""
    sent: bool
    """False where nothing was sent: the job was open already, the request was refused, or it is a dry run."""
    error: TussisError | None = None
    """Why the request was refused."""


@dataclass(frozen=True)
class _Batch:
    """Requests, and for each its job, or why it has none."""

    requests: Sequence[JobRequest]
    jobs: Sequence[Job | TussisError]
    opening: Opening | None
    """The jobs as the broker takes them, made while it is busy with the batch before; None where there is none."""


class Producer:
    """Puts recordings into the queue. Safe to share between threads; a context manager.

    ``broker_url`` None means ``TUSSIS_BROKER_URL``. ``s3_client`` is a boto3 client; None makes one when S3 is first
    asked. ``head=False`` never asks S3: a request that pins no bytes then gets a random id, and the worker takes what
    it finds. ``head_threads`` is how many keys :meth:`enqueue_many` asks S3 about at a time. ``settings`` None means
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
    ) -> str:
        """Enqueue one recording; its job id.

        When this returns, the broker holds the job. Where the same job is open already, its id comes back and nothing
        is sent. The arguments are those of :class:`JobRequest`. Raises :class:`InvalidUri`, :class:`InvalidJob`,
        :class:`ObjectMissing`, :class:`BucketMissing`, :class:`StorageAccessDenied`, :class:`StorageCredentials`,
        :class:`StorageUnavailable`, :class:`BrokerUnavailable`, :class:`BrokerRefused` and :class:`SettingsInvalid`,
        all within 10 s.
        """
        request = JobRequest(uri, version_id, etag, model, profile, priority, device, metadata, again)
        if self._head and not request.pinned:
            request = self._pins.pin(request)
        job = job_for(request, time.time())
        self._open_ledger().open(job)
        return job.job_id

    def enqueue_many(
        self, requests: Iterable[str | JobRequest], *, batch: int = DEFAULT_BATCH, dry_run: bool = False
    ) -> Generator[Enqueued, None, None]:
        """Enqueue a stream of URIs and requests; what became of each, in order.

        Works as it is iterated, ``batch`` requests at a time: while one batch is on its way, the next one is drawn and
        prepared, and no more than these two are held. A request that is wrong, or whose object is missing, is refused
        alone. What concerns all of them ends the iteration: it raises :class:`BrokerUnavailable`,
        :class:`BrokerRefused`, :class:`StorageUnavailable`, :class:`StorageCredentials` or :class:`SettingsInvalid`;
        what was yielded before is settled, the rest can be enqueued again without harm. ``dry_run`` does all but the
        sending, gives no ids, and needs no broker.
        """
        if batch < 1:
            raise ValueError(f"batch is at least 1, not {batch}")
        stream = (JobRequest(item) if isinstance(item, str) else item for item in requests)
        batches = self._batches(stream, batch)
        current = next(batches, None)
        if current is None:
            return
        sent = None if dry_run else self._send(current.opening)
        try:
            while current is not None:
                upcoming, problem = _drawn(batches)
                answers = iter(() if sent is None else sent.answers())
                sent = None if dry_run or upcoming is None else self._send(upcoming.opening)
                for request, job in zip(current.requests, current.jobs, strict=True):
                    if isinstance(job, TussisError):
                        yield Enqueued(request, None, sent=False, error=job)
                    elif dry_run:
                        yield Enqueued(request, None, sent=False)
                    else:
                        yield Enqueued(request, job.job_id, sent=next(answers))
                if problem is not None:
                    raise problem
                current = upcoming
        finally:
            if sent is not None:
                sent.close()

    def listed(self, prefix_uri: str, like: JobRequest | None = None) -> Iterator[JobRequest]:
        """A request for every object under ``s3://bucket/prefix``, pinned by the entity tag in the listing.

        For :meth:`enqueue_many`; streams, and needs no further question to S3. ``like`` gives the other fields. Raises
        :class:`InvalidUri` and the storage's errors of :meth:`enqueue`.
        """
        return requests_under(prefix_uri, self._s3, like or JobRequest(prefix_uri))

    def close(self) -> None:
        """Close the connections that this producer opened. It cannot be used afterwards."""
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

    def _batches(self, stream: Iterator[JobRequest], size: int) -> Iterator[_Batch]:
        while chunk := list(islice(stream, size)):
            jobs = self._prepare(chunk)
            try:
                opening = _opening(jobs)
            except MessageTooLarge:
                # The size shows when the message is written, once a job; only now each is looked at by itself.
                jobs = [_sendable(job) for job in jobs]
                opening = _opening(jobs)
            yield _Batch(chunk, jobs, opening)

    def _prepare(self, requests: Sequence[JobRequest]) -> list[Job | TussisError]:
        """The jobs of the requests, in order, an error in the place of one that is refused."""
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
                jobs.append(job_for(answer, now))
            except TussisError as error:
                jobs.append(error)
        return jobs

    def _send(self, opening: Opening | None) -> SentOpening | None:
        return None if opening is None else self._open_ledger().send_prepared(opening)

    def _open_ledger(self) -> Ledger:
        with self._lock:
            if self._ledger is None:
                url = self._settings().need_broker() if self._broker_url is None else self._broker_url
                self._redis = connect(url)
                self._ledger = Ledger(self._redis, redact(url))
            return self._ledger

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
        from tussis.shared.settings import load_settings  # pydantic: a tenth of a second

        return load_settings()


def _opening(jobs: Sequence[Job | TussisError]) -> Opening | None:
    """The jobs that are none of the errors, as the broker takes them. Raises :class:`MessageTooLarge`."""
    named = [job for job in jobs if isinstance(job, Job)]
    return prepare_opening(named) if named else None


def _sendable(job: Job | TussisError) -> Job | TussisError:
    """The job, or why its message cannot be sent."""
    if isinstance(job, Job):
        try:
            job.to_json()
        except MessageTooLarge as error:
            return error
    return job


def _drawn(batches: Iterator[_Batch]) -> tuple[_Batch | None, Exception | None]:
    """The next batch, or why there is none: for the caller to raise when the batch before has been told of."""
    try:
        return next(batches, None), None
    except Exception as error:
        return None, error
