"""A TCP proxy that injects faults on command between Tussis and its servers.

One thread does all the work. The methods send commands to it and return when it has executed them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tussis.worker.embedded.ports import free_ports

CHUNK = 65_536
#: Bytes held for one direction of one connection before the proxy stops reading from the sender.
HELD_LIMIT = 1_048_576
MAX_CONNECTIONS = 512
#: Makes close() send RST.
LINGER_ZERO = struct.pack("ii", 1, 0)
ORDER_TIMEOUT_S = 10.0


@dataclass
class _Flow:
    """One direction: the data that was read and not yet written."""

    source: socket.socket
    sink: socket.socket
    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    held_bytes: int = 0
    passed: int = 0
    ended: bool = False
    finished: bool = False


class Connection:
    """One client's connection. Its methods affect this connection only; the proxy's methods affect all."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._up = _Flow(client, server)
        self._down = _Flow(server, client)
        self._frozen = False
        self._open = True

    @property
    def open(self) -> bool:
        """Whether the connection is open."""
        return self._open

    @property
    def bytes_up(self) -> int:
        """Bytes passed from the client to the server."""
        return self._up.passed

    @property
    def bytes_down(self) -> int:
        """Bytes passed from the server to the client."""
        return self._down.passed

    def cut(self) -> None:
        """Reset both sides."""
        self._proxy._order(self._abort)

    def freeze(self) -> None:
        """Stop forwarding without closing: a half-open connection."""
        self._proxy._order(lambda: self._set_frozen(True))

    def resume(self) -> None:
        """Forward the held data and continue."""
        self._proxy._order(lambda: self._set_frozen(False))

    # The methods below run in the proxy's thread.

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen

    def _flows(self) -> tuple[_Flow, _Flow]:
        return (self._up, self._down)

    def _abort(self) -> None:
        if self._open:
            self._open = False
            for end in (self._up.source, self._up.sink):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
                end.close()

    def _close(self) -> None:
        self._open = False
        self._up.source.close()
        self._up.sink.close()


