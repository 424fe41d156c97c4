"""The tokens that the gateway accepts. Only their SHA-256 is in memory."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tussis.shared.errors import SettingsInvalid

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The form of a bearer token (RFC 6750). Short ones can be guessed.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_FORM = "write NAME:TOKEN, with a token of at least 16 letters and digits, or NAME:sha256:HEX"


class Tokens:
    """Finds the name of a token. Compares all hashes in constant time."""

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        self._digests = dict(digests)

    def __len__(self) -> int:
        return len(self._digests)

    def name_of(self, token: str) -> str | None:
        """The name of a token, or None."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def tokens_of(settings: Settings) -> Tokens | None:
    """The tokens of the settings. None: requests need none (``TUSSIS_SERVE_WITHOUT_TOKENS``).

    Raises :class:`SettingsInvalid`; its text contains no token.
    """
    value, path = settings.serve_tokens, settings.serve_tokens_file
    if settings.serve_without_tokens:
        if value is not None or path is not None:
            raise SettingsInvalid("TUSSIS_SERVE_WITHOUT_TOKENS and tokens are set: unset one of them")
        if not _is_loopback(settings.serve_host):
            raise SettingsInvalid(
                f"TUSSIS_SERVE_WITHOUT_TOKENS needs a loopback address, not {settings.serve_host}: set "
                "TUSSIS_SERVE_HOST to 127.0.0.1, or set tokens"
            )
        return None
    if value is not None and path is not None:
        raise SettingsInvalid("TUSSIS_SERVE_TOKENS and TUSSIS_SERVE_TOKENS_FILE are both set: unset one of them")
    if path is not None:
        tokens = _parse(_lines(path), f"{path} (TUSSIS_SERVE_TOKENS_FILE)")
    else:
        tokens = _parse("" if value is None else value.get_secret_value(), "TUSSIS_SERVE_TOKENS")
    if not tokens:
        raise SettingsInvalid(
            "`tussis serve` has no tokens: set TUSSIS_SERVE_TOKENS or TUSSIS_SERVE_TOKENS_FILE (for trials on this "
            "machine: TUSSIS_SERVE_WITHOUT_TOKENS=true)"
        )
    return Tokens(tokens)


def _lines(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsInvalid(f"cannot read {path} (TUSSIS_SERVE_TOKENS_FILE): {reason}") from None
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _parse(text: str, where: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number, entry in enumerate(text.split(), 1):
        name, _, token = entry.partition(":")
        digest = _DIGEST.fullmatch(token)
        if not _NAME.fullmatch(name) or not (digest or _TOKEN.fullmatch(token)):
            raise SettingsInvalid(f"entry {number} of {where} is wrong: {_FORM}")
        if name in found:
            raise SettingsInvalid(f"{where} has the name {name} twice: give each token a name of its own")
        found[name] = bytes.fromhex(digest[1]) if digest else hashlib.sha256(token.encode()).digest()
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
