"""Connecting to the broker: what is refused, how long it takes to say so, and no password in any message."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.waiting import PATIENCE
from tussis.shared.broker import broker_errors, connect, redact
from tussis.shared.errors import BrokerRefused, BrokerUnavailable, SettingsInvalid, TussisError


def test_a_bulk_client_packs_as_redis_py_does_in_one_piece() -> None:
    url = "redis://127.0.0.1:1/0"
    plain: Any = connect(url).connection_pool.make_connection()
    bulk: Any = connect(url, bulk=True).connection_pool.make_connection()
    long = "x" * 20_000
    for command in (
        ("PING",),
        ("CLIENT SETINFO", "LIB-NAME", "redis-py"),
        ("EVAL", "return 1", 2, "schlüssel", b"\x00\xff", 1.5, -3, "", long, "two words"),
        (b"SCRIPT LOAD", "return 1"),
    ):
        packed = bulk.pack_command(*command)

        assert len(packed) == 1
        assert packed[0] == b"".join(plain.pack_command(*command))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:secret@host/0", "redis://***@host/0"),
        ("redis://:sec/ret@host/0", "redis://***@host/0"),
        ("redis://:sec@ret@host/0", "redis://***@host/0"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize("url", ["", "host:6379", "http://host", "redis://host:port/0", "redis://:sec/ret@host:6379/0"])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="TUSSIS_BROKER_URL") as refused:
        connect(url)

    assert "sec" not in str(refused.value)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RedisConnectionError("refused"), BrokerUnavailable),
        (BusyLoadingError("loading"), BrokerUnavailable),
        (OSError("reset"), BrokerUnavailable),
        (AuthenticationError("wrong"), BrokerRefused),
        (NoPermissionError("no"), BrokerRefused),
        (OutOfMemoryError("full"), BrokerRefused),
        (ReadOnlyError("replica"), BrokerRefused),
        (RedisError("other"), BrokerRefused),
    ],
)
def test_errors_of_the_client_become_ours(raised: Exception, told: type[TussisError]) -> None:
    with pytest.raises(told, match="redis://host"), broker_errors("redis://host"):
        raise raised


def test_a_broker_that_never_answers_is_given_up_within_ten_seconds(silent_port: int) -> None:
    client = connect(f"redis://127.0.0.1:{silent_port}/0")
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable, match="Timeout"), broker_errors("here"):
        client.ping()

    assert time.monotonic() - began < 10 * PATIENCE


def test_a_port_that_nobody_listens_on_is_given_up_at_once(unused_port: int) -> None:
    client = connect(f"redis://127.0.0.1:{unused_port}/0")
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable, match="refused"), broker_errors("here"):
        client.ping()

    assert time.monotonic() - began < 5 * PATIENCE
