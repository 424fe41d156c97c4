"""Finds the open jobs of the ledger whose message is lost or due, and sends them again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from tussis.shared.broker import broker_errors, server_time
from tussis.shared.broker_functions import function
from tussis.shared.depth import read_model_queues
from tussis.shared.errors import MalformedMessage
from tussis.shared.ledger import Ledger, decoded, message_under
from tussis.shared.messages import envelope, envelope_around, is_shadow
from tussis.shared.outcomes import DEFAULT_BOUNDS, JobOutcome, OutcomeBounds, OutcomeState
from tussis.shared.queues import (
    BATCHES_TO_TELL_KEY,
    DEFAULT_PRIORITY,
    DEFERRED_KEY,
    LEDGER_KEY,
    OUTCOMES_COUNT_KEY,
    OUTCOMES_KEY,
    PRIORITIES,
    QUEUES,
    UNACKED_KEY,
    list_key,
    sent_key,
)

#: Number of messages that are read from a list's end to find one with a push time. Messages that were pushed without
#: the ledger have none.
_TAIL = 8
#: Number of messages that are read if none of the first ones has a push time.
_LONG_TAIL = 1000


@dataclass(frozen=True)
class Seen:
    """A sorted set that held a job when it was read (a list's sent jobs, or the deferred jobs), and the job's score."""

    key: str
    score: float


@dataclass(frozen=True)
class Horizon:
    """The push times before which no job waits in a list, at one moment. A list is first in, first out."""

    ends: Mapping[str, float]
    """Key of a list's sorted set -> push time. Jobs pushed before it no longer wait in the list. Lists whose sorted set
    is empty, and lists whose time is unknown, are left out."""
    in_flight: frozenset[bytes]
    """The ids of the jobs that are in flight."""


class LedgerRepair:
    """Sends jobs of the ledger again, over one Redis client.

    Every public method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str = "the broker", bounds: OutcomeBounds = DEFAULT_BOUNDS) -> None:
        self._client = client
        self._where = where
        self._ledger = Ledger(client, where, bounds=bounds)
        self._bounds = bounds
        self._resend = function(client, "tussis_resend")
        self._tell_batches = function(client, "tussis_tell_batches")

    def resend_due(self, limit: int = 500) -> int:
        """Send up to ``limit`` deferred jobs that are due by the broker's clock. Returns the number of messages."""
        with broker_errors(self._where):
            due = self._up_to(DEFERRED_KEY, repr(server_time(self._client)), limit)
        return self.resend(due)

    def resend(self, seen: Mapping[bytes, Seen]) -> int:
        """Send those jobs again, in one step, that are open and have the same score as in ``seen``.

        They go to the queue of their device, also if they were in a model queue. A worker routes them again.
        An unreadable message in the ledger is sent as well, so that a worker stores it as a dead letter. It stays in
        the ledger until then if it is JSON and has the id under which the ledger holds it. Otherwise it is removed, and
        the job of that id ends as a failure: its outcome is told, unless it is a job of the shadow model. Returns the
        number of sent messages.
        """
        if not seen:
            return 0
        keys, arguments = [LEDGER_KEY], list[str | bytes]()
        unreadable: dict[bytes, str | bytes] = {}
        with broker_errors(self._where):
            texts = self._client.hmget(LEDGER_KEY, list(seen))
            for (job_id, place), text in zip(seen.items(), texts, strict=True):
                queue, priority = QUEUES[0], DEFAULT_PRIORITY
                entry: str | bytes = text or b""  # Empty: the job has ended, and the script removes it.
                if text is not None:
                    job = message_under(job_id, text)
                    if job is None and (wrapped := _wrapped(job_id, text)) is not None:
                        entry = wrapped
                    elif job is None:
                        unreadable[job_id] = text
                    else:
                        queue, priority = job.queue, job.priority
                        entry = envelope(job, text if isinstance(text, str) else text.decode())
                keys += [sent_key(queue, priority), list_key(queue, priority), place.key]
                arguments += [job_id, entry, repr(place.score)]
            sent = self._resend(keys=keys, args=arguments)
        for name, text in unreadable.items():
            self._ledger.take_out(name, None if is_shadow(decoded(text)) else _unreadable_outcome(name))
        return int(sent)

    def tell_batches(self) -> int:
        """Tell that batches are done which were closed after their last job had ended. Returns their number."""
        with broker_errors(self._where):
            keys = [BATCHES_TO_TELL_KEY, OUTCOMES_KEY, OUTCOMES_COUNT_KEY]
            return int(self._tell_batches(keys=keys, args=[self._bounds.kept]))

    def horizon(self) -> Horizon:
        """The current horizon, of all queues and model queues.

        The cost grows with the number of jobs in flight, not with that of waiting jobs.
        """
        with broker_errors(self._where):
            queues = (*QUEUES, *read_model_queues(self._client))
            lists = [(queue, priority) for queue in queues for priority in PRIORITIES]
            pipe = self._client.pipeline(transaction=True)
            for queue, priority in lists:
                pipe.lrange(list_key(queue, priority), -_TAIL, -1)
                pipe.zrange(sent_key(queue, priority), -1, -1, withscores=True)
            reply = pipe.execute()
            ends: dict[str, float] = {}
            for (queue, priority), tail, last in zip(lists, reply[::2], reply[1::2], strict=True):
                end = self._end(queue, priority, tail, float(last[0][1])) if last else None
                if end is not None:
                    ends[sent_key(queue, priority)] = end
            # Read last. A job popped before is in flight by now, or is no suspect in the next search.
            filed = _entries(self._client.hvals(UNACKED_KEY)) if ends else []
        return Horizon(ends, frozenset(job_id for entry in filed if (job_id := _job_id_of(entry)) is not None))

    def suspects(self, horizon: Horizon, limit: int = 500) -> dict[bytes, Seen]:
        """Jobs that were sent, but are not waiting, in flight or deferred. The search stops once it has ``limit``.

        A job is a suspect for a moment between its pop and its registration as in flight. Act only on a job that was
        also a suspect for a horizon some seconds ago.
        """
        found: dict[bytes, Seen] = {}
        with broker_errors(self._where):
            for key, end in horizon.ends.items():
                if len(found) < limit:
                    # The limit includes jobs in flight, because they were sent first and come first in the set.
                    found |= self._up_to(key, f"({end!r}", limit + len(horizon.in_flight))
                    for job_id in horizon.in_flight:
                        found.pop(job_id, None)
        return found

    def _end(self, queue: str, priority: int, tail: list[bytes], last: float) -> float | None:
        """The push time before which no job waits in a list; None when it is unknown.

        It is the push time of the next message in the list that has one. If no such message waits, it is just after
        ``last``, the highest time in the sorted set. No clock is read.
        """
        key = sent_key(queue, priority)
        earliest, whole = self._earliest(key, tail), len(tail) < _TAIL
        if earliest is None and not whole:
            tail = _entries(self._client.lrange(list_key(queue, priority), -_LONG_TAIL, -1))
            earliest, whole = self._earliest(key, tail), len(tail) < _LONG_TAIL
        return math.nextafter(last, math.inf) if earliest is None and whole else earliest

    def _earliest(self, key: str, tail: list[bytes]) -> float | None:
        ids = [job_id.decode() for entry in tail if (job_id := _job_id_of(entry)) is not None]
        scores = [score for score in self._client.zmscore(key, ids) if score is not None] if ids else []
        return min(scores, default=None)

    def _up_to(self, key: str, end: str, limit: int) -> dict[bytes, Seen]:
        """The first members of a sorted set, up to the score ``end``. A ``(`` before the score excludes it."""
        reply = self._client.zrange(key, "-inf", end, byscore=True, offset=0, num=limit, withscores=True)
        return {member: Seen(key, float(score)) for member, score in _pairs(reply)}


