"""Connect to the broker, and convert its errors to Tussis errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tussis.shared.errors import BrokerNotPrepared, BrokerRefused, BrokerUnavailable, SettingsInvalid
from tussis.shared.redaction import redacted
from tussis.shared.tls import check_files, tls_reason

#: Seconds. Long enough for a broker that writes its append-only file to a slow disk. Two timeouts fit into the 10 s
#: within which the user gets an error.
SOCKET_TIMEOUT_S = 4.0
_RETRIES = 2
#: Seconds after the start of a command in which it is tried again.
_RETRY_WITHIN_S = 5.0

#: Error codes of a server that does not serve this client at the moment. The server has not executed the command. The
#: value is the reason, and whether the condition ends without the operator. The codes are those of Redis 8.2 and
#: Valkey 9.1 (``src/server.c``, ``createSharedObjects``).
NOT_SERVING: Final[dict[str, tuple[str, bool]]] = {
    "READONLY": ("it is a replica", True),
    "UNBLOCKED": ("it became a replica", True),
    "MASTERDOWN": ("it is a replica that has lost its primary", True),
    "NOREPLICAS": ("too few of its replicas answer", True),
    "LOADING": ("it is loading its data", True),
    "BUSY": ("it is running a long script", True),
    "TRYAGAIN": ("it is moving keys", True),
    "MISCONF": ("it cannot write its files; check its disk", False),
    "CLUSTERDOWN": ("it is a Redis Cluster, which Tussis does not support; use a single server", False),
}
#: Error codes of conditions that only the operator can fix. The value is the reason and the remedy.
_REFUSED: Final[dict[str, str]] = {
    "OOM": "is full (maxmemory) and accepts no new jobs: try again later, or raise its maxmemory",
    "NOPERM": "denies a command ({error}): grant it to the login (docs/operate.md, docs/wire-format.md)",
    "NOAUTH": "requires a password: check TUSSIS_BROKER_URL",
    "WRONGPASS": "refuses the login ({error}): check TUSSIS_BROKER_URL",
    "no Redis": "is not Redis or Valkey ({error}): check TUSSIS_BROKER_URL",
    "too old": "is too old: Tussis needs Redis 7 or later, or Valkey",
    **dict.fromkeys(
        ("MOVED", "ASK", "CROSSSLOT"), "is a Redis Cluster, which Tussis does not support: use a single server"
    ),
}

_T = TypeVar("_T")


class NotServing(RedisConnectionError):
    """An error reply with a code in :data:`NOT_SERVING`. The connection is closed: the next may reach another one."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(f"{code} {text}")


def error_code(error: Exception) -> str:
    """The code in a server's error reply, for example ``READONLY``; ``ERR`` when it has none.

    For an aborted transaction, this is the code of the command that was refused.
    """
    # redis-py removes the codes in its own list from the text.
    code: str = getattr(error, "status_code", None) or str(error).split(" ", 1)[0]
    if code == "EXECABORT" and "because of: " in str(error):
        code = str(error).split("because of: ", 1)[1].split(" ", 1)[0]
    if "ACL failure in script" in str(error):  # Its code is ERR (Redis 7 and later, Valkey).
        return "NOPERM"
    return code.rstrip(":") if code.rstrip(":").isupper() else "ERR"


class FunctionsMissing(ResponseError):
    """The broker lacks a function of :mod:`tussis.shared.broker_functions`, and this login may not load it."""


@contextmanager
def _leaving_replicas(connection: redis.Connection) -> Iterator[None]:
    """Close a connection when its server no longer serves the client, so that every client connects again.

    After a planned failover the old primary keeps its connections and refuses all writes.
    """
    try:
        yield
    except (ResponseError, BusyLoadingError) as error:
        code = error_code(error)
        if code not in NOT_SERVING:
            raise
        connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py's
        raise NotServing(code, str(error).removeprefix(f"{code} ")) from error


class TcpConnection(redis.Connection):
    """For ``redis://``."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer. Raises :class:`NotServing` and the errors of redis-py."""
        with _leaving_replicas(self):
            return super().read_response(*arguments, **options)


class TlsConnection(redis.SSLConnection):
    """For ``rediss://``."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer. Raises :class:`NotServing` and the errors of redis-py."""
        with _leaving_replicas(self):
            return super().read_response(*arguments, **options)


_CONNECTIONS: Final[dict[type, type]] = {
    redis.Connection: TcpConnection,
    redis.SSLConnection: TlsConnection,
}


