"""kombu's Redis transport with two repairs, both described in ``docs/guarantees.md``.

* What is read from the broker would reach Celery as it was sent: :mod:`tussis.worker.entries` makes every entry anew.
* When the broker restarts while the worker is partly busy, ``QoS.restore_unacked_once`` raises out of the clean-up, and
  so does the acknowledgement of a task that outlives its connection; either ends the worker (kombu 5.5 to 5.7). Nothing
  is lost by going on: what is not acknowledged stands in the broker's ``tussis.unacked`` and comes back after the
  visibility timeout.
"""

from __future__ import annotations

from typing import Any

import kombu
from celery.worker import state as celery_state
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from tussis.worker import entries, logs

_log = logs.get("transport")

#: The versions whose ``restore_unacked_once`` was seen to raise; the guard stands for these only.
GUARDED_KOMBU = ((5, 5), (5, 6), (5, 7))


def install() -> None:
    """Make ``redis://`` URLs use this transport, in this process."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
    entries.install()


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Unacknowledged messages.

    kombu puts them all back when the connection is lost, also those whose tasks still run: each would start twice. Here
    they stay filed; the keeper's beats keep those that run from coming back, and the others come back by themselves.
    """

    def restore_unacked_once(self, stderr: Any = None) -> None:
        stops = celery_state.should_stop is not None or celery_state.should_terminate is not None
        if kombu.VERSION[:2] in GUARDED_KOMBU and not stops:
            self._on_collect.cancel()
            if self._delivered:
                _log.warning("connection_lost", messages=len(self._delivered))
            return
        try:
            super().restore_unacked_once(stderr)
        except (AttributeError, OSError, *self.channel.connection_errors) as error:
            _log.warning("restore_failed", reason=f"{type(error).__name__}: {error}", messages=len(self._delivered))
            self._delivered.clear()

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except (OSError, *self.channel.connection_errors) as error:
            # The message comes back, finds its answer in the store, and is acknowledged then.
            _log.warning("ack_lost", reason=f"{type(error).__name__}: {error}")
            # Where the consumer's own connection lives on, the slot would stay taken for ever.
            self._quick_ack(delivery_tag)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel through which Celery sees only entries that were made anew: :mod:`tussis.worker.entries`."""

    QoS = QoS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._known_params: dict[bool, dict[str, Any]] = {}
        self._shared_client: Any = None
        super().__init__(*arguments, **options)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """A task that outlives its connection is acknowledged through a new one to the same broker."""
        if self.connection is not None:
            self._known_params[asynchronous] = super()._connparams(asynchronous)
        return dict(self._known_params[asynchronous])

    def _create_client(self, asynchronous: bool = False) -> Any:
        """kombu makes a client for each filing and each acknowledgement; one for each pool does the same."""
        shared = self._shared_client
        if not asynchronous and shared is not None and shared.connection_pool is self.pool:
            return shared
        client = super()._create_client(asynchronous)
        client.set_response_callback("BRPOP", entries.popped)
        client.set_response_callback("RPOP", entries.taken)
        client.set_response_callback("HGET", entries.filed)
        if not asynchronous:
            self._shared_client = client
        return client


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """The Redis transport with our channel."""

    Channel = Channel
