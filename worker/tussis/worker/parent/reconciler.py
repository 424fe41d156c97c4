"""Sends open jobs again whose message is lost. One worker at a time does it, for all workers."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from tussis.shared.broker_functions import function
from tussis.shared.ledger_repair import Horizon, LedgerRepair
from tussis.worker import logs
from tussis.worker.parent.unserved import UnservedModels

_log = logs.get("reconciler")

#: Key with the name of the worker that reconciles, the leader.
LEADER_KEY = "tussis.reconciler"
#: Seconds after which another worker takes over from a leader that stopped.
LEASE_S = 15
#: Seconds between two calls of :meth:`Reconciler.look`.
INTERVAL_S = 5.0
#: Messages sent in one step. The broker does nothing else during a step.
BATCH = 500
#: Seconds that one look may send. The next look sends the rest. The housekeeper's heartbeats wait meanwhile.
BUDGET_S = 2.0


class Reconciler:
    """The reconciler of one worker. It works only while the worker is the leader. Not thread-safe."""

    def __init__(
        self, client: redis.Redis, repair: LedgerRepair, name: str, models: UnservedModels | None = None
    ) -> None:
        """``models`` checks the model queues at each look. None: they are not checked."""
        self._repair = repair
        self._name = name
        self._models = models
        self._lead = function(client, "tussis_lead")
        self._before: Horizon | None = None
        self.unfinished = False
        """Whether the last look ended with more to send. The next look may then follow at once."""

    def look(self) -> int:
        """Send the deferred jobs that are due and the jobs whose message is lost. Returns the number of messages sent.

        Then check the model queues, and tell the batches that are done.

        A message is lost if it could not be waiting at the previous look, cannot be waiting now, and is not in flight.

        Raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
        """
        self.unfinished = False
        if not self._lead(keys=[LEADER_KEY], args=[self._name, LEASE_S * 1000]):
            self._before = None
            if self._models is not None:
                self._models.stop()
            return 0
        ends = time.monotonic() + BUDGET_S
        before = self._before
        sent = self._send_open_jobs(ends)
        self._repair.tell_batches()
        if self._models is not None and self._models.look(ends):
            self.unfinished = True
            # The next look may follow at once. It must not take a message for lost that was popped a moment ago.
            self._before = before or self._before
        return sent

    def _send_open_jobs(self, ends: float) -> int:
        due = self._send(lambda: self._repair.resend_due(BATCH), ends)
        now, before = self._repair.horizon(), self._before
        self._before = now
        if before is None:
            return due
        times = {key: min(end, before.ends[key]) for key, end in now.ends.items() if key in before.ends}
        twice = Horizon(times, now.in_flight)
        sent = self._send(lambda: self._repair.resend(self._repair.suspects(twice, BATCH)), ends)
        if self.unfinished:
            # The next look continues with the same earlier horizon as this one.
            self._before = before
        if sent:
            _log.warning("lost_messages_sent_again", messages=sent)
        return due + sent

    def _send(self, step: Callable[[], int], ends: float) -> int:
        """Repeat ``step`` until there is nothing more to send or the time is over."""
        sent = 0
        while count := step():
            sent += count
            if time.monotonic() > ends:
                self.unfinished = True
                break
        return sent
