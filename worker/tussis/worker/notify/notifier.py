"""The notifier: reads outcomes, keeps them in the outbox, and delivers them, until it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import redis

from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    SettingsInvalid,
    TransientError,
    TussisError,
    WebhookEndpointGone,
)
from tussis.shared.ledger import Ledger
from tussis.shared.outcome_group import OutcomeGroup
from tussis.worker import logs
from tussis.worker.notify.addresses import AddressPolicy, Resolver
from tussis.worker.notify.counts import DeliveryCounts
from tussis.worker.notify.deliveries import GONE, Deliveries, gone_text
from tussis.worker.notify.endpoint import Endpoint
from tussis.worker.notify.intake import GAP, REPLAY, WANTED, Intake, ReplaySpan, log_gap, parse_span
from tussis.worker.notify.lanes import Lanes, WaitingWebhook
from tussis.worker.notify.lease import Lease
from tussis.worker.notify.outbox import LeaseLost, Outbox
from tussis.worker.notify.refill import Refill
from tussis.worker.notify.sender import Sender, TimeLimits
from tussis.worker.notify.signing import Signer
from tussis.worker.notify.webhook import Webhook

if TYPE_CHECKING:
    import ssl

    from tussis.shared.store.repository import Store

_log = logs.get("notify")

#: Prefix of the group of readers of a notifier, before its name.
GROUP_PREFIX: Final = "notify:"
#: The largest number of webhooks that wait. While so many wait, the notifier reads no outcomes.
MAX_WAITING: Final = 10_000
#: Fields of the state: whether the notifier can read the database; scheme, host and port of the receiver, and the
#: fingerprint of its URL.
DATABASE: Final = "database"
ENDPOINT: Final = "endpoint"
URL: Final = "url"
#: Seconds between two looks at what operators want.
_LOOK_S: Final = 3.0
#: Seconds after which a notifier without the lease, or without its broker or database, tries again.
_RETRY_S: Final = 3.0
#: Seconds that a read waits for an outcome. SIGTERM waits as long.
_READ_S: Final = 1.0
#: Webhooks to deliver again that are taken at one look.
_AGAIN: Final = 100


@dataclass(frozen=True, kw_only=True)
class NotifyOptions:
    """How a notifier works. ``name`` names its position and its outbox on the broker."""

    name: str
    endpoint: Endpoint
    policy: AddressPolicy
    limits: TimeLimits
    connections: int
    """The largest number of requests at the same time."""
    max_waiting: int = MAX_WAITING


class Notifier:
    """One notifier. :meth:`run` works until :meth:`stop`; ``store`` None: gaps are not filled."""

    def __init__(
        self,
        options: NotifyOptions,
        signer: Signer,
        client: redis.Redis,
        where: str,
        outbox: Outbox,
        store: Store | None,
        tls: ssl.SSLContext | None,
        counts: DeliveryCounts,
    ) -> None:
        self._options = options
        self._signer = signer
        self._client = client
        self._where = where
        self._outbox = outbox
        self._store = store
        self._tls = tls
        self._counts = counts
        self._resolver = Resolver(options.endpoint.host, options.endpoint.port)
        self._lease = Lease(outbox)
        self._stopping = threading.Event()
        self._told: str | None = None

    @property
    def is_working(self) -> bool:
        """Whether this process holds the lease."""
        return self._lease.held

    def stop(self) -> None:
        """Let :meth:`run` end. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Work. Waits while the broker is away or another notifier of the name works.

        Raises :class:`WebhookEndpointGone`, :class:`SettingsInvalid` if the other notifier has another URL, and
        :class:`BrokerRefused` for a refusal at the first contact.
        """
        contact = False
        while not self._stopping.is_set():
            try:
                state = self._outbox.state()
                if state.get(GONE) == self._options.endpoint.fingerprint:
                    raise WebhookEndpointGone(gone_text(self._options.endpoint.where))
                holder = self._lease.take()
                contact = True
                if holder is None:
                    self._say_ready()
                    self._work()
                    continue
                if state.get(URL) != self._options.endpoint.fingerprint:
                    raise SettingsInvalid(
                        f"another notifier with the name {self._options.name} ({holder}) delivers to another URL: "
                        "give this one its own --name"
                    )
                if self._is_new("waits"):
                    _log.info("notifier_waits", name=self._options.name, holder=holder)
            except LeaseLost:
                continue
            except TransientError as error:
                if isinstance(error, BrokerRefused) and not contact:
                    raise
                self._say_holding(error)
            self._stopping.wait(_RETRY_S)
        _log.info("notifier_stopped", name=self._options.name)

    def _is_new(self, state: str) -> bool:
        """Whether the notifier now does something else than before: each change is logged once."""
        before, self._told = self._told, state
        if before == "holding" != state:
            _log.info("holding_over")
        return state != before

    def _say_ready(self) -> None:
        if self._is_new("ready"):
            _log.info("notifier_ready", name=self._options.name, endpoint=self._options.endpoint.where)

    def _say_holding(self, error: TransientError) -> None:
        if self._is_new("holding"):
            _log.warning("holding", error_class=error.error_class, reason=str(error))

    def _work(self) -> None:
        """Read and deliver with the lease, until :meth:`stop`. Raises :class:`LeaseLost`, the errors of the broker, and
        :class:`WebhookEndpointGone`."""
        options = self._options
        lanes = Lanes(retries=max(1, options.connections // 2))
        deliveries = Deliveries(
            self._outbox,
            lanes,
            self._signer,
            lambda: Sender(options.endpoint, self._resolver, options.policy, options.limits, self._tls),
            self._counts,
            lambda: self._lease.held,
            options.endpoint,
        )
        try:
            shift = Shift(self._outbox, lanes)
            group = OutcomeGroup(self._client, self._where, GROUP_PREFIX + options.name, "notifier", idle_s=_READ_S)
            intake = Intake(group, shift.accept, self._outbox.state(), hold_gaps=self._store is not None)
            if intake.gap is not None:
                log_gap(intake.gap, filled=self._store is not None)
            database = "" if self._store is None else "yes"
            self._outbox.set_state(
                **{DATABASE: database, ENDPOINT: options.endpoint.where, URL: options.endpoint.fingerprint}
            )
            deliveries.start(options.connections)
            self._read(intake, shift, lanes, deliveries)
            intake.close()
        finally:
            deliveries.stop(options.limits.connect_s + options.limits.answer_s + 1)
            self._lease.release()
        if isinstance(deliveries.error, WebhookEndpointGone):
            raise deliveries.error

    def _read(self, intake: Intake, shift: Shift, lanes: Lanes, deliveries: Deliveries) -> None:
        """The loop of the main thread."""
        refill = None if self._store is None else Refill(self._store, self._which_open, shift.accept)
        look_at = hindered_until = 0.0
        replay: ReplaySpan | None = None
        while not self._stopping.is_set():
            if deliveries.error is not None:
                raise deliveries.error
            if lanes.closed or not self._lease.held:
                raise LeaseLost
            if not lanes.wait_for_room(self._options.max_waiting, _READ_S):
                continue
            now = time.monotonic()
            try:
                if now >= look_at:
                    look_at = now + _LOOK_S
                    shift.deliver_again()
                    replay = self._wanted(shift)
                if refill is not None and now >= hindered_until:
                    if intake.gap is not None:
                        self._fill_gap(intake, refill)
                        continue
                    # Half of the room is left to new outcomes.
                    if replay is not None and len(lanes) < self._options.max_waiting / 2:
                        replay = refill.step(REPLAY, replay)
                if intake.gap is not None and refill is not None:
                    self._stopping.wait(_READ_S)  # older outcomes of a recording come before newer ones
                    continue
                intake.read()
                self._say_ready()
            except BrokerUnavailable:
                raise
            except BrokerRefused as error:  # it is full: what waits is delivered meanwhile
                self._say_holding(error)
                self._stopping.wait(_RETRY_S)
            except TussisError as error:
                _log.warning("refill_hindered", error_class=error.error_class, reason=str(error))
                hindered_until = now + _RETRY_S

    def _wanted(self, shift: Shift) -> ReplaySpan | None:
        """The span to replay, with what operators want since the last look."""
        state = self._outbox.state()
        replay = parse_span(state.get(REPLAY))
        for field, text in state.items():
            wanted = parse_span(text) if field.startswith(WANTED) else None
            if wanted is not None:
                replay = wanted if replay is None else replay.and_also(wanted)
                shift.accept([], {REPLAY: replay.to_json(), field: ""})
        return replay

    def _fill_gap(self, intake: Intake, refill: Refill) -> None:
        """Move the next page of the gap."""
        assert intake.gap is not None
        intake.gap = refill.step(GAP, intake.gap)
        if intake.gap is None:
            _log.info("gap_filled")

    def _which_open(self, job_ids: Sequence[str]) -> set[str]:
        return Ledger(self._client, self._where).which_open(job_ids)


class Shift:
    """The webhooks of the outbox, from the taking of the lease on: what enters the outbox enters the lanes."""

    def __init__(self, outbox: Outbox, lanes: Lanes) -> None:
        self._outbox = outbox
        self._lanes = lanes
        kept = sorted(((webhook.number, _waiting(webhook)) for webhook in outbox.load()), key=lambda pair: pair[0])
        for _, waiting in kept:
            lanes.add(waiting)
        self._next = kept[-1][0] + 1 if kept else 1

    def accept(self, webhooks: Sequence[Webhook], state: Mapping[str, str], taken: int = 0) -> None:
        """Put webhooks into the outbox, as :meth:`Outbox.add`, and deliver them after those of their recordings."""
        numbered = [replace(webhook, number=self._next + index) for index, webhook in enumerate(webhooks)]
        self._outbox.add(numbered, state, taken)
        self._next += len(numbered)
        for webhook in numbered:
            self._lanes.add(_waiting(webhook))

    def deliver_again(self) -> None:
        """Take webhooks that an operator wants to be delivered again."""
        found = self._outbox.to_deliver_again(_AGAIN)
        if found:
            self.accept(found, {}, taken=len(found))


def _waiting(webhook: Webhook) -> WaitingWebhook:
    return WaitingWebhook(webhook.webhook_id, webhook.recording, webhook.attempts, webhook.due_at)
