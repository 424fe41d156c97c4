"""Paused queues: workers take no message from them. The broker remembers them, so that a restart of workers ends none.

A queue is paused together with the model queues of its device. Jobs can be enqueued into it, and wait.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.broker import broker_errors, server_time
from tussis.shared.queues import PAUSED_KEY, QUEUES, device_queue


@dataclass(frozen=True)
class Pause:
    """A paused queue. ``since`` is in seconds since the epoch, by the clock of the broker."""

    queue: str
    since: float | None
    by: str


class Pauses:
    """The paused queues, over one Redis client.

    Every method raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where

    def pause(self, queues: Iterable[str], by: str) -> list[str]:
        """Pause queues. Returns those that were not paused. The others keep their time."""
        with broker_errors(self._where):
            text = json.dumps({"since": server_time(self._client), "by": by})
            return [queue for queue in queues if self._client.hsetnx(PAUSED_KEY, queue, text)]

    def resume(self, queues: Iterable[str]) -> list[str]:
        """Resume queues. Returns those that were paused."""
        with broker_errors(self._where):
            return [queue for queue in queues if self._client.hdel(PAUSED_KEY, queue)]

    def read(self) -> list[Pause]:
        """The paused queues, in the order of :data:`~tussis.shared.queues.QUEUES`."""
        with broker_errors(self._where):
            found: Any = self._client.hgetall(PAUSED_KEY)
        texts = {_text(queue): text for queue, text in found.items()}
        return [_pause(queue, texts[queue]) for queue in QUEUES if queue in texts]


def is_paused(queue: str, paused: Collection[str]) -> bool:
    """Whether a queue or model queue is paused, if the queues ``paused`` are."""
    return device_queue(queue) in paused


def _pause(queue: str, text: str | bytes) -> Pause:
    """An entry that another program wrote pauses its queue all the same."""
    try:
        raw = json.loads(text)
        return Pause(queue, float(raw["since"]), str(raw["by"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Pause(queue, None, "")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
