"""Connecting to the broker: what is refused, how long it takes to say so, and no password in any message."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Any, Self

import pytest
from redis.connection import PythonRespSerializer
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
from tussis.shared.broker import NOT_SERVING, broker_errors, connect, redact
from tussis.shared.errors import BrokerRefused, BrokerUnavailable, SettingsInvalid, TussisError


def test_a_client_packs_as_redis_py_does_in_one_piece() -> None:
    connection: Any = connect("redis://127.0.0.1:1/0").connection_pool.make_connection()
    plain: Any = PythonRespSerializer(6_000, connection.encoder.encode)
    long = "x" * 20_000
    for command in (
        ("PING",),
        ("CLIENT SETINFO", "LIB-NAME", "redis-py"),
        ("EVAL", "return 1", 2, "schlüssel", b"\x00\xff", 1.5, -3, "", long, "two words"),
        (b"SCRIPT LOAD", "return 1"),
    ):
        packed = connection.pack_command(*command)

        assert len(packed) == 1
        assert packed[0] == b"".join(plain.pack(*command))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:secret@host/0", "redis://***@host/0"),
        ("redis://:sec/ret@host/0", "the address in TUSSIS_BROKER_URL"),
        ("redis://:sec@ret@host/0", "the address in TUSSIS_BROKER_URL"),
        ("redis:/:secret@host/0", "the address in TUSSIS_BROKER_URL"),
        ("redis://host/0?password=secret&db=1", "redis://host/0"),
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


class _Replying:
    """A server that answers each command with one of some replies, the last one again and again."""

    def __init__(self, *replies: bytes) -> None:
        self.connections = 0
        self._replies = list(replies)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while words := connection.recv(65_536):
                if b"LLEN" in words:
                    reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
                    connection.sendall(reply)
                elif b"PING" in words:
                    connection.sendall(b"+PONG\r\n")
                else:  # redis-py's greeting
                    connection.sendall(b"%1\r\n+proto\r\n:3\r\n" if b"HELLO" in words else b"+OK\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


@pytest.mark.parametrize("code", sorted(NOT_SERVING))
def test_every_code_of_the_table_drops_the_connection(code: str) -> None:
    """Given a server that answers with the code once, when a command is sent, then a new connection carries it out."""
    with _Replying(f"-{code} for a reason\r\n".encode(), b":7\r\n") as server:
        client = connect(f"redis://127.0.0.1:{server.port}/0")
        assert client.llen("a") == 7
        assert server.connections == 2
        client.close()


@pytest.mark.parametrize(
    ("reply", "told", "words"),
    [
        (b"-READONLY You can't write against a read only replica.", BrokerUnavailable, "it is a replica"),
        (b"-CLUSTERDOWN Hash slot not served", BrokerRefused, "Redis Cluster"),
        (b"-MISCONF Errors writing to the AOF file", BrokerRefused, "check its disk"),
        (b"-EXECABORT Transaction discarded because of: READONLY no", BrokerUnavailable, "it is a replica"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", BrokerRefused, r"full \(maxmemory\)"),
        (b"-NOPERM User u has no permissions to run the 'llen' command", BrokerRefused, "grant it to the login"),
        (b"-ERR ACL failure in script: User u has no permissions to run", BrokerRefused, "grant it to the login"),
        (b"-NOAUTH Authentication required.", BrokerRefused, "check TUSSIS_BROKER_URL"),
        (b"-WRONGPASS invalid username-password pair", BrokerRefused, "refuses the login"),
        (b"-MOVED 3999 127.0.0.1:6381", BrokerRefused, "Redis Cluster"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot", BrokerRefused, "Redis Cluster"),
        (b"-ERR Can not run script on cluster, 'no-cluster' flag is set.", BrokerRefused, "Redis Cluster"),
        (
            b"-ERR unknown command 'FCALL', with args beginning with: 'tussis_version' '0' ",
            BrokerRefused,
            "old",
        ),
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx", BrokerRefused, "is not Redis or Valkey"),
        (b"-ERR something else", BrokerRefused, "something else"),
    ],
)
def test_what_a_server_answers_is_one_line(
    monkeypatch: pytest.MonkeyPatch, reply: bytes, told: type[TussisError], words: str
) -> None:
    monkeypatch.setattr("tussis.shared.broker._RETRY_WITHIN_S", 0.2)
    with _Replying(reply + b"\r\n") as server:
        client = connect(f"redis://127.0.0.1:{server.port}/0")
        with pytest.raises(told, match=words) as raised, broker_errors("redis://here"):
            client.llen("a")
        assert "redis://here" in str(raised.value)
        assert "\n" not in str(raised.value)
        client.close()


def test_tls_to_a_port_without_it_is_one_line() -> None:
    with _Replying(b"+OK\r\n") as server:
        client = connect(f"rediss://127.0.0.1:{server.port}/0")
        with (
            pytest.raises(BrokerRefused, match=r"no TLS connection to the broker at .* does not speak TLS") as raised,
            broker_errors("rediss://here"),
        ):
            client.llen("a")
        assert "\n" not in str(raised.value)
        client.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ssl_ca_certs=/not/there.pem", "cannot be read: /not/there.pem"),
        ("ssl_cert_reqs=perhaps", "options after the ?"),
        ("colour=blue", "options after the ?"),
        ("socket_timeout=long", "options after the ?"),
    ],
)
def test_an_option_in_the_url_that_is_wrong_is_one_line(query: str, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=re.escape(words)) as raised:
        connect(f"rediss://:secret@host:6379/0?{query}")
    assert "secret" not in str(raised.value)


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
