"""A notifier in a thread, for tests."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.support.outcomes import a_job, succeeded
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.outcomes import JobOutcome
from tussis.shared.settings import load_settings
from tussis.shared.store.repository import Store
from tussis.worker.notify.addresses import AddressPolicy, parse_networks
from tussis.worker.notify.counts import DeliveryCounts
from tussis.worker.notify.endpoint import parse_endpoint
from tussis.worker.notify.notifier import Notifier, NotifyOptions
from tussis.worker.notify.outbox import Outbox
from tussis.worker.notify.sender import TimeLimits
from tussis.worker.notify.signing import signer_of

#: Also the secret of the published example.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAME = "test"


class RunningNotifier:
    """A notifier that runs until :meth:`end`. ``error`` is what it raised."""

    def __init__(self, notifier: Notifier, counts: DeliveryCounts) -> None:
        self.notifier = notifier
        self.counts = counts
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.notifier.run()
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        """Stop it as SIGTERM does."""
        self.notifier.stop()
        wait_until(lambda: not self.thread.is_alive(), 30, "the notifier to end")


@contextmanager
def running_notifier(
    broker_url: str, url: str, store: Store | None = None, **options: Any
) -> Iterator[RunningNotifier]:
    """Run a notifier that delivers to 127.0.0.1. ``options`` are those of :class:`NotifyOptions`."""
    usual: dict[str, Any] = {
        "name": NAME,
        "policy": AddressPolicy(parse_networks(("127.0.0.0/8",))),
        "limits": TimeLimits(2.0, 2.0),
        "connections": 4,
    }
    known = NotifyOptions(endpoint=parse_endpoint(url), **(usual | options))
    client, counts = connect(broker_url), DeliveryCounts()
    outbox = Outbox(client, "the broker", known.name, uuid.uuid4().hex)
    signer = signer_of(load_settings(webhook_secret=SECRET))
    running = RunningNotifier(Notifier(known, signer, client, "the broker", outbox, store, None, counts), counts)
    try:
        yield running
    finally:
        running.end()
        client.close()


def end_job(ledger: Ledger, key: str = "", **fields: Any) -> JobOutcome:
    """Enqueue a job and let it end at once. ``key`` names its recording."""
    job = a_job(key=key or f"{uuid.uuid4()}.wav")
    outcome = replace(succeeded(job), **fields)
    ledger.open(job)
    assert ledger.close(job, outcome)
    return outcome


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that happens within a second on a quiet machine."""
    wait_until(condition, 20, what)
