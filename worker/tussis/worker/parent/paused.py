"""The paused queues, as a worker knows them. The housekeeper reads them; the consumer takes no message from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kombu.utils.scheduling import priority_cycle

from tussis.shared.pauses import is_paused


class PausedQueues:
    """Written by the housekeeper's thread, read by the consuming thread."""

    def __init__(self) -> None:
        self._paused: Collection[str] | None = frozenset()

    def await_first(self) -> None:
        """Let no message be taken before :meth:`update`: a worker that starts does not know yet what is paused."""
        self._paused = None

    def update(self, queues: Collection[str]) -> None:
        """Note the queues that are paused now."""
        self._paused = frozenset(queues)

    def open(self, queues: Sequence[str]) -> list[str]:
        """The queues and model queues from which messages may be taken, in their order."""
        paused = self._paused
        return [] if paused is None else [queue for queue in queues if not is_paused(queue, paused)]


#: Of this process, which runs one worker.
PAUSED = PausedQueues()


class OpenQueues(priority_cycle):  # type: ignore[misc]
    """The queues of a channel in their order, without the paused ones.

    While it has none, the channel sends no BRPOP. The event loop asks again after every event, at least once a second.
    A BRPOP that is sent already ends within a second.
    """

    def consume(self, n: int) -> list[Any]:
        """The first ``n`` queues that are not paused."""
        return PAUSED.open(super().consume(n))
