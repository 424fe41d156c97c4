"""Names on the broker: queues, priorities and all keys of Tussis. They are documented in ``docs/wire-format.md``."""

from __future__ import annotations

from enum import StrEnum
from functools import cache

TASK_NAME = "tussis.analyze"
#: 0 is the highest. Every priority has its own list (Celery's ``priority_steps``).
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5
#: Separates the queue's name and the priority in the name of a list.
PRIORITY_SEPARATOR = ":"

LEDGER_KEY = "tussis.ledger"
"""Hash: job id -> the whole message. It holds every open job, independent of the queues."""
OPEN_KEY = "tussis.open"
"""Sorted set: job id -> time of enqueueing, seconds since the epoch. The oldest open job is its first member."""
DEFERRED_KEY = "tussis.deferred"
"""Sorted set of the deferred jobs: job id -> due time of the next attempt, seconds since the epoch by the broker's
clock."""
FAULTS_KEY = "tussis.faults"
"""Hash: job id -> number of attempts that ended in a transient error since the job was enqueued."""
SENT_PREFIX = "tussis.sent:"
"""Prefix of a list's sorted set: job id -> time of the last push of its message, seconds of the broker's clock.

A list is first in, first out. A message that was pushed before the next message in the list, and is not in flight, is
lost.
"""
WORKERS_KEY = "tussis.workers"
"""Hash: worker name -> its last status report (JSON)."""

OUTCOMES_KEY = "tussis.outcomes"
"""Stream of the outcomes of jobs, the newest ones. Field ``outcome``: JSON. The second part of an entry's id counts the
outcomes of the deployment from 1, so that a reader notices what the stream no longer holds."""
OUTCOMES_COUNT_KEY = "tussis.outcomes_count"
"""Number of all outcomes so far: the count of the newest entry of the stream."""
OUTCOME_PREFIX = "tussis.outcome:"
"""Prefix of the key of a job's newest outcome (JSON), which expires."""

# Not Celery's default names, which are global to the Redis database: a worker of another application would restore the
# messages of Tussis.
UNACKED_KEY = "tussis.unacked"
UNACKED_INDEX_KEY = "tussis.unacked_index"


class Device(StrEnum):
    """The kind of worker that a job requests."""

    ANY = "any"
    CPU = "cpu"
    GPU = "gpu"


# Cached, because it is called several times for every enqueued job.
@cache
def queue_name(device: Device) -> str:
    """The queue of a device: ``tussis.any``, ``tussis.cpu``, ``tussis.gpu``."""
    return f"tussis.{device.value}"


QUEUES = tuple(queue_name(device) for device in Device)


@cache
def list_key(queue: str, priority: int) -> str:
    """The Redis list that holds a queue's messages of one priority: ``tussis.any``, ``tussis.any:1`` ...

    ``Channel._q_for_pri`` of kombu returns the same name with ``sep=":"``. A test compares the two.
    """
    return f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue


@cache
def sent_key(queue: str, priority: int) -> str:
    """The sorted set that belongs to the list of :func:`list_key`."""
    return SENT_PREFIX + list_key(queue, priority)


def worker_queues(device: Device) -> tuple[str, ...]:
    """The queues of a worker on ``device``: first its own, then ``tussis.any``."""
    if device is Device.ANY:
        raise ValueError("a worker runs on cpu or gpu")
    return (queue_name(device), queue_name(Device.ANY))


def outcome_key(job_id: str) -> str:
    """The key of a job's newest outcome."""
    return OUTCOME_PREFIX + job_id