class _BoundedRetry(Retry):
    """Retries after a lost connection a few times, and after :class:`NotServing` until the time limit.

    redis-py retries a connect inside the retries of its command, so that 3 tries become 9. For this reason the time is
    limited as well.
    """

    def __init__(self) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=-1)

    def call_with_retry(self, do: Callable[[], _T], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> _T:
        ends = time.monotonic() + _RETRY_WITHIN_S
        lost = 0

        def fail_in_time(error: Exception, *count: int) -> None:
            nonlocal lost
            fail(error, *count)
            lost += not isinstance(error, NotServing)
            if lost > _RETRIES or time.monotonic() >= ends or isinstance(error, AuthenticationError):
                raise error

        return super().call_with_retry(do, fail_in_time, *args, **kwargs)


def redact(url: str) -> str:
    """The broker's URL without user, password and options, for messages and logs."""
    return redacted(url, "TUSSIS_BROKER_URL")


def connect(url: str) -> redis.Redis:
    """Return a client for the broker. It connects on its first command.

    ``hiredis`` packs a command in one piece. The packer of redis-py splits it at 6,000 bytes, with one system call a
    piece: more than 100 system calls for a batch of 500 jobs.

    All commands of Tussis can be repeated after a lost connection, so the client retries them. A command fails within
    10 s when the broker does not answer. Raises :class:`SettingsInvalid` when ``url`` is not a Redis URL, or has an
    unknown option.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=5,
            retry=_BoundedRetry(),
        )
        pool = client.connection_pool
        pool.connection_class = _CONNECTIONS[pool.connection_class]
        pool.connection_class(**pool.connection_kwargs)  # Raises for an unknown option.
    except (ValueError, TypeError, LookupError, RedisError):  # the text of the error may contain a part of the password
        hint = ", or its options after the ? are wrong" if "?" in url else ""
        raise SettingsInvalid(
            f"TUSSIS_BROKER_URL is not a Redis URL{hint}: write redis://[:password@]host:port/db"
        ) from None
    if pool.connection_class is TlsConnection:
        options = pool.connection_kwargs
        check_files(
            "TUSSIS_BROKER_URL, or TUSSIS_BROKER_CA, _CERT or _KEY",
            ca=options.get("ssl_ca_certs"),
            ca_folder=options.get("ssl_ca_path"),
            certificate=options.get("ssl_certfile"),
            key=options.get("ssl_keyfile"),
            password=options.get("ssl_password"),
        )
    return client


def server_time(client: redis.Redis) -> float:
    """The time of the broker's clock, in seconds since the epoch. Raises redis-py's errors."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


@contextmanager
def broker_errors(where: str) -> Iterator[None]:
    """Convert redis-py's errors to :class:`BrokerUnavailable` or :class:`BrokerRefused`. The message has ``where``.

    :class:`BrokerNotPrepared` is a :class:`BrokerUnavailable`: it ends by itself when a worker runs.
    """
    try:
        yield
    except NotServing as error:
        reason, passes = NOT_SERVING[error.code]
        kind = BrokerUnavailable if passes else BrokerRefused
        raise kind(f"the broker at {where} does not serve: {reason} ({error})") from error
    except FunctionsMissing as error:
        raise BrokerNotPrepared(
            f"the broker at {where} has no functions of Tussis, or older ones, and this login may not load them: start "
            "a worker, which loads them, or run `tussis broker load`"
        ) from error
    except (AuthenticationError, AuthorizationError) as error:
        raise BrokerRefused(f"the broker at {where} refuses the login ({error}): check TUSSIS_BROKER_URL") from error
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        tls = tls_reason(str(error), ca="TUSSIS_BROKER_CA", certificate="TUSSIS_BROKER_CERT and TUSSIS_BROKER_KEY")
        if "SSL" in str(error) and tls is not None:
            raise BrokerRefused(f"no TLS connection to the broker at {where} ({error}): {tls}") from error
        # A server that refuses a client without a certificate may close the connection without a word.
        settings = "TUSSIS_BROKER_URL" + (" and TUSSIS_BROKER_CERT" if where.startswith("rediss:") else "")
        raise BrokerUnavailable(
            f"the broker at {where} does not answer ({error}): start it, or check {settings}"
        ) from error
    except RedisError as error:
        reason = _REFUSED.get(_refusal(error), "refuses a command: {error}")
        raise BrokerRefused(f"the broker at {where} {reason.format(error=error)}") from error


def _refusal(error: RedisError) -> str:
    """The key of an error in :data:`_REFUSED`, or its error code when it has no special case."""
    text = str(error)
    if isinstance(error, InvalidResponse):
        return "no Redis"
    if "on cluster, 'no-cluster'" in text or "not allowed in cluster mode" in text:
        return "MOVED"
    if "unknown command" in text and "FCALL" in text.upper():
        return "too old"
    return error_code(error)
