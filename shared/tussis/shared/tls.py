"""TLS for connections to servers: what an error of OpenSSL means, and whether the files of a setting can be used."""

from __future__ import annotations

import os
import ssl
from typing import Final

from tussis.shared.errors import SettingsInvalid

#: Parts of OpenSSL's, Python's and libpq's messages, in lower case, with the reason and the remedy. ``{ca}`` and
#: ``{certificate}`` are the settings for the CA and for the client's certificate.
_REASONS: Final = (
    (("has expired",), "its certificate has expired: renew it"),
    (("is not yet valid",), "its certificate is not valid yet: check the clocks of both machines"),
    (
        ("hostname mismatch", "ip address mismatch", "doesn't match", "does not match host name"),
        "its certificate is for another host name: use a name that the certificate has",
    ),
    (
        ("certificate required", "certificate_required", "handshake failure", "alert unknown ca", "bad certificate"),
        "it accepts only clients with a certificate that it knows: set {certificate}",
    ),
    (
        ("self-signed", "self signed", "local issuer", "certificate verify failed", "certificate_verify_failed"),
        "its certificate is not signed by a known CA: set {ca} to the file with the CA's certificate",
    ),
    (
        ("wrong version number", "wrong_version_number", "record layer failure", "unexpected_eof", "eof occurred"),
        "it does not speak TLS on this port: check the address",
    ),
)


def tls_reason(text: str, *, ca: str, certificate: str) -> str | None:
    """Why a TLS connection failed and what to do, from the text of the error. None if the text is not about TLS."""
    lowered = text.lower()
    for parts, reason in _REASONS:
        if any(part in lowered for part in parts):
            return reason.format(ca=ca, certificate=certificate)
    return "the TLS handshake failed: check the address and the certificates" if "ssl" in lowered else None


def check_files(
    where: str,
    *,
    ca: str | None = None,
    ca_folder: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    password: str | None = None,
) -> None:
    """Check that the files of TLS can be read and used. ``where`` names the setting in errors.

    Raises :class:`SettingsInvalid`.
    """
    for path in (ca, ca_folder, certificate, key):
        if path is not None and not os.access(path, os.R_OK):
            raise SettingsInvalid(f"{where} names a file that cannot be read: {path}")
    if key is not None and certificate is None:
        raise SettingsInvalid(f"{where} names the key {key} and no certificate: name both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (ssl.SSLError, OSError) as error:
            raise SettingsInvalid(f"{where}: {ca} has no certificate in PEM format ({_line(error)})") from None
    if certificate is not None:
        try:
            # With None, OpenSSL would ask for the password of an encrypted key on the terminal.
            context.load_cert_chain(certificate, key, password or "")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise SettingsInvalid(
                f"{where}: {certificate} and {key or 'the key in it'} are no certificate with its key in PEM format, "
                f"or the key is encrypted ({_line(error)})"
            ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
