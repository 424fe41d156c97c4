"""The number of messages in the broker, by queue and priority."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.queues import (
    DEFERRED_KEY,
    MODEL_QUEUES_KEY,
    OPEN_KEY,
    PRIORITIES,
    QUEUES,
    UNACKED_KEY,
    list_key,
)


@dataclass(frozen=True)
class Depth:
    """The number of messages in the broker at one moment."""

    waiting: dict[str, dict[int, int]]
    """Queue or model queue -> priority -> messages in the list. Priorities without messages are left out."""
    in_flight: int
    """Delivered and not yet acknowledged."""
    open: int
    """Jobs in the ledger."""
    deferred: int
    """Jobs in the ledger that wait for the time of their next attempt."""
    oldest_open_s: float | None
    """Age of the oldest open job in seconds; None when no job is open."""

    @property
    def total_waiting(self) -> int:
        return sum(sum(steps.values()) for steps in self.waiting.values())


def read_model_queues(client: redis.Redis) -> tuple[str, ...]:
    """The names of the model queues whose lists may hold messages, sorted. Raises redis-py's errors."""
    members: Any = client.zrange(MODEL_QUEUES_KEY, 0, -1)
    return tuple(sorted(member.decode() for member in members))


def read_depth(client: redis.Redis) -> Depth:
    """Count the messages that wait, are in flight and are open. Raises redis-py's errors.

    The cost does not grow with the backlog.
    """
    queues = (*QUEUES, *read_model_queues(client))
    lists = [(queue, priority) for queue in queues for priority in PRIORITIES]
    pipe = client.pipeline(transaction=True)
    for queue, priority in lists:
        pipe.llen(list_key(queue, priority))
    pipe.hlen(UNACKED_KEY)
    pipe.zcard(OPEN_KEY)
    pipe.zcard(DEFERRED_KEY)
    pipe.zrange(OPEN_KEY, 0, 0, withscores=True)
    pipe.time()
    *lengths, in_flight, opened, deferred, oldest, (seconds, microseconds) = pipe.execute()
    waiting: dict[str, dict[int, int]] = {queue: {} for queue in queues}
    for (queue, priority), length in zip(lists, lengths, strict=True):
        if length:
            waiting[queue][priority] = length
    age = max(0.0, seconds + microseconds / 1e6 - oldest[0][1]) if oldest else None
    return Depth(waiting, in_flight, opened, deferred, age)
