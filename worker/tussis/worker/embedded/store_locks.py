"""What closes the inner servers of SeaweedFS: only its S3 server answers to others.

SeaweedFS is several servers in one process: master, volume server, filer, S3. Without settings, the inner ones answer
everyone who reaches their ports: the filer lists, reads and deletes every object, the master deletes buckets.

* HTTP of filer and volume server: every read and write needs a token that is signed with a key. The S3 server signs its
  own requests.
* gRPC of all servers, HTTP of the master: only clients with a certificate of our CA (mutual TLS).

Keys and certificates are new at every start. Nothing but the store itself and its health check uses them.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tussis.worker.embedded.ports import LOOPBACK

# Relative: SeaweedFS runs in the folder, and the path of the folder may contain any character.
_CA: Final = "ca.pem"
_CERTIFICATE: Final = "certificate.pem"
_KEY: Final = "certificate.key"
#: A deployment of ``tussis up`` may run for years without a restart.
_DAYS: Final = 3650
#: ``security.toml`` of SeaweedFS 4.48 has a section for each.
_GRPC: Final = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "MQ", "MSG_BROKER", "MSG_AGENT", "CLIENT")
#: The tokens for HTTP: to write to volumes and read from them, and the same for the filer.
_SIGNING: Final = ("JWT_SIGNING", "JWT_SIGNING_READ", "JWT_FILER_SIGNING", "JWT_FILER_SIGNING_READ")


def lock_up(home: Path) -> Mapping[str, str]:
    """Write new certificates into the store's folder; return the variables that replace its ``security.toml``.

    Raises OSError.
    """
    _write_certificates(home)
    variables = {f"WEED_{name}_KEY": secrets.token_hex(32) for name in _SIGNING}
    variables["WEED_GRPC_CA"] = variables["WEED_HTTPS_MASTER_CA"] = _CA
    for section in (*(f"GRPC_{name}" for name in _GRPC), "HTTPS_MASTER"):
        variables |= {f"WEED_{section}_CERT": _CERTIFICATE, f"WEED_{section}_KEY": _KEY}
    return variables


def client_context(home: Path) -> ssl.SSLContext:
    """The TLS of a client that the master accepts. Raises OSError: the certificates are not there."""
    context = ssl.create_default_context(cafile=str(home / _CA))
    context.load_cert_chain(home / _CERTIFICATE, home / _KEY)
    return context


def _write_certificates(home: Path) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # The key of the CA is not kept: no other certificate can be made.
    ca = _certificate("tussis store CA", "tussis store CA", ca_key, ca_key)
    own = _certificate("tussis store", "tussis store CA", key, ca_key)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, data in ((_CA, ca.public_bytes(pem)), (_CERTIFICATE, own.public_bytes(pem)), (_KEY, private)):
        (home / name).unlink(missing_ok=True)
        with open(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)


def _certificate(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    authority = key is signer
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    return builder.sign(signer, hashes.SHA256())
