"""Sends again what is open and nowhere: one worker at a time does it, for all."""

from __future__ import annotations

import time

import redis

from tussis.shared.ledger import Ledger, Seen
from tussis.shared.ledger_scripts import WORKERS_OWN
from tussis.worker import logs

_log = logs.get("reconciler")

#: Who reconciles at the moment.
LEADER_KEY = "tussis.reconciler"
#: Seconds after which another worker takes over from one that went silent.
LEASE_S = 15
#: Seconds between two looks.
INTERVAL_S = 5.0
#: The most lost messages that one look remembers for the next one.
LOOK = 50_000
#: Messages sent in one step, during which the broker does nothing else.
BATCH = 500
#: Seconds that one look spends sending; what is left waits for the next one. The keeper's beats wait as long.
BUDGET_S = 2.0

# KEYS leader; ARGV own name, lease in ms. 1 when the caller leads.
_LEAD = f"""{WORKERS_OWN}\
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class Reconciler:
    """One worker's candidate for reconciling. Not thread-safe: one thread calls :meth:`look`."""

    def __init__(self, client: redis.Redis, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._lead = client.register_script(_LEAD)
        self._seen: dict[bytes, Seen] = {}

    def look(self) -> int:
        """Publish what is due, and what two looks in a row found lost. Returns how many messages were sent.

        Raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
        """
        if not self._lead(keys=[LEADER_KEY], args=[self._name, LEASE_S * 1000]):
            self._seen = {}
            return 0
        ends = time.monotonic() + BUDGET_S
        due = more = self._ledger.resend_due(BATCH)
        while more and time.monotonic() < ends:
            due += (more := self._ledger.resend_due(BATCH))
        seen = self._ledger.suspects(LOOK)
        lost = [job_id for job_id, place in seen.items() if self._seen.get(job_id) == place]
        self._seen = seen
        sent = 0
        for first in range(0, len(lost), BATCH):
            sent += self._ledger.resend({job_id: seen.pop(job_id) for job_id in lost[first : first + BATCH]})
            if time.monotonic() > ends:
                break
        if sent:
            _log.warning("lost_messages_sent_again", messages=sent)
        return due + sent
