"""A receiver of webhooks on 127.0.0.1 that does what a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, TypeAlias

import pytest

#: Answers one request. It may leave it without an answer.
Behaviour: TypeAlias = "Callable[[Handler], None]"


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def uri(self) -> str:
        return str(self.document["data"]["uri"])


class Handler(BaseHTTPRequestHandler):
    """Records a request, and lets the behaviour answer it."""

    protocol_version = "HTTP/1.1"
    receiver: ClassVar[Receiver]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # The sender was killed in the middle of its request.
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received = Received(self.path, headers, body, time.time())
        with self.receiver.lock:
            self.receiver.requests.append(self.received)
            self.receiver.now += 1
            self.receiver.most = max(self.receiver.most, self.receiver.now)
        try:
            with contextlib.suppress(OSError):
                self.receiver.behaviour(self)
        finally:
            with self.receiver.lock:
                self.receiver.now -= 1

    do_GET = do_POST

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Send a complete answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        return


def status(number: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Behaviour:
    """Answers every request with this status."""
    return lambda handler: handler.answer(number, headers, body)


def accept(handler: Handler) -> None:
    """Answers 204."""
    handler.answer(204)


@dataclass
class Receiver:
    """What was received, and what the answers are."""

    url: str = ""
    behaviour: Behaviour = accept
    requests: list[Received] = field(default_factory=list)
    now: int = 0
    """Requests that are being answered."""
    most: int = 0
    """The largest number of requests at the same time."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the test: a behaviour that hangs waits for it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hang(self, handler: Handler) -> None:
        """Never answers."""
        self.over.wait(600)
        handler.drop()

    @property
    def uris(self) -> list[str]:
        return [request.uri for request in list(self.requests)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """A receiver that runs."""
    receiver = Receiver()
    handler = type("BoundHandler", (Handler,), {"receiver": receiver})
    with _Server(("127.0.0.1", 0), handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.over.set()
            server.shutdown()
            thread.join(timeout=10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that accepts everything, until a test changes its behaviour."""
    with running_receiver() as found:
        yield found
