"""The server's end of a child's connection."""

from __future__ import annotations

import socket
import threading

from tussis.worker import logs
from tussis.worker.device import wire
from tussis.worker.device.wire import Garbled, Gone, Reply, ReplyKind, ScoreRequest

_log = logs.get("device")


class ChildConnection:
    """One child's connection. One thread reads requests; another sends replies and never waits for the child."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes ownership of ``connection``. Raises OSError when there are no free file descriptors."""
        self._incoming = connection
        # Python's timeout belongs to the socket object: the reader waits on one object, and the other never waits.
        self._outgoing = connection.dup()
        self._outgoing.setblocking(False)
        # Held during a reply and during closing, which do not wait. Without it a reply could go to another child
        # whose connection reuses the file descriptor that is closed here.
        self._lock = threading.Lock()
        self._pending: int | None = None

    def read(self) -> ScoreRequest:
        """The next request. Raises :class:`Gone`; :class:`Garbled`, also when the last one has no final reply yet."""
        request = wire.receive_request(self._incoming)
        with self._lock:
            if self._pending is not None:
                raise Garbled("received a second request before the reply to the first")
            self._pending = request.id
        return request

    def reply(self, request: ScoreRequest, kind: ReplyKind, payload: bytes = b"") -> None:
        """Send a reply without waiting. When that fails, the connection is shut down and its reader ends."""
        with self._lock:
            if kind is not ReplyKind.BEGUN:
                # Before the reply is sent: the child may send its next request at once.
                self._pending = None
            try:
                wire.send_reply(self._outgoing, Reply(request.id, kind, payload))
            except Gone as error:
                _log.info("child_connection_lost", reason=str(error))
                self._shut()

    def close(self) -> None:
        """Close the connection. Only the reader's thread may call it."""
        with self._lock:
            self._shut()
            self._incoming.close()
            self._outgoing.close()

    def _shut(self) -> None:
        try:
            self._outgoing.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is down already