def _unreadable_outcome(job_id: str | bytes) -> JobOutcome:
    return JobOutcome(
        job_id=job_id if isinstance(job_id, str) else job_id.decode("utf-8", "replace"),
        uri=None,
        state=OutcomeState.FAILED,
        finished_at=time.time(),
        error_class=MalformedMessage.error_class,
        error_message="the ledger holds a message under this job id that cannot be read, or that has another id",
    )


def _wrapped(job_id: str | bytes, text: str | bytes) -> str | None:
    """An envelope around an unreadable message that has the id under which the ledger holds it; None for other text."""
    message = decoded(text)
    named = message.get("job_id") if isinstance(message, dict) else None
    key = job_id.decode("utf-8", "replace") if isinstance(job_id, bytes) else job_id
    return envelope_around(message) if named == key else None


# The reply types of redis-py cover all settings of a client. With the settings of Tussis, replies are bytes.
def _entries(reply: object) -> list[bytes]:
    assert isinstance(reply, list)
    return [entry for entry in reply if isinstance(entry, bytes)]


def _pairs(reply: object) -> list[tuple[bytes, float]]:
    assert isinstance(reply, list)
    return [(member, score) for member, score in reply]


def _job_id_of(entry: bytes) -> bytes | None:
    """The job id in the headers of a list entry or of kombu's unacknowledged entry; None if there is none."""
    try:
        message = json.loads(entry)
    except (ValueError, RecursionError):
        return None
    if isinstance(message, list) and message:  # message, exchange, routing key
        message = message[0]
    headers = message.get("headers") if isinstance(message, dict) else None
    job_id = headers.get("id") if isinstance(headers, dict) else None
    # A lone surrogate cannot be encoded in UTF-8. A job id of Tussis has none.
    return job_id.encode("utf-8", "replace") if isinstance(job_id, str) else None
