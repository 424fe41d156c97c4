"""The number of messages in the broker, by queue and priority."""

from __future__ import annotations

from collections.abc import Sequence
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
    sent_key,
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


@dataclass(frozen=True)
class SentJobs:
    """Open jobs whose messages were pushed to a queue. ``oldest``: time of the first push, seconds since the epoch."""

    queue: str
    jobs: int
    oldest: float


def read_sent_jobs(client: redis.Redis, queues: Sequence[str]) -> list[SentJobs]:
    """Those of the queues that have open jobs. Raises redis-py's errors. The cost does not grow with the backlog."""
    keys = [(queue, sent_key(queue, priority)) for queue in queues for priority in PRIORITIES]
    pipe = client.pipeline(transaction=False)
    for _, key in keys:
        pipe.zcard(key)
        pipe.zrange(key, 0, 0, withscores=True)
    replies = pipe.execute()
    found: dict[str, SentJobs] = {}
    for (queue, _), jobs, first in zip(keys, replies[::2], replies[1::2], strict=True):
        if jobs and first:
            so_far = found.get(queue, SentJobs(queue, 0, first[0][1]))
            found[queue] = SentJobs(queue, so_far.jobs + jobs, min(so_far.oldest, first[0][1]))
    return list(found.values())


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
