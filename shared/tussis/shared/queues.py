"""Names on the broker: queues, priorities and every key that is ours. Documented in ``docs/wire-format.md``."""

from __future__ import annotations

from enum import StrEnum
from functools import cache

TASK_NAME = "tussis.analyze"
#: 0 is the highest. Every step has its own list (Celery's ``priority_steps``).
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5
#: Between a queue's name and the priority, in the name of a list.
PRIORITY_SEPARATOR = ":"

LEDGER_KEY = "tussis.ledger"
"""Hash: job id -> the whole message. What is open is here, whatever happens to the queues."""
OPEN_KEY = "tussis.open"
"""Sorted set: job id -> when it was enqueued, seconds since the epoch. The oldest open job is its first member."""
DEFERRED_KEY = "tussis.deferred"
"""Sorted set: job id -> when it is due, seconds since the epoch by the broker's clock. Jobs that wait for their next
attempt."""
FAULTS_KEY = "tussis.faults"
"""Hash: job id -> how many attempts ended in a transient fault since it was enqueued."""
SENT_PREFIX = "tussis.sent:"
"""Before a list's name, a sorted set: job id -> when its message was last pushed, seconds of the broker's own clock.

A list is first in, first out: what was pushed before the message that is next in line, and is not in flight, is lost.
"""
WORKERS_KEY = "tussis.workers"
"""Hash: worker name -> what it last said of itself (JSON)."""

# Celery's own names are global to the Redis database: another application's worker there would restore our messages.
UNACKED_KEY = "tussis.unacked"
UNACKED_INDEX_KEY = "tussis.unacked_index"


class Device(StrEnum):
    """Which kind of worker a job wants."""

    ANY = "any"
    CPU = "cpu"
    GPU = "gpu"


# Asked several times of every job that is enqueued, out of a handful of answers.
@cache
def queue_name(device: Device) -> str:
    """The queue of a device: ``tussis.any``, ``tussis.cpu``, ``tussis.gpu``."""
    return f"tussis.{device.value}"


QUEUES = tuple(queue_name(device) for device in Device)


@cache
def list_key(queue: str, priority: int) -> str:
    """The Redis list that holds a queue's messages of one priority: ``tussis.any``, ``tussis.any:1`` ...

    The same name as kombu's ``Channel._q_for_pri`` gives with ``sep=":"``; a test holds the two together.
    """
    return f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue


@cache
def sent_key(queue: str, priority: int) -> str:
    """The sorted set beside :func:`list_key`'s list."""
    return SENT_PREFIX + list_key(queue, priority)


def worker_queues(device: Device) -> tuple[str, ...]:
    """What a worker on ``device`` takes from: its own queue, then ``tussis.any``."""
    if device is Device.ANY:
        raise ValueError("a worker runs on cpu or gpu")
    return (queue_name(device), queue_name(Device.ANY))