class TcpProxy:
    """Forwards 127.0.0.1:`port` to a server, for the duration of a ``with`` block.

    Args:
        host, port: the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._connections: list[Connection] = []
        self._listener: socket.socket | None = None
        self._frozen = False
        self._delay_s = 0.0
        self._cut_after: int | None = None
        self._closing = False

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe()
        # Outside the range of client ports: a client that retries while the port is closed could connect to itself.
        (self.port,) = free_ports(1)
        self._listener = self._listen(self.port)
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(self._shut)
        self._thread.join(ORDER_TIMEOUT_S)
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open, oldest first."""
        return [connection for connection in self._connections if connection.open]

    def cut(self) -> None:
        """Reset all connections. New ones are accepted."""
        self._order(self._abort_all)

    def switch(self, host: str, port: int) -> None:
        """Send new connections to another server. Open ones stay, as when a DNS name changes."""

        def switch() -> None:
            self._target = (host, port)

        self._order(switch)

    def refuse(self) -> None:
        """Reset all connections and stop listening, as when the server is down."""

        def refuse() -> None:
            self._abort_all()
            if self._listener is not None:
                self._listener.close()
                self._listener = None

        self._order(refuse)

    def freeze(self) -> None:
        """Stop forwarding on all connections, old and new, without closing them, as when the network is down."""
        self._order(lambda: self._set_frozen(True))

    def resume(self) -> None:
        """Listen and forward again, held data first."""

        def resume() -> None:
            self._set_frozen(False)
            self._delay_s = 0.0
            self._cut_after = None
            if self._listener is None:
                self._listener = self._listen(self.port)

        self._order(resume)

    def delay(self, seconds: float) -> None:
        """Hold every chunk for ``seconds``, in both directions."""

        def delay() -> None:
            self._delay_s = seconds

        self._order(delay)

    def cut_after(self, count: int | None) -> None:
        """Reset each connection after ``count`` bytes from the server to the client; None: never."""

        def cut_after() -> None:
            self._cut_after = count

        self._order(cut_after)

    # --- the proxy's thread -------------------------------------------------------------------------------------

    def _order(self, action: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.put((action, done))
        os.write(self._wake_write, b"x")
        if not done.wait(ORDER_TIMEOUT_S):
            raise TimeoutError("the proxy does not take orders")

    def _run(self) -> None:
        while not self._closing:
            self._connections = self.connections
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            if self._listener is not None and len(self._connections) < MAX_CONNECTIONS:
                poll.register(self._listener, select.POLLIN)
            for number, interest in self._interests().items():
                poll.register(number, interest)
            ready = dict(poll.poll(self._patience_ms()))
            # Commands first: data that they block must not be forwarded.
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._carry_out()
            if self._listener is not None and self._listener.fileno() in ready and not self._closing:
                self._accept(self._listener)
            for connection in self._connections:
                self._move(connection, ready)

    def _carry_out(self) -> None:
        while True:
            try:
                action, done = self._orders.get_nowait()
            except queue.Empty:
                return
            action()
            done.set()

    def _interests(self) -> dict[int, int]:
        interests: dict[int, int] = {}
        now = time.monotonic()
        for connection in self._connections:
            if connection._frozen:
                continue
            for flow in connection._flows():
                if not flow.ended and flow.held_bytes < HELD_LIMIT:
                    number = flow.source.fileno()
                    interests[number] = interests.get(number, 0) | select.POLLIN
                if flow.held and flow.held[0][0] <= now:
                    number = flow.sink.fileno()
                    interests[number] = interests.get(number, 0) | select.POLLOUT
        return interests

    def _patience_ms(self) -> float | None:
        """Return the time until the next delayed chunk is due; None for no limit."""
        due = [
            flow.held[0][0]
            for connection in self._connections
            if not connection._frozen
            for flow in connection._flows()
            if flow.held
        ]
        now = time.monotonic()
        later = [moment for moment in due if moment > now]
        return (min(later) - now) * 1000 + 1 if later else None

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=2)
        except OSError:  # the server is down: the client gets a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, client, server)
        connection._frozen = self._frozen
        self._connections.append(connection)

    def _move(self, connection: Connection, ready: dict[int, int]) -> None:
        if not connection.open or connection._frozen:
            return
        try:
            for flow in connection._flows():
                if ready.get(flow.source.fileno(), 0) & ~select.POLLOUT and not flow.ended:
                    self._read(flow)
                self._write(connection, flow)
                if not connection.open:
                    return
        except BlockingIOError:
            return
        except OSError:  # one side closed the connection: close the other
            connection._abort()
            return
        if all(flow.finished for flow in connection._flows()):
            connection._close()

    def _read(self, flow: _Flow) -> None:
        if flow.held_bytes >= HELD_LIMIT:
            return
        data = flow.source.recv(CHUNK)
        if data:
            flow.held.append((time.monotonic() + self._delay_s, data))
            flow.held_bytes += len(data)
        else:
            flow.ended = True

    def _write(self, connection: Connection, flow: _Flow) -> None:
        while flow.held and flow.held[0][0] <= time.monotonic():
            due, data = flow.held.popleft()
            limited = self._cut_after is not None and flow is connection._down
            room = self._cut_after - flow.passed if limited and self._cut_after is not None else len(data)
            try:
                sent = flow.sink.send(data[: max(room, 0)]) if room > 0 else 0
            except BlockingIOError:
                flow.held.appendleft((due, data))
                return
            flow.passed += sent
            flow.held_bytes -= sent
            if limited and sent >= room:
                connection._abort()
                return
            if sent < len(data):
                flow.held.appendleft((due, data[sent:]))
        if flow.ended and not flow.held and not flow.finished:
            flow.finished = True
            flow.sink.shutdown(socket.SHUT_WR)

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        for connection in self._connections:
            connection._frozen = frozen

    def _abort_all(self) -> None:
        for connection in self._connections:
            connection._abort()

    def _shut(self) -> None:
        self._closing = True
        self._abort_all()
        if self._listener is not None:
            self._listener.close()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        return listener
