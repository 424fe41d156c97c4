"""The model queues: which models are served, and the messages of models that no worker serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.broker import broker_errors, server_time
from tussis.shared.broker_functions import function
from tussis.shared.depth import read_model_queues
from tussis.shared.queues import (
    LEDGER_KEY,
    MODEL_QUEUES_KEY,
    MODEL_SEPARATOR,
    MODELS_KEY,
    PRIORITIES,
    UNSERVED_KEY,
    device_queue,
    list_key,
    model_of,
    sent_key,
)


@dataclass(frozen=True)
class ModelList:
    """A list of a model queue that holds messages."""

    queue: str
    priority: int
    oldest: float | None
    """Push time of the job that was sent to the list first, seconds of the broker's clock. None: no job has one."""

    @property
    def model(self) -> str:
        """``name`` or ``name@version``."""
        return model_of(self.queue) or ""


@dataclass(frozen=True)
class ModelQueueState:
    """The model queues at one moment."""

    now: float
    """The time of the broker's clock."""
    waiting: tuple[ModelList, ...]
    """The lists that hold messages."""
    empty: tuple[str, ...]
    """The queues without messages."""


def served_ago_s(model: str, last_served: Mapping[str, float]) -> float | None:
    """Seconds since a worker last served ``model``; None if ``last_served`` does not have it.

    ``last_served`` has the seconds by ``name@version``. ``model`` without a version is served with any of its versions.
    """
    found = [ago for one, ago in last_served.items() if model in (one, one.partition(MODEL_SEPARATOR)[0])]
    return min(found, default=None)


class ModelQueues:
    """The model queues, over one Redis client.

    Every method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where
        self._return = function(client, "tussis_return")
        self._forget = function(client, "tussis_forget_queue")

    def last_served(self) -> dict[str, float]:
        """Model (``name@version``) -> seconds since a worker reported that it serves the model."""
        with broker_errors(self._where):
            now = server_time(self._client)
            reports: Any = self._client.hgetall(MODELS_KEY)
        return {model.decode(): max(0.0, now - float(time)) for model, time in reports.items()}

    def state(self) -> ModelQueueState:
        """The current state. The cost grows with the number of model queues, not with that of messages."""
        with broker_errors(self._where):
            queues = read_model_queues(self._client)
            lists = [(queue, priority) for queue in queues for priority in PRIORITIES]
            if not lists:
                return ModelQueueState(0.0, (), ())
            pipe = self._client.pipeline(transaction=True)
            for queue, priority in lists:
                pipe.llen(list_key(queue, priority))
                pipe.zrange(sent_key(queue, priority), 0, 0, withscores=True)
            pipe.time()
            *reply, (seconds, microseconds) = pipe.execute()
        waiting = tuple(
            ModelList(queue, priority, float(first[0][1]) if first else None)
            for (queue, priority), length, first in zip(lists, reply[::2], reply[1::2], strict=True)
            if length
        )
        full = {found.queue for found in waiting}
        return ModelQueueState(seconds + microseconds / 1e6, waiting, tuple(q for q in queues if q not in full))

    def return_unserved(self, found: ModelList, sent_before: float, limit: int) -> int:
        """Return messages that were pushed before a time to the queue of their device, where their jobs fail.

        Messages of jobs that name no model stay. Looks at the first ``limit`` messages of the list, in one step.
        Returns the number of messages. Call it only for a model that no worker serves.
        """
        return self._returned(found, repr(float(sent_before)), limit)

    def return_unnamed(self, found: ModelList, limit: int) -> int:
        """Return the messages of jobs that name no model to the queue of their device: another model answers them.

        Looks at the first ``limit`` messages of the list, in one step. Returns the number of messages.
        """
        return self._returned(found, "", limit)

    def forget(self, queue: str) -> bool:
        """Remove an empty model queue from the list of model queues. False if it is not empty."""
        keys = [MODEL_QUEUES_KEY]
        keys += [key(queue, priority) for priority in PRIORITIES for key in (list_key, sent_key)]
        with broker_errors(self._where):
            return bool(self._forget(keys=keys, args=[queue]))

    def _returned(self, found: ModelList, sent_before: str, limit: int) -> int:
        base = device_queue(found.queue)
        keys = [
            LEDGER_KEY,
            list_key(found.queue, found.priority),
            sent_key(found.queue, found.priority),
            list_key(base, found.priority),
            sent_key(base, found.priority),
            UNSERVED_KEY,
        ]
        with broker_errors(self._where):
            return int(self._return(keys=keys, args=[limit, found.model, sent_before]))
