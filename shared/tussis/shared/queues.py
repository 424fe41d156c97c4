"""Names on the broker: queues, priorities and all keys of Tussis. They are documented in ``docs/wire-format.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

TASK_NAME = "tussis.analyze"
#: 0 is the highest. Every priority has its own list (Celery's ``priority_steps``).
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5
#: Separates the queue's name and the priority in the name of a list.
PRIORITY_SEPARATOR = ":"
#: Separates the device's queue and the model in the name of a model queue. No model has it in its name.
MODEL_SEPARATOR = "@"
#: ``name`` or ``name@version`` of a model. These characters need no escaping in a key of the broker or in JSON.
MODEL = re.compile(r"[A-Za-z0-9._-]{1,100}(@[A-Za-z0-9._+-]{1,100})?")

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
MODELS_KEY = "tussis.models"
"""Hash: model (``name@version`` and ``name``) -> time of the last report of a worker that serves it, seconds since the
epoch by the broker's clock."""
MODEL_QUEUES_KEY = "tussis.model_queues"
"""Sorted set: model queue -> time of its first message, seconds since the epoch by the broker's clock. It has every
model queue whose lists may hold messages."""
UNSERVED_KEY = "tussis.unserved"
"""Hash: job id -> the model that the job names. No worker had served the model for a long time when the message was
returned to the queue of its device. The job fails unless a worker serves the model again."""
PAUSED_KEY = "tussis.paused"
"""Hash: paused queue -> since when, by whom (JSON). Workers take no message from it or from the model queues of its
device."""

OUTCOMES_KEY = "tussis.outcomes"
"""Stream of the outcomes of jobs, the newest ones. Field ``outcome``: JSON. The second part of an entry's id counts the
outcomes of the deployment from 1, so that a reader notices what the stream no longer holds."""
OUTCOMES_COUNT_KEY = "tussis.outcomes_count"
"""Number of all outcomes so far: the count of the newest entry of the stream."""
OUTCOME_PREFIX = "tussis.outcome:"
"""Prefix of the key of a job's newest outcome (JSON), which expires."""

BATCHES_KEY = "tussis.batches"
"""Sorted set of the batches: name -> time at which it was made or done, seconds since the epoch by the broker's
clock."""
BATCH_PREFIX = "tussis.batch:"
"""Prefix of the hash of a batch: its counters and times."""
BATCH_OF_KEY = "tussis.batch_of"
"""Hash: job id -> names of the batches of an open job, with a space between them."""
BATCHES_TO_TELL_KEY = "tussis.batches_to_tell"
"""Sorted set of the batches that were closed after their last job had ended: name -> time. The leader tells that
they are done."""

IDEMPOTENCY_PREFIX = "tussis.idempotency:"
"""Prefix of the hash of a request to the gateway with an Idempotency-Key: its answer."""
NOTIFY_PREFIX = "tussis.notify:"
"""Prefix of the keys of a notifier: the webhooks that wait, and those that were given up."""

# Not Celery's default names, which are global to the Redis database: a worker of another application would restore the
# messages of Tussis.
UNACKED_KEY = "tussis.unacked"
UNACKED_INDEX_KEY = "tussis.unacked_index"


class Device(StrEnum):
    """The kind of worker that a job requests."""

    ANY = "any"
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class ServedModel:
    """The model that a worker serves."""

    name: str
    version: str

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.name}{MODEL_SEPARATOR}{self.version}"

    @property
    def texts(self) -> tuple[str, str]:
        """The texts with which a job can name this model: ``name@version`` and ``name``."""
        return (self.label, self.name)


def batch_key(name: str) -> str:
    """The key of a batch's hash."""
    return BATCH_PREFIX + name


# Cached, because these functions are called several times for every job. Bounded, because a job can name any model.
@lru_cache(maxsize=1024)
def queue_name(device: Device, model: str | None = None) -> str:
    """The queue of a device: ``tussis.any``, ``tussis.cpu``, ``tussis.gpu``.

    With ``model`` (``name`` or ``name@version``) it is the model queue: ``tussis.any@cough@3``. Raises ValueError for
    another text.
    """
    queue = f"tussis.{device.value}"
    if model is None:
        return queue
    if MODEL.fullmatch(model) is None:
        raise ValueError(f"not the name of a model: {model!r}")
    return queue + MODEL_SEPARATOR + model


QUEUES = tuple(queue_name(device) for device in Device)
"""The queues to which jobs are sent. Only workers send messages to model queues."""


def model_of(queue: str) -> str | None:
    """The model in the name of a model queue; None for other queues."""
    return queue.partition(MODEL_SEPARATOR)[2] or None


def device_queue(queue: str) -> str:
    """The queue of the same device without a model."""
    return queue.partition(MODEL_SEPARATOR)[0]


def is_queue(text: str) -> bool:
    """Whether a text is the name of a queue, with or without a model."""
    queue, separator, model = text.partition(MODEL_SEPARATOR)
    return queue in QUEUES and (not separator or MODEL.fullmatch(model) is not None)


@lru_cache(maxsize=4096)
def list_key(queue: str, priority: int) -> str:
    """The Redis list that holds a queue's messages of one priority: ``tussis.any``, ``tussis.any:1`` ...

    ``Channel._q_for_pri`` of kombu returns the same name with ``sep=":"``. A test compares the two.
    """
    return f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue


@lru_cache(maxsize=4096)
def sent_key(queue: str, priority: int) -> str:
    """The sorted set that belongs to the list of :func:`list_key`."""
    return SENT_PREFIX + list_key(queue, priority)


def list_of(key: str) -> tuple[str, int] | None:
    """The queue and the priority of a list, from its key; None for another key."""
    queue, separator, priority = key.partition(PRIORITY_SEPARATOR)
    if not is_queue(queue) or (separator and priority not in _PRIORITY_TEXTS):
        return None
    return queue, int(priority or 0)


_PRIORITY_TEXTS = frozenset(str(priority) for priority in PRIORITIES if priority)


def worker_queues(device: Device, model: ServedModel | None = None) -> tuple[str, ...]:
    """The queues of a worker on ``device``: first its own, then ``tussis.any``.

    With ``model`` its model queues come before them.
    """
    if device is Device.ANY:
        raise ValueError("a worker runs on cpu or gpu")
    texts: tuple[str | None, ...] = (None,) if model is None else (*model.texts, None)
    return tuple(queue_name(one, text) for text in texts for one in (device, Device.ANY))


def outcome_key(job_id: str) -> str:
    """The key of a job's newest outcome."""
    return OUTCOME_PREFIX + job_id


def idempotency_key(digest: str) -> str:
    """The key under which the gateway keeps a request with an Idempotency-Key."""
    return IDEMPOTENCY_PREFIX + digest
