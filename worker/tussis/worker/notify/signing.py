"""Signatures of webhooks, as the Standard Webhooks specification defines them (standardwebhooks.com).

A signature is the HMAC-SHA256 of ``id.timestamp.body``. Three lines of the standard library compute it, so that the
package ``standardwebhooks`` is not needed: its larger part verifies, which is the receiver's side.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tussis.shared.errors import SettingsInvalid

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

_PREFIX: Final = "whsec_"
#: Lengths of a key that the specification allows, bytes.
_KEY_BYTES: Final = (24, 64)
#: The largest number of secrets: during a rotation there are two.
_MAX_SECRETS: Final = 5
#: Longest file of secrets that is read, bytes.
_MAX_FILE: Final = 4096


class Signer:
    """Signs webhooks with one or more secrets. Its representation does not show them."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys

    def headers(self, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The three headers of one request. ``timestamp``: the time of the request, seconds since the epoch."""
        signed = f"{webhook_id}.{timestamp}.".encode() + body
        signatures = (hmac.digest(key, signed, hashlib.sha256) for key in self._keys)
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures),
        }


def signer_of(settings: Settings) -> Signer:
    """The signer with the secrets of the settings. Raises :class:`SettingsInvalid`, without a secret in its text."""
    text, path = settings.webhook_secret, settings.webhook_secret_file
    if text is not None and path is not None:
        raise SettingsInvalid("TUSSIS_WEBHOOK_SECRET and TUSSIS_WEBHOOK_SECRET_FILE are both set: set one of them")
    if path is not None:
        return _signer(_read(path), f"the file of TUSSIS_WEBHOOK_SECRET_FILE ({path})")
    if text is None:
        raise SettingsInvalid(
            "neither TUSSIS_WEBHOOK_SECRET nor TUSSIS_WEBHOOK_SECRET_FILE is set: make a secret with "
            f"`openssl rand -base64 32` and write {_PREFIX} before it"
        )
    return _signer(text.get_secret_value(), "TUSSIS_WEBHOOK_SECRET")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsInvalid(f"cannot read the file of TUSSIS_WEBHOOK_SECRET_FILE ({path}): {reason}") from None


def _signer(text: str, source: str) -> Signer:
    secrets = text.split()
    if not secrets or len(secrets) > _MAX_SECRETS:
        raise SettingsInvalid(f"{source} has {len(secrets)} secrets: write 1 to {_MAX_SECRETS}")
    return Signer(tuple(_key(secret, f"secret {number} in {source}") for number, secret in enumerate(secrets, 1)))


def _key(secret: str, which: str) -> bytes:
    least, most = _KEY_BYTES
    if not secret.startswith(_PREFIX):
        raise SettingsInvalid(f"{which} does not begin with {_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SettingsInvalid(f"{which} is not base64 after {_PREFIX}") from None
    if not least <= len(key) <= most:
        raise SettingsInvalid(f"{which} has {len(key)} bytes: {least} to {most} are allowed")
    return key
