"""Keeps keys of objects out of logs: a keyed hash in their place, by which an operator who knows a key finds it."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final

from tussis.shared.errors import SettingsInvalid

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

_URI: Final = re.compile(r"s3://([A-Za-z0-9._-]+)/(?!#[0-9a-f]{16})")
#: Hexadecimal digits of a hash.
_DIGITS: Final = 16
#: A shorter key is not searched in texts: it would be found in every word.
_SHORTEST: Final = 4
_HIDDEN: Final = "(hidden: TUSSIS_LOG_KEYS)"
#: Fields whose whole value is the URI of an object.
_URIS: Final = frozenset({"uri", "recording"})
#: Events whose reason may quote a part of a message.
_QUOTES: Final = frozenset({"dead_letter", "s3_event_unreadable"})


class KeyHider:
    """Replaces keys in the fields of log events."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def hash(self, bucket: str, key: str) -> str:
        """The hash of a key: 16 hexadecimal digits of HMAC-SHA256 of ``bucket/key``."""
        name = f"{bucket}/{key}".encode("utf-8", "replace")
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()[:_DIGITS]

    def uri(self, uri: str) -> str:
        """``s3://bucket/key`` as ``s3://bucket/#hash``."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return f"s3://{bucket}/#{self.hash(bucket, key)}"

    def text(self, text: str, uri: str | None = None) -> str:
        """A text without keys. ``uri`` is the recording that it is about.

        Nothing says where the key of another URI ends in a text, because a key may contain any character. So the rest
        of the text is left out there.
        """
        if uri is not None:
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            digest = self.hash(bucket, key)
            text = text.replace(uri, f"s3://{bucket}/#{digest}")
            for form in {key, repr(key)[1:-1]}:
                if len(form) >= _SHORTEST:
                    text = text.replace(form, f"#{digest}")
        found = _URI.search(text)
        if found is None:
            return text
        return text[: found.end()] + _HIDDEN

    def fields(self, event: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of an event without keys. The field ``uri`` is the recording of the event."""
        uri = fields.get("uri")
        uri = uri if isinstance(uri, str) and uri.startswith("s3://") else None
        return {
            name: _HIDDEN if name == "reason" and event in _QUOTES else self._value(name, value, uri)
            for name, value in fields.items()
        }

    def _value(self, name: str, value: Any, uri: str | None) -> Any:
        if isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, dict):
            return {self._value("", inner, uri): self._value("", of, uri) for inner, of in value.items()}
        if isinstance(value, list | tuple):
            return [self._value("", one, uri) for one in value]
        text = str(value)
        if name in _URIS and text.startswith("s3://"):
            return self.uri(text)
        return self.text(text, uri)


def hider_of(settings: Settings) -> KeyHider | None:
    """The hider of TUSSIS_LOG_KEYS=hash; None: keys are logged. Raises :class:`SettingsInvalid` without a secret."""
    if settings.log_keys == "plain":
        return None
    if settings.log_secret is None or len(settings.log_secret.get_secret_value()) < 16:
        raise SettingsInvalid(
            "TUSSIS_LOG_KEYS=hash needs TUSSIS_LOG_SECRET: at least 16 characters, the same for all programs"
        )
    return KeyHider(settings.log_secret.get_secret_value())
