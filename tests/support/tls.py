"""TLS for tests: certificates, and a proxy that ends TLS in front of a server without it.

The wheels of Valkey and PostgreSQL are built without OpenSSL. The proxy keeps what it receives after a handshake, so
that a test sees what a client sent to a server that it should not trust.
"""

from __future__ import annotations

import contextlib
import ipaddress
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: The kinds of certificates that a client has to refuse, and a part of the message that says why.
UNTRUSTED: Final = {
    "self_signed": "not signed by a known CA",
    "other_host": "for another host name",
    "expired": "has expired",
}
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
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("Test CA", ca_key, ca_key, "Test CA", authority=True)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))

    def issue(name: str, *, host: str = "localhost", days: int = 2, own: bool = False) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        signer, issuer = (key, name) if own else (ca_key, "Test CA")
        made = _certificate(name, key, signer, issuer, host=host, days=days)
        path = folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        path.chmod(0o600)
        return path

    return Certificates(
        ca=folder / "ca.pem",
        server=issue("server"),
        client=issue("client"),
        self_signed=issue("self_signed", own=True),
        other_host=issue("other_host", host="elsewhere.example"),
        expired=issue("expired", days=-1),
    )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    authority: bool = False,
    host: str = "localhost",
    days: int = 2,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    if host == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    if authority:
        # Python 3.13 requires the extension of a CA.
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
    else:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(signer, hashes.SHA256())


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
