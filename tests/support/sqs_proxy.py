"""A proxy in front of an SQS server that keeps the requests of one action, so that a test can kill their sender."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class SqsProxy:
    """Forwards 127.0.0.1:port to the server at ``url``, for the duration of a ``with`` block.

    ``kept``: the action, such as ``DeleteMessageBatch``, whose requests are neither forwarded nor answered. ``arrived``
    is set when one comes.
    """

    def __init__(self, url: str) -> None:
        self.kept: str | None = None
        self.arrived = threading.Event()
        self._target = urlsplit(url).netloc
        self._closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if self.kept is not None and handler.headers.get("X-Amz-Target", "").endswith(f".{self.kept}"):
            self.arrived.set()
            self._closing.wait()
            return
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            connection.request("POST", handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        try:
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:  # the sender was killed
            handler.close_connection = True
