"""The leader's check of the model queues: messages must not wait for ever for a model that no worker serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from tussis.shared.errors import OperatorError, TransientError
from tussis.shared.model_queues import ModelList, ModelQueues, ModelQueueState, served_ago_s
from tussis.shared.queues import MODEL_SEPARATOR, model_of
from tussis.worker import logs

_log = logs.get("reconciler")

#: Seconds since its last report after which a worker is no longer live. It reports every 5 s.
LIVE_S = 15.0
#: Seconds for which the leader must have seen a model as not served. After an outage of the broker, or a change of its
#: clock, all workers have reported by then.
CONFIRM_S = 60.0
#: Messages that one step looks at. The broker does nothing else during a step.
_BATCH = 500


class UnservedModels:
    """Returns messages from the queues of models that no worker serves. Only the leader uses it. Not thread-safe.

    A job that names such a model fails when it has waited for ``wait_s`` seconds and no worker has served the model for
    as long. A job that names no model goes to the active model.
    """

    def __init__(
        self,
        queues: ModelQueues,
        wait_s: float,
        last_served: Callable[[], Mapping[str, float]] | None = None,
        active_model: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``last_served`` has the seconds since a live worker served a model, by ``name@version``. By default it comes
        from the broker. ``active_model`` is the ``name@version`` that answers jobs that name no model. Both are called
        while the leader's heartbeats wait."""
        self._queues = queues
        self._wait_s = wait_s
        self._last_served = last_served or queues.last_served
        self._active_model = active_model
        self._since: dict[str, float] = {}

    def stop(self) -> None:
        """Forget what earlier looks found: another worker leads."""
        self._since.clear()

    def look(self, ends: float) -> bool:
        """Check all model queues. Returns whether the time ``ends`` (of the monotonic clock) came before all was done.

        Raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
        """
        state = self._queues.state()
        if not (state.waiting or state.empty):
            self._since.clear()
            return False
        served = self._last_served()
        for queue in state.empty:
            if not _is_live(served_ago_s(model_of(queue) or "", served)):
                self._queues.forget(queue)
        steps = [*self._unnamed(state, served), *self._unserved(state, served)]
        return any(_repeated(step, ends) for step in steps)

    def _unnamed(self, state: ModelQueueState, served: Mapping[str, float]) -> list[Callable[[], int]]:
        """Return the messages that another model answers now."""
        found = [
            one
            for one in state.waiting
            if MODEL_SEPARATOR in one.model and not _is_live(served_ago_s(one.model, served))
        ]
        active = self._active() if found else None
        if active is None:
            return []
        return [partial(self._return_unnamed, one) for one in found if one.model != active]

    def _unserved(self, state: ModelQueueState, served: Mapping[str, float]) -> list[Callable[[], int]]:
        """Return the messages whose jobs must fail."""
        now = time.monotonic()
        silent = {
            model
            for model in {one.model for one in state.waiting}
            if (ago := served_ago_s(model, served)) is None or ago >= self._wait_s
        }
        self._since = {model: self._since.get(model, now) for model in silent}
        sure = {model for model, since in self._since.items() if now - since >= min(CONFIRM_S, self._wait_s)}
        before = state.now - self._wait_s
        return [
            partial(self._return_unserved, one, before)
            for one in state.waiting
            if one.model in sure and (one.oldest is None or one.oldest <= before)
        ]

    def _return_unnamed(self, one: ModelList) -> int:
        count = self._queues.return_unnamed(one, _BATCH)
        if count:
            _log.info("unnamed_messages_returned", queue=one.queue, messages=count)
        return count

    def _return_unserved(self, one: ModelList, before: float) -> int:
        count = self._queues.return_unserved(one, before, _BATCH)
        if count:
            _log.warning("unserved_messages_returned", queue=one.queue, messages=count)
        return count

    def _active(self) -> str | None:
        try:
            return self._active_model()
        except (TransientError, OperatorError) as error:
            _log.warning("duty_failed", error_class=error.error_class, reason=str(error))
            return None


def _is_live(ago_s: float | None) -> bool:
    return ago_s is not None and ago_s <= LIVE_S


def _repeated(step: Callable[[], int], ends: float) -> bool:
    """Repeat a step until it finds nothing more. Returns whether the time was over before."""
    while time.monotonic() <= ends:
        if not step():
            return False
    return True
