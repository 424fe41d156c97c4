"""The URL to which webhooks are delivered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tussis.shared.errors import SettingsInvalid

#: Longest URL.
_MAX_CHARS: Final = 2000
_PORTS: Final = {"https": 443, "http": 80}
#: Characters of a path and a query that need no escaping (RFC 3986).
_TARGET: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")


@dataclass(frozen=True)
class Endpoint:
    """Where webhooks go. Its text has neither path nor query, because they may hold a secret."""

    encrypted: bool
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query."""

    @property
    def where(self) -> str:
        """Scheme, host and port, for logs and messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.encrypted else 'http'}://{host}:{self.port}"

    @property
    def fingerprint(self) -> str:
        """A short text that differs for other URLs, and does not show the URL."""
        return hashlib.sha256(f"{self.where}{self.target}".encode()).hexdigest()[:16]


def parse_endpoint(url: str) -> Endpoint:
    """Read a URL. Raises :class:`SettingsInvalid`, without path and query of the URL in its text."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
        port = parts.port
    except (ValueError, UnicodeError):
        raise _wrong("it cannot be read") from None
    if parts.scheme not in _PORTS or not host:
        raise _wrong("write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise _wrong("it must not contain a user name or password")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if len(url) > _MAX_CHARS or _TARGET.fullmatch(target) is None:
        raise _wrong(f"it is longer than {_MAX_CHARS} characters, or its path has characters that need escaping (%20)")
    return Endpoint(parts.scheme == "https", host, _PORTS[parts.scheme] if port is None else port, target)


def _wrong(reason: str) -> SettingsInvalid:
    return SettingsInvalid(f"the URL of the receiver (--url, TUSSIS_WEBHOOK_URL) is wrong: {reason}")
