"""kombu's Redis transport with four repairs, described in ``docs/guarantees.md``.

* What is read from the broker would reach Celery as it was sent: ``entries.py`` makes every entry anew.
* When the broker restarts while the worker is partly busy, ``QoS.restore_unacked_once`` raises out of the clean-up, and
  so does the acknowledgement of a task that outlives its connection; either ends the worker (kombu 5.5 to 5.7). Nothing
  is lost by going on: what is not acknowledged stands in the broker's ``tussis.unacked`` and comes back after the
  visibility timeout.
* After a failover the old primary answers with an error that is no lost connection to kombu, and the worker ends. Here
  its connections are dropped, and new ones are made to a primary only.
* On a full broker kombu can file nothing and the worker ends; and it files by the clock of its own machine. Here
  filing, settling and giving back are scripts that a full broker lets pass, by the broker's clock.
"""

from __future__ import annotations

import json
from typing import Any

import kombu
from celery.worker import state as celery_state
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from tussis.shared.broker import TcpConnection, TlsConnection
from tussis.worker import logs
from tussis.worker.parent import entries
from tussis.worker.parent.transport_scripts import (
    FILE_SCRIPT,
    GIVE_BACK_SCRIPT,
    OVERDUE_SCRIPT,
    PRIMARY_PROBE,
    SETTLE_SCRIPT,
)

_log = logs.get("transport")

#: The versions whose ``restore_unacked_once`` was seen to raise; the guard stands for these only.
GUARDED_KOMBU = ((5, 5), (5, 6), (5, 7))
#: Messages that one look gives back, where kombu names no number.
_RESTORED_AT_ONCE = 1000


def install() -> None:
    """Make ``redis://`` URLs use this transport, in this process."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
    entries.install()


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Unacknowledged messages.

    kombu puts them all back when the connection is lost, also those whose tasks still run: each would start twice. Here
    they stay filed; heartbeats keep those that run from coming back, and the others come back by themselves.
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

    def append(self, message: Any, delivery_tag: str) -> None:
        """File a message that was just popped."""
        info = message.delivery_info
        filed = json.dumps([message._raw, info["exchange"], info["routing_key"]])
        self._run(FILE_SCRIPT, delivery_tag, filed)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        try:
            self._run(SETTLE_SCRIPT, delivery_tag)
        except (OSError, RedisError, *self.channel.connection_errors) as error:
            # The message comes back, finds its answer in the store, and is acknowledged then.
            _log.warning("ack_lost", reason=f"{type(error).__name__}: {error}")
        # Also then: where the consumer's own connection lives on, the slot would stay taken for ever.
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
        else:
            self._run(SETTLE_SCRIPT, delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:
        """Give back the messages that nobody has kept in work within the visibility timeout.

        ``start`` and ``interval`` are kombu's: it takes the mutex of every worker first, and so may look more seldom.
        """
        overdue = self._run(OVERDUE_SCRIPT, self.visibility_timeout, num or _RESTORED_AT_ONCE)
        for tag, filed in zip(overdue[::2], overdue[1::2], strict=True):
            self._give_back(tag, filed, "RPUSH", self.visibility_timeout)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as client:
            filed = client.hget(self.unacked_key, tag)
        if filed is not None:
            self._give_back(tag, filed, "LPUSH" if leftmost else "RPUSH", -1)

    def _give_back(self, tag: str | bytes, filed: bytes, push: str, unless_younger_s: float) -> None:
        entry, list_name = entries.given_back(filed)
        self._run(GIVE_BACK_SCRIPT, tag, entry, push, unless_younger_s, list_name=list_name)

    def _run(self, script: str, *arguments: Any, list_name: str | None = None) -> Any:
        keys = [self.unacked_key, self.unacked_index_key, *([] if list_name is None else [list_name])]
        with self.channel.conn_or_acquire() as client:
            return self.channel.script(script, client)(keys=keys, args=arguments, client=client)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel through which Celery sees only entries that were made anew: :mod:`tussis.worker.parent.entries`."""

    QoS = QoS
    connection_class = TcpConnection
    connection_class_ssl = TlsConnection

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._known_params: dict[bool, dict[str, Any]] = {}
        self._shared_client: Any = None
        self._scripts: dict[str, Any] = {}
        super().__init__(*arguments, **options)

    def script(self, text: str, client: Any) -> Any:
        """A script, sent by its digest; ``client`` is asked for the encoding only."""
        if text not in self._scripts:
            self._scripts[text] = client.register_script(text)
        return self._scripts[text]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """A task that outlives its connection is acknowledged through a new one to the same broker."""
        if self.connection is not None:
            self._known_params[asynchronous] = super()._connparams(asynchronous)
        parameters = self._known_params[asynchronous] | {"redis_connect_func": _connect_to_primary}
        if not asynchronous:
            # All its commands may be repeated. A connection that was lost while it was idle then costs nothing.
            parameters["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError,))
        return parameters

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Keep no table of bindings on the broker: producers push into lists, and a full broker would refuse it."""
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

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


def _connect_to_primary(connection: Any) -> None:
    """Greet the server, and make sure that it takes writes. Raises redis-py's errors: kombu waits and tries again."""
    connection.on_connect()
    connection.send_command("EVAL", PRIMARY_PROBE, 0)
    connection.read_response()
