"""What the routes of the gateway use: the broker, the object store, and the database if there is access to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import redis

from tussis.shared.batches import Batches
from tussis.shared.broker import connect, redact
from tussis.shared.errors import SettingsInvalid
from tussis.shared.ledger import Ledger
from tussis.shared.outcome_reader import OutcomeReader
from tussis.shared.pins import Pins
from tussis.shared.s3 import s3_client
from tussis.shared.uploads import UPLOAD_READ_TIMEOUT_S
from tussis.worker.gateway.counts import Counts
from tussis.worker.gateway.idempotency import Idempotency
from tussis.worker.gateway.rates import RateLimit
from tussis.worker.gateway.tail import OutcomeTail
from tussis.worker.gateway.tokens import Tokens, tokens_of
from tussis.worker.jobs.reports import JobReports

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.repository import Store


@dataclass(frozen=True, kw_only=True)
class Services:
    """One set for a process. Its clients connect at their first use, and several threads can share them."""

    settings: Settings
    redis: redis.Redis
    where: str
    """The address of the broker for messages."""
    ledger: Ledger
    outcomes: OutcomeReader
    batches: Batches
    pins: Pins
    tail: OutcomeTail
    """Tells when jobs end."""
    tokens: Tokens | None
    """None: requests need no token."""
    rates: RateLimit
    store: Store | None
    """None: TUSSIS_DATABASE_URL is not set."""
    s3: S3Access
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the process begins to stop: streams end."""
    uploading: anyio.CapacityLimiter
    """The threads of uploads. All other work is done by the threads of anyio's default limiter."""
    idempotency: Idempotency
    reports: JobReports
    counts: Counts
    """What ``/v1/metrics`` shows."""
    streams: set[asyncio.Event] = field(default_factory=set)
    """Open streams of outcomes: each wakes at its event."""
    verified: threading.Event = field(default_factory=threading.Event)
    """Set when the schema of the database was found to be that of this version."""

    def stop(self) -> None:
        """Let streams end, and refuse new ones. The event loop or a signal handler of its thread calls it."""
        self.stopping.set()
        for woken in tuple(self.streams):
            woken.set()

    def need_store(self) -> Store:
        """The store, with the schema of this version. Raises :class:`SettingsInvalid` and the errors of the
        database."""
        if self.store is None:
            raise SettingsInvalid("the gateway has no access to the database: set TUSSIS_DATABASE_URL for it")
        if not self.verified.is_set():
            self.store.verify_schema()
            self.verified.set()
        return self.store


class S3Access:
    """The S3 client, made at its first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None

    def client(self) -> Any:
        """The boto3 client. Raises :class:`SettingsInvalid` and :class:`StorageCredentials`."""
        with self._lock:
            if self._client is None:
                connections = self._settings.serve_threads + self._settings.serve_uploads
                self._client = s3_client(self._settings, connections=connections, read_timeout_s=UPLOAD_READ_TIMEOUT_S)
            return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


#: Requests to S3 that one request of several keys sends at a time.
_HEADS = 8


@contextmanager
def open_services(settings: Settings) -> Iterator[Services]:
    """The services of the settings; closes them at the end. Raises :class:`SettingsInvalid`."""
    url = settings.need_broker()
    tokens = tokens_of(settings)
    store = None
    if settings.database_url is not None:
        from tussis.shared.store.repository import Store

        store = Store.connect(settings.database_url, pool_size=min(8, settings.serve_threads))
    client, where = connect(url), redact(url)
    s3 = S3Access(settings)
    pins = Pins(s3.client, _HEADS)
    tail = OutcomeTail(connect(url), where)
    ledger = Ledger(client, where, bounds=settings.outcome_bounds)
    outcomes = OutcomeReader(client, where)
    counts = Counts()
    counts.show_open_jobs(ledger.open_jobs)
    try:
        yield Services(
            settings=settings,
            redis=client,
            where=where,
            ledger=ledger,
            outcomes=outcomes,
            batches=Batches(client, where),
            pins=pins,
            tail=tail,
            tokens=tokens,
            rates=RateLimit(settings.serve_requests_per_s),
            store=store,
            s3=s3,
            uploading=anyio.CapacityLimiter(settings.serve_uploads),
            idempotency=Idempotency(client, where, settings.serve_idempotency_s),
            reports=JobReports(outcomes, ledger, store),
            counts=counts,
        )
    finally:
        tail.close()
        pins.close()
        s3.close()
        client.close()
        if store is not None:
            store.close()
