"""Connecting to the broker, and its errors as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    OutOfMemoryError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tussis.shared.errors import BrokerRefused, BrokerUnavailable, SettingsInvalid

#: Seconds. Long enough for a broker that writes its append-only file to a slow disk, and twice within the 10 s in which
#: a user is told.
SOCKET_TIMEOUT_S = 4.0
_RETRIES = 2
#: Seconds after its start in which a command is tried again.
_RETRY_WITHIN_S = 5.0

_T = TypeVar("_T")


class _BoundedRetry(Retry):
    """Retries for a bounded time. redis-py retries a connect inside the retries of its command: 9 tries for 3."""

    def call_with_retry(self, do: Callable[[], _T], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> _T:
        ends = time.monotonic() + _RETRY_WITHIN_S

        def fail_in_time(error: Exception, *count: int) -> None:
            fail(error, *count)
            if time.monotonic() >= ends:
                raise error

        return super().call_with_retry(do, fail_in_time, *args, **kwargs)


class _OnePiece:
    """Packs a command into one piece of bytes.

    redis-py's packer cuts at 6,000 bytes, a system call each: a batch of 500 jobs has 140 of them. In turns with it,
    seven times: 18,000 jobs a second against 14,600 (medians), the faster one each time.
    """

    def pack(self, *arguments: str | bytes | float) -> list[bytes]:
        """RESP2: ``*N``, then for each argument its length and its bytes. A command's name may be two words."""
        name, *rest = arguments
        words: list[Any] = [*name.split(), *rest] if isinstance(name, str | bytes) else list(arguments)
        pieces = [b"*%d\r\n" % len(words)]
        for word in words:
            encoded = word if isinstance(word, bytes) else (word if isinstance(word, str) else repr(word)).encode()
            pieces.append(b"$%d\r\n%b\r\n" % (len(encoded), encoded))
        return [b"".join(pieces)]


def redact(url: str) -> str:
    """A URL without its password, for messages and logs; also when a ``/`` or ``@`` in it was not escaped."""
    return re.sub(r"(?<=password=)[^&]*", "***", re.sub(r"(?<=://).*@", "***@", url))


def connect(url: str, *, bulk: bool = False) -> redis.Redis:
    """A client for the broker; it connects on its first command. ``bulk``: its commands are large.

    Every command of ours may be repeated after a lost connection, so lost connections are retried here; a command
    gives up within 10 s where the broker does not answer. Raises :class:`SettingsInvalid` when ``url`` is no Redis URL.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=5,
            retry=_BoundedRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES),
            **({"command_packer": _OnePiece()} if bulk else {}),
        )
    except (ValueError, TypeError):  # its text may hold a part of the password
        raise SettingsInvalid(
            f"TUSSIS_BROKER_URL is not a Redis URL: {redact(url)!r}; write redis://[:password@]host:port/db"
        ) from None


@contextmanager
def broker_errors(where: str) -> Iterator[None]:
    """Turn redis-py's errors into :class:`BrokerUnavailable` or :class:`BrokerRefused`, naming ``where``."""
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise BrokerRefused(f"the broker at {where} refuses the login ({error}): check TUSSIS_BROKER_URL") from error
    except (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError) as error:
        raise BrokerUnavailable(f"no broker answers at {where} ({error}): is it running?") from error
    except OutOfMemoryError as error:
        raise BrokerRefused(
            f"the broker at {where} is out of memory: raise its maxmemory or let the workers drain it"
        ) from error
    except RedisError as error:
        raise BrokerRefused(f"the broker at {where} refuses: {error}") from error
