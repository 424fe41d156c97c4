"""Connecting to the broker, and its errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tussis.shared.errors import BrokerRefused, BrokerUnavailable, SettingsInvalid

#: Seconds. Long enough for a broker that writes its append-only file to a slow disk, short enough to tell a user.
SOCKET_TIMEOUT_S = 5.0


def redact(url: str) -> str:
    """A URL without its password, for messages and logs."""
    return re.sub(r"(?<=://)([^/@]*?:)?[^/@]*@", r"***@", url)


def connect(url: str, *, retries: int = 2) -> redis.Redis:
    """A client for the broker; it connects on its first command.

    Every command of ours may be repeated after a lost connection, so lost connections are retried here.
    Raises :class:`SettingsInvalid` when ``url`` is no Redis URL.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=5,
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries),
        )
    except (ValueError, TypeError) as error:
        raise SettingsInvalid(
            f"TUSSIS_BROKER_URL is not a Redis URL: {redact(url)!r} ({error}); write redis://[:password@]host:port/db"
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
    except (ResponseError, RedisError) as error:
        raise BrokerRefused(f"the broker at {where} refuses: {error}") from error
