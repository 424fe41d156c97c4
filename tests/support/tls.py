"""TLS for tests: certificates, and a proxy that ends TLS in front of a server without it.

The wheels of Valkey and PostgreSQL are built without OpenSSL. The proxy keeps what it receives after a handshake, so
that a test sees what a client sent to a server that it should not trust.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
import trustme

#: The kinds of certificates that a client has to refuse, and a part of the message that says why.
UNTRUSTED: Final = {
    "self_signed": "not signed by a known CA",
    "other_host": "for another host name",
    "expired": "has expired",
}
_HOSTS: Final = ("localhost", "127.0.0.1")
#: PostgreSQL's request for TLS: its length, and a number.
_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.1
_CHUNK: Final = 65_536
#: Bytes of each read that a proxy keeps for the test.
_KEPT: Final = 4096


@dataclass(frozen=True)
class Certificates:
    """A CA, and certificates with their keys in the same file."""

    ca: Path
    server: Path
    """For localhost and 127.0.0.1."""
    client: Path
    self_signed: Path
    other_host: Path
    expired: Path

    def named(self, name: str) -> Path:
        """The file of a certificate by the name of its field."""
        path: Path = getattr(self, name)
        return path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of one CA, and one that signed itself."""
    folder = tmp_path_factory.mktemp("certificates")
    ca, itself = trustme.CA(), trustme.CA()

    def file(name: str, *parts: trustme.Blob) -> Path:
        path = folder / f"{name}.pem"
        path.write_bytes(b"".join(part.bytes() for part in parts))
        path.chmod(0o600)
        return path

    def issue(name: str, *hosts: str, not_after: datetime | None = None) -> Path:
        return file(name, ca.issue_cert(*hosts, not_after=not_after).private_key_and_cert_chain_pem)

    return Certificates(
        ca=file("ca", ca.cert_pem),
        server=issue("server", *_HOSTS),
        client=issue("client", *_HOSTS),
        self_signed=file("self_signed", itself.private_key_pem, itself.cert_pem),
        other_host=issue("other_host", "elsewhere.example"),
        expired=issue("expired", *_HOSTS, not_after=datetime.now(UTC) - timedelta(days=1)),
    )


class TlsProxy:
    """Ends TLS on 127.0.0.1:`port` and forwards to a server on 127.0.0.1, for the duration of a ``with`` block.

    Args:
        target: the server's port.
        certificate: a file with the proxy's certificate and key.
        client_ca: clients must show a certificate of this CA. None: they need none.
        postgres: the client sends PostgreSQL's request for TLS first.
    """

    def __init__(
        self, target: int, certificate: Path, *, client_ca: Path | None = None, postgres: bool = False
    ) -> None:
        self._target = target
        self._postgres = postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self.received = b""
        """The first bytes of what each read of a client's data had, decrypted; also without TLS."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen, name="tls-proxy", daemon=True)]
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for thread in tuple(self._threads):
            thread.join(_PATIENCE_S)
        self._listener.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            if select.select([self._listener], [], [], _POLL_S)[0]:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_PATIENCE_S)
        with client, contextlib.suppress(OSError):
            if self._postgres:
                first = client.recv(len(_SSL_REQUEST), socket.MSG_WAITALL)
                if first != _SSL_REQUEST:  # a client that does not ask for TLS
                    self.received += first
                    return
                client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", self._target), _PATIENCE_S) as server,
            ):
                self._forward(inside, server)

    def _forward(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Pass on what either side sends, until one closes. One thread: a TLS connection is not safe for two."""
        while not self._closing.is_set():
            ready = [client] if client.pending() else select.select([client, server], [], [], _POLL_S)[0]
            for source in ready:
                data = source.recv(_CHUNK)
                if not data:
                    return
                if source is client:
                    self.received += data[:_KEPT]
                (server if source is client else client).sendall(data)
