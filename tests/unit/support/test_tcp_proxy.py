"""The proxy that the fault tests put between Tussis and its servers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.soak.tcp_proxy import TcpProxy
from tests.support.waiting import PATIENCE, wait_until

#: For what comes at once, and for a whole `sendall`, seconds.
SOON_S = 5 * PATIENCE


class Echo:
    """A server that sends back what it gets; ``received`` is what it got."""

    def __init__(self) -> None:
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    self.received += data
                    client.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as echo:
        yield echo


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        yield client


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON_S)


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = client.recv(count - len(data))
        assert chunk, f"closed after {len(data)} of {count} bytes"
        data += chunk
    return data


def hear(proxy: TcpProxy) -> bytes:
    """Connect and wait for a byte; the reset may come at either step."""
    with connect(proxy) as client:
        return client.recv(1)


def read_until_reset(client: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            chunk = client.recv(65_536)
        except ConnectionResetError:
            return data
        assert chunk, "closed, not reset"
        data += chunk


def assert_silent(client: socket.socket) -> None:
    """Nothing comes within a tenth of a second, and the connection stays open."""
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(SOON_S)


def test_it_passes_megabytes_in_both_directions_unchanged(proxy: TcpProxy, client: socket.socket) -> None:
    data = bytes(range(256)) * 20_000  # more than the proxy holds and than the kernel's buffers
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()

    assert read(client, len(data)) == data

    sender.join()
    (connection,) = proxy.connections
    # The last bytes are counted after they were passed on.
    wait_until(lambda: connection.bytes_up == connection.bytes_down == len(data), 5, "the count")


def test_a_half_close_passes_and_then_the_connection_ends(proxy: TcpProxy, client: socket.socket) -> None:
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)

    assert read(client, 10) == b"last words"
    assert client.recv(1) == b""
    wait_until(lambda: not proxy.connections, 5, "the end of the connection")


def test_cut_resets_what_is_open_and_welcomes_the_next(proxy: TcpProxy, client: socket.socket) -> None:
    client.sendall(b"x")
    read(client, 1)

    proxy.cut()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as next_client:
        next_client.sendall(b"y")
        assert read(next_client, 1) == b"y"


def test_refuse_is_a_server_that_is_gone(proxy: TcpProxy, client: socket.socket) -> None:
    client.sendall(b"x")
    read(client, 1)

    proxy.refuse()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.resume()
    with connect(proxy) as next_client:
        next_client.sendall(b"y")
        assert read(next_client, 1) == b"y"


def test_freeze_passes_nothing_on_old_and_new_connections_until_resumed(
    proxy: TcpProxy, client: socket.socket, echo: Echo
) -> None:
    client.sendall(b"a")
    read(client, 1)

    proxy.freeze()
    with connect(proxy) as late:
        client.sendall(b"b")
        late.sendall(b"c")
        assert_silent(client)
        assert_silent(late)
        assert echo.received == b"a"

        proxy.resume()

        assert read(client, 1) == b"b"
        assert read(late, 1) == b"c"


def test_one_connection_is_frozen_or_cut_without_the_others(proxy: TcpProxy, client: socket.socket) -> None:
    with connect(proxy) as other:
        for each in (client, other):
            each.sendall(b"x")
            read(each, 1)
        first, second = proxy.connections

        first.freeze()
        for each in (client, other):
            each.sendall(b"y")
        assert read(other, 1) == b"y"
        assert_silent(client)
        first.resume()
        assert read(client, 1) == b"y"

        second.cut()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        client.sendall(b"z")
        assert read(client, 1) == b"z"
        assert proxy.connections == [first]


def test_delay_holds_each_way(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.delay(0.15)
    began = time.monotonic()
    client.sendall(b"x")
    read(client, 1)
    assert time.monotonic() - began >= 0.3


def test_cut_after_ends_the_answer_in_its_middle(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.cut_after(1000)
    client.sendall(b"x" * 5000)

    assert len(read_until_reset(client)) <= 1000

    proxy.resume()
    with connect(proxy) as next_client:
        next_client.sendall(b"y" * 5000)
        assert read(next_client, 5000) == b"y" * 5000


def test_a_server_that_is_down_is_a_reset_connection(proxy: TcpProxy, echo: Echo) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError):
        hear(proxy)


def test_leaving_ends_the_connections_and_the_thread(echo: Echo) -> None:
    with TcpProxy("127.0.0.1", echo.port) as proxy:
        client = connect(proxy)
        client.sendall(b"x")
        read(client, 1)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not [thread for thread in threading.enumerate() if thread.name == "tcp-proxy"]
