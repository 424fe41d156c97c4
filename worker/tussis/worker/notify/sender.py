"""Sends one webhook over HTTP, within time limits, to an address that is allowed.

It uses ``http.client`` of the standard library. urllib3 follows neither redirects unless asked, but its time limits are
per read: an answer of one byte every few seconds never ends. Here every request has one deadline.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

from tussis.worker.notify.addresses import AddressPolicy, LookupFailed, Resolver, SocketAddress
from tussis.worker.notify.endpoint import Endpoint

#: Most bytes of the body of an answer that are read, to use the connection again. The body has no meaning.
MAX_ANSWER_BYTES: Final = 16_384
#: Longest wait for that body, seconds.
_BODY_S: Final = 1.0
#: Addresses of the host that are tried within one request.
_MAX_ADDRESSES: Final = 4
#: Seconds for which a connection is used again: after that the host name is looked up again.
_REUSE_S: Final = 60.0


@dataclass(frozen=True)
class TimeLimits:
    """Time limits of one request, seconds: for the connection with its TLS handshake, and then for the answer."""

    connect_s: float = 10.0
    answer_s: float = 15.0


@dataclass(frozen=True)
class ReceiverAnswer:
    """The answer of a receiver."""

    status: int
    retry_after_s: float | None = None
    """Seconds of the header Retry-After, at least 0."""


class NotDelivered(Exception):
    """The receiver did not answer, or was not asked. The text is the reason, without path and query of the URL."""


class Sender:
    """Sends webhooks to one endpoint, one after the other. Each thread has its own."""

    def __init__(
        self,
        endpoint: Endpoint,
        resolver: Resolver,
        policy: AddressPolicy,
        limits: TimeLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._endpoint = endpoint
        self._resolver = resolver
        self._policy = policy
        self._limits = limits
        self._tls = tls
        self._connection: _Connection | None = None

    def post(self, body: bytes, headers: dict[str, str]) -> ReceiverAnswer:
        """Send one request. No redirect is followed. Raises :class:`NotDelivered`."""
        kept = self._connection
        if kept is not None and kept.usable:
            try:
                return self._exchange(kept, body, headers)
            except NotDelivered:
                if kept.answering:
                    raise
                # The receiver had closed the connection that was kept. A new one decides.
        self.close()
        return self._exchange(self._connect(), body, headers)

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None

    def _connect(self) -> _Connection:
        ends = time.monotonic() + self._limits.connect_s
        try:
            found = self._resolver.addresses(self._limits.connect_s)
        except LookupFailed as error:
            raise NotDelivered(str(error)) from None
        problem = "no address"
        for address in found[:_MAX_ADDRESSES]:
            refusal = self._policy.refusal(address.host, encrypted=self._endpoint.encrypted)
            if refusal is not None:
                problem = refusal
                continue
            try:
                self._connection = self._connect_to(address, ends)
                return self._connection
            except (OSError, ssl.SSLError) as error:
                problem = f"no connection to {address.host}: {_text(error)}"
        raise NotDelivered(problem)

    def _connect_to(self, address: SocketAddress, ends: float) -> _Connection:
        """Connect to an address that is allowed. The socket uses this address: no second look-up can change it."""
        raw = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            raw.settimeout(_left(ends))
            raw.connect(address.sockaddr)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the body follows the headers at once
            if self._tls is not None:
                raw = self._tls.wrap_socket(raw, server_hostname=self._endpoint.host)
        except BaseException:
            raw.close()
            raise
        return _Connection(self._endpoint, raw)

    def _exchange(self, connection: _Connection, body: bytes, headers: dict[str, str]) -> ReceiverAnswer:
        try:
            response = connection.exchange(self._endpoint.target, body, headers, self._limits.answer_s)
        except (OSError, ssl.SSLError, http.client.HTTPException) as error:
            self.close()
            raise NotDelivered(f"no answer: {_text(error)}") from None
        answer = ReceiverAnswer(response.status, _retry_after(response.getheader("Retry-After")))
        if not connection.finish(response):
            self.close()
        return answer


class _Connection(http.client.HTTPConnection):
    """A connection that is made already. Each exchange has a deadline, whatever the receiver sends."""

    def __init__(self, endpoint: Endpoint, raw: socket.socket) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.auto_open = 0
        self.default_port = 443 if endpoint.encrypted else 80  # the port is left out of the header Host
        self._timed = _TimedSocket(raw)
        self._made_at = time.monotonic()
        self.answering = False
        """Whether the receiver has answered the present request, or the deadline is over."""

    @property
    def usable(self) -> bool:
        return time.monotonic() < self._made_at + _REUSE_S

    def exchange(self, target: str, body: bytes, headers: dict[str, str], answer_s: float) -> http.client.HTTPResponse:
        """Send a request and read the head of its answer."""
        self.sock = self._timed
        self.answering = False
        self._timed.ends = time.monotonic() + answer_s
        try:
            self.request("POST", target, body, headers)
            response = self.getresponse()
        except TimeoutError:
            self.answering = True
            raise TimeoutError(f"it took longer than {answer_s:g} s") from None
        self.answering = True
        return response

    def finish(self, response: http.client.HTTPResponse) -> bool:
        """Read the body of the answer, a bounded part of it. Whether the connection can be used again."""
        self._timed.ends = min(self._timed.ends, time.monotonic() + _BODY_S)
        try:
            response.read(MAX_ANSWER_BYTES)
            return not response.will_close and response.isclosed()
        except (OSError, ssl.SSLError, http.client.HTTPException, ValueError):
            return False

    def end(self) -> None:
        """Close the connection. ``close`` is called by ``http.client`` too, before the body of an answer is read."""
        self.close()
        self._timed.end()


class _TimedSocket:
    """The part of a socket that ``http.client`` uses, with a deadline over all its calls."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.ends = 0.0
        """The deadline, by the monotonic clock."""

    def sendall(self, data: Any) -> None:
        self._raw.settimeout(_left(self.ends))
        self._raw.sendall(data)

    def receive_into(self, buffer: Any) -> int:
        self._raw.settimeout(_left(self.ends))
        return self._raw.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self))

    def close(self) -> None:
        """Nothing: ``http.client`` closes before it has read the body, if the receiver will close."""

    def end(self) -> None:
        self._raw.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, timed: _TimedSocket) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed.receive_into(buffer)


def _left(ends: float) -> float:
    """Seconds until the deadline. Raises TimeoutError."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _retry_after(text: str | None) -> float | None:
    """The seconds of a header Retry-After: a number, or a date of HTTP. None for another text."""
    if text is None:
        return None
    if text.strip().isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _text(error: Exception) -> str:
    """The error on one line, of bounded length: a receiver may send anything."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.RemoteDisconnected):
        return f"it is not HTTP ({type(error).__name__})"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
