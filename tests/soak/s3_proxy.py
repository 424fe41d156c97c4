"""A proxy in front of the S3 store that injects faults into downloads: 503, 403, slow, cut, hung."""

from __future__ import annotations

import http.client
import math
import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class S3Fault(StrEnum):
    """The fault of one request."""

    UNAVAILABLE = "unavailable"
    """503 SlowDown."""
    DENIED = "denied"
    """403 AccessDenied."""
    EXPIRED = "expired"
    """403 ExpiredToken."""
    SIGNATURE = "signature"
    """403 SignatureDoesNotMatch, as for a key that a gateway rewrites."""
    ELSEWHERE = "elsewhere"
    """301 PermanentRedirect: the bucket is in another region."""
    CUT = "cut"
    """Half of the body, then the connection ends."""
    SHORT = "short"
    """Half of the body with a matching Content-Length: nothing in the answer shows that it is cut."""
    SLOW = "slow"
    """Half of the body, then nothing for the proxy's ``slow_s`` seconds."""
    TRICKLE = "trickle"
    """The whole body, in pieces at equal intervals over the proxy's ``slow_s`` seconds."""


_REFUSALS = {
    S3Fault.UNAVAILABLE: (503, "SlowDown"),
    S3Fault.DENIED: (403, "AccessDenied"),
    S3Fault.EXPIRED: (403, "ExpiredToken"),
    S3Fault.SIGNATURE: (403, "SignatureDoesNotMatch"),
    S3Fault.ELSEWHERE: (301, "PermanentRedirect"),
}

#: Returns the fault of one request: from method, path, and the number of earlier requests for this path.
Plan = Callable[[str, str, int], S3Fault | None]


class S3Proxy:
    """Forwards 127.0.0.1:port to the store at ``endpoint_url``, for the duration of a ``with`` block.

    ``plan`` may be replaced at any time. It is called from several threads.
    """

    def __init__(self, endpoint_url: str, plan: Plan = lambda method, path, count: None, slow_s: float = 30.0) -> None:
        target = urlsplit(endpoint_url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self.plan = plan
        self.slow_s = slow_s
        self.requests: Counter[str] = Counter()
        """Requests so far, by path."""
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        proxy: S3Proxy = self

        class Handler(_Handler):
            s3_proxy = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="s3-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The endpoint to use in place of the store's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault_for(self, method: str, path: str) -> S3Fault | None:
        """Count the request and return the plan's fault for it."""
        with self._lock:
            count = self.requests[path]
            self.requests[path] += 1
        return self.plan(method, path, count)

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the store's status, headers and body. The signed ``Host`` header is sent unchanged."""
        connection = http.client.HTTPConnection(*self._target, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def wait_slow(self) -> None:
        """Wait for ``slow_s`` seconds, or until the proxy ends."""
        self.wait(self.slow_s)

    def wait(self, seconds: float) -> bool:
        """Wait, and return whether the proxy ended in the meantime."""
        return self._over.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    s3_proxy: S3Proxy
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.s3_proxy.fault_for(self.command, self.path)
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
            self._answer(status, {"Content-Type": "application/xml"}, text)
            return
        status, headers, data = self.s3_proxy.forward(self.command, self.path, dict(self.headers.items()), body)
        if fault is None:
            self._answer(status, headers, data)
            return
        if fault is S3Fault.TRICKLE:
            self._answer(status, headers, b"", promised=len(data))
            self._trickle(data)
            return
        if fault is S3Fault.SHORT:
            self._answer(status, headers, data[: len(data) // 2])
            return
        self._answer(status, headers, data[: len(data) // 2], promised=len(data))
        if fault is S3Fault.SLOW:
            self.s3_proxy.wait_slow()
        self.close_connection = True

    def _trickle(self, data: bytes) -> None:
        pieces = 2 * math.ceil(self.s3_proxy.slow_s)
        size = math.ceil(len(data) / pieces)
        for start in range(0, len(data), size):
            if self.s3_proxy.wait(self.s3_proxy.slow_s / pieces):
                break
            self.wfile.write(data[start : start + size])
            self.wfile.flush()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, promised: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        # A response to HEAD has no body, but has the Content-Length of the object.
        told = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", told or str(len(data) if promised is None else promised))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.wfile.flush()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def handle_one_request(self) -> None:
        """Ignore a client that closes the connection or times out."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
