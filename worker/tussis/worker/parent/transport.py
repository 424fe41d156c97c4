"""kombu's Redis transport with four fixes, described in ``docs/guarantees.md``.

* kombu passes every entry from the broker to Celery unchanged. Here ``entries.py`` replaces the envelope.
* When the broker restarts while the worker is partly busy, ``QoS.restore_unacked_once`` raises out of the clean-up. The
  acknowledgement of a task that outlives its connection raises too. Either ends the worker (kombu 5.5 to 5.7). Here the
  worker continues. Nothing is lost: unacknowledged messages are in the broker's ``tussis.unacked`` and come back after
  the visibility timeout.
* After a failover the old primary answers with an error that kombu does not treat as a lost connection, and the worker
  ends. Here the connections to it are dropped, and new ones are made only to a primary.
* On a full broker kombu cannot record a message in ``tussis.unacked``, and the worker ends. kombu also records the time
  of its own machine. Here functions that run on a full broker record, settle and give back messages, with the
  broker's clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import kombu
from celery.worker import state as celery_state
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from tussis.shared.broker import TcpConnection, TlsConnection
from tussis.shared.broker_functions import LIBRARY, call, is_missing
from tussis.shared.queues import MODEL_QUEUES_KEY, model_of
from tussis.worker import logs
from tussis.worker.parent import entries
from tussis.worker.parent.paused import OpenQueues

_log = logs.get("transport")

#: The kombu versions whose ``restore_unacked_once`` raises. The guard is for these only.
GUARDED_KOMBU = ((5, 5), (5, 6), (5, 7))
#: The most messages that one call gives back, if kombu passes no number.
_RESTORED_AT_ONCE = 1000


def install() -> None:
    """Make ``redis://`` and ``rediss://`` URLs use this transport, in this process."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
    entries.install()


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Unacknowledged messages.

    After a lost connection kombu puts all of them back, also those whose tasks still run, which would then start twice.
    Here they stay in ``tussis.unacked``. Heartbeats keep the running ones there. The others come back after the
    visibility timeout.
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
        """Record a message that was just popped in ``tussis.unacked``."""
        info = message.delivery_info
        filed = json.dumps([message._raw, info["exchange"], info["routing_key"]])
        self._run("tussis_file", delivery_tag, filed)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        try:
            self._run("tussis_settle", delivery_tag)
        except (OSError, RedisError, *self.channel.connection_errors) as error:
            # The message comes back, its answer is found in the store, and it is acknowledged then.
            _log.warning("ack_lost", reason=f"{type(error).__name__}: {error}")
        # Also after an error: if the consumer's own connection is intact, the slot would otherwise never become free.
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
        else:
            self._run("tussis_settle", delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:
        """Give back the messages that had no heartbeat within the visibility timeout.

        ``start`` and ``interval`` belong to kombu's signature and have no effect here.
        """
        overdue = self._run("tussis_overdue", self.visibility_timeout, num or _RESTORED_AT_ONCE)
        for tag, filed in zip(overdue[::2], overdue[1::2], strict=True):
            self._give_back(tag, filed, "RPUSH", self.visibility_timeout)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as client:
            filed = client.hget(self.unacked_key, tag)
        if filed is not None:
            self._give_back(tag, filed, "LPUSH" if leftmost else "RPUSH", -1)

    def _give_back(self, tag: str | bytes, filed: bytes, push: str, unless_younger_s: float) -> None:
        entry, queue, list_name = entries.given_back(filed)
        keys = [list_name, MODEL_QUEUES_KEY]
        model_queue = "" if model_of(queue) is None else queue
        self._run("tussis_give_back", tag, entry, push, unless_younger_s, model_queue, more_keys=keys)

    def _run(self, function: str, *arguments: Any, more_keys: Sequence[str] = ()) -> Any:
        keys = [self.unacked_key, self.unacked_index_key, *more_keys]
        with self.channel.conn_or_acquire() as client:
            return call(client, function, keys, arguments)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that gives Celery only entries with a new envelope (:mod:`tussis.worker.parent.entries`)."""

    QoS = QoS
    connection_class = TcpConnection
    connection_class_ssl = TlsConnection

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._known_params: dict[bool, dict[str, Any]] = {}
        self._shared_client: Any = None
        super().__init__(*arguments, **options)
        # In the order of the option queue_order_strategy. No queue has been added yet.
        self._queue_cycle = OpenQueues()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """The parameters of a connection, which are kept.

        A task that outlives its connection is acknowledged through a new one to the same broker.
        """
        if self.connection is not None:
            self._known_params[asynchronous] = super()._connparams(asynchronous)
        parameters = self._known_params[asynchronous] | {"redis_connect_func": _connect_to_primary}
        if not asynchronous:
            # All commands may be repeated. A connection that was lost while idle is then replaced without an error.
            parameters["retry"] = Retry(NoBackoff(), 1, (RedisConnectionError,))
        return parameters

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Write no table of bindings: producers push to lists, and a full broker would refuse the write."""
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Reuse one client for each pool. kombu makes a new client for each delivery and each acknowledgement."""
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
    """Set up a new connection and check that the server accepts writes.

    Raises redis-py's errors: kombu waits and tries again.
    """
    connection.on_connect()
    connection.send_command("FCALL", "tussis_probe", 0)
    try:
        connection.read_response()
    except ResponseError as error:
        if not is_missing(error):
            raise
        connection.send_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        connection.read_response()
