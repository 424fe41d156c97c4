"""A store that sends the answers that a test prepares: missing headers, wrong bytes, bodies in chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings


@dataclass(frozen=True)
class Answer:
    """One answer. ``chunked`` sends the body in chunks, without Content-Length; ``etag`` None leaves the header out."""

    body: bytes = b""
    etag: str | None = '"9b2c"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length, when it differs from the length of the body."""
    chunked: bool = False
    ends_early: bool = False
    """The connection ends before the last chunk."""


@dataclass
class OddStore:
    """The store. ``answers`` are by method, or by method and path. The last answer of a list is used again."""

    url: str = ""
    client: Any = None
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers (lower case) of every request."""

    def answer(self, method: str, path: str) -> Answer:
        """Return the answer for the next request."""
        prepared = self.answers.get(f"{method} {path}") or self.answers[method]
        return prepared.pop(0) if len(prepared) > 1 else prepared[0]


@pytest.fixture
def odd_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddStore]:
    """A store without answers, and a client for it as Tussis makes it."""
    store = OddStore()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            store.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
            answer = store.answer(self.command, path)
            self.send_response_only(answer.status)
            headers = {"Content-Type": "audio/wav", "x-amz-request-id": "1"} | answer.headers
            if answer.etag is not None:
                headers["ETag"] = answer.etag
            if answer.chunked:
                headers["Transfer-Encoding"] = "chunked"
            else:
                headers["Content-Length"] = str(len(answer.body) if answer.length is None else answer.length)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if not answer.chunked:
                self.wfile.write(answer.body)
                return
            for start in range(0, len(answer.body), 8192):
                part = answer.body[start : start + 8192]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            if answer.ends_early:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        do_HEAD = do_GET

        def handle_one_request(self) -> None:
            """Ignore a client that closes the connection."""
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        store.url = f"http://127.0.0.1:{server.server_port}"
        store.client = s3_client(load_settings(s3_endpoint_url=store.url))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield store
        store.client.close()
        server.shutdown()
        thread.join()
