"""The webhooks on the broker: those that wait, those that were given up, and how far the outcomes were read.

The broker keeps them, because it keeps the open jobs too (append-only file), and every host of the deployment reaches
it. One notifier of a name works at a time: it holds a lease, and the broker checks the lease in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import redis

from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import function
from tussis.shared.outbox_scripts import WEBHOOK_FIELD
from tussis.shared.queues import NOTIFY_PREFIX
from tussis.worker.notify.webhook import Webhook, parse_webhook

#: Seconds after which another notifier takes over from one that stopped.
LEASE_S: Final = 15
#: The largest number of webhooks that were given up. The oldest leave.
UNDELIVERED_KEPT: Final = 10_000
_NO_CHANGE: Final[Mapping[str, str]] = MappingProxyType({})


class LeaseLost(Exception):
    """Another notifier of the same name works now."""


@dataclass(frozen=True)
class Undelivered:
    """A webhook that was given up."""

    entry_id: str
    webhook: Webhook


class Outbox:
    """What the broker holds for one name of a notifier. Thread-safe.

    Methods raise :class:`BrokerUnavailable` and :class:`BrokerRefused`. ``token`` identifies the process.
    """

    def __init__(self, client: redis.Redis, where: str, name: str, token: str = "") -> None:
        self._client: Any = client
        self._where = where
        self._token = token
        prefix = NOTIFY_PREFIX + name
        self._lease, self._outbox, self._undelivered = f"{prefix}:lease", f"{prefix}:outbox", f"{prefix}:undelivered"
        self._state, self._again = f"{prefix}:state", f"{prefix}:again"
        self._lead = function(client, "tussis_notify_lead")
        self._add = function(client, "tussis_notify_add")
        self._update = function(client, "tussis_notify_update")
        self._give_up = function(client, "tussis_notify_give_up")
        self._redeliver = function(client, "tussis_notify_redeliver")
        self._set_state = function(client, "tussis_notify_set_state")

    # --- the notifier ---

    def lead(self) -> str | None:
        """Take or renew the lease. Returns None, or the token of the notifier that holds it."""
        with broker_errors(self._where):
            holder: bytes | str = self._lead(keys=[self._lease], args=[self._token, LEASE_S * 1000])
        return _text(holder) or None

    def resign(self) -> None:
        """Give the lease back, so that the next notifier starts at once."""
        with broker_errors(self._where):
            if self._client.get(self._lease) == self._token.encode():
                self._client.delete(self._lease)

    def load(self) -> Iterator[Webhook]:
        """The webhooks that wait, in no order."""
        with broker_errors(self._where):
            for _, text in self._client.hscan_iter(self._outbox, count=200):
                yield parse_webhook(text)

    def add(self, webhooks: Sequence[Webhook], state: Mapping[str, str] = _NO_CHANGE, taken: int = 0) -> None:
        """Add webhooks that do not wait yet, and set fields of the state, in one step. An empty value removes a field.

        ``taken``: remove so many from the list of :meth:`to_deliver_again`. Raises :class:`LeaseLost`.
        """
        fields = [text for pair in state.items() for text in pair]
        pairs = [text for webhook in webhooks for text in (webhook.webhook_id, webhook.to_json())]
        with broker_errors(self._where):
            added = self._add(
                keys=[self._lease, self._outbox, self._state, self._again],
                args=[self._token, taken, len(state), *fields, *pairs],
            )
        if added == -1:
            raise LeaseLost

    def get(self, webhook_id: str) -> Webhook | None:
        """A webhook that waits."""
        with broker_errors(self._where):
            text = self._client.hget(self._outbox, webhook_id)
        return None if text is None else parse_webhook(text)

    def update(self, webhook: Webhook) -> None:
        """Store a failed attempt."""
        with broker_errors(self._where):
            self._update(keys=[self._lease, self._outbox], args=[self._token, webhook.webhook_id, webhook.to_json()])

    def delivered(self, webhook_id: str) -> None:
        """Remove a webhook that the receiver has accepted."""
        with broker_errors(self._where):
            self._client.hdel(self._outbox, webhook_id)

    def give_up(self, webhook: Webhook) -> int:
        """Move a webhook to the undelivered ones. Returns the number of older ones that left."""
        with broker_errors(self._where):
            left: int = self._give_up(
                keys=[self._outbox, self._undelivered],
                args=[webhook.webhook_id, webhook.to_json(), UNDELIVERED_KEPT],
            )
        return left

    def to_deliver_again(self, limit: int) -> list[Webhook]:
        """The first webhooks that an operator wants to be delivered again."""
        with broker_errors(self._where):
            found = self._client.lrange(self._again, 0, limit - 1)
        return [parse_webhook(text) for text in found]

    # --- the state: named texts ---

    def state(self) -> dict[str, str]:
        """All fields of the state."""
        with broker_errors(self._where):
            found = self._client.hgetall(self._state)
        return {_text(field): _text(value) for field, value in found.items()}

    def set_state(self, **fields: str) -> None:
        """Set fields, also on a full broker. An empty value removes a field."""
        with broker_errors(self._where):
            self._set_state(keys=[self._state], args=[text for pair in fields.items() for text in pair])

    # --- the operator ---

    def counts(self) -> tuple[int, int]:
        """The number of webhooks that wait, also to be delivered again, and of those that were given up."""
        with broker_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            waiting, again, undelivered = pipe.hlen(self._outbox).llen(self._again).xlen(self._undelivered).execute()
        return waiting + again, undelivered

    def holder(self) -> str | None:
        """The token of the notifier that works."""
        with broker_errors(self._where):
            found = self._client.get(self._lease)
        return None if found is None else _text(found)

    def undelivered(self, page: int = 500) -> Iterator[Undelivered]:
        """The webhooks that were given up, the oldest first."""
        start = "-"
        while True:
            with broker_errors(self._where):
                found = self._client.xrange(self._undelivered, min=start, count=page)
            for entry_id, fields in found:
                yield Undelivered(_text(entry_id), parse_webhook(fields[WEBHOOK_FIELD.encode()]))
            if len(found) < page:
                return
            start = f"({_text(found[-1][0])}"

    def redeliver(self, found: Undelivered, webhook: Webhook) -> bool:
        """Let the notifier deliver it again, as ``webhook``. False if it is gone."""
        with broker_errors(self._where):
            moved: int = self._redeliver(
                keys=[self._undelivered, self._again], args=[found.entry_id, webhook.to_json()]
            )
        return bool(moved)

    def drop(self, found: Undelivered) -> bool:
        """Delete a webhook that was given up. False if it is gone."""
        with broker_errors(self._where):
            return bool(self._client.xdel(self._undelivered, found.entry_id))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
