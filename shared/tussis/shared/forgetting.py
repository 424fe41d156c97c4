"""What `tussis forget` erases, and how a recording is found in the documents that the broker and the store hold."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tussis.shared.errors import InvalidJob
from tussis.shared.recommended_metadata import SUBJECT
from tussis.shared.uris import parse_s3_prefix, parse_s3_uri, shown

#: Characters of a subject, which may be longer than the producer accepts: a worker stores any metadata.
_MAX_SUBJECT: Final = 65_536
#: Documents inside the texts of a document: the body of a webhook, the message in an envelope.
_NESTING: Final = 6


class TargetKind(StrEnum):
    """What a tombstone names."""

    OBJECT = "object"
    PREFIX = "prefix"
    SUBJECT = "subject"


@dataclass(frozen=True)
class Target:
    """One recording (``bucket/key``), all under a prefix (``bucket/start-of-key``), or all of a person."""

    kind: TargetKind
    name: str

    @property
    def length(self) -> int | None:
        """Characters of a prefix. The check cuts a key to this length."""
        return len(self.name) if self.kind is TargetKind.PREFIX else None

    @property
    def bucket(self) -> str:
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """The key of the object, or the start of the keys."""
        return self.name.partition("/")[2]

    def names(self, recording: Named) -> bool:
        """Whether it names this recording."""
        match self.kind:
            case TargetKind.OBJECT:
                return recording.name == self.name
            case TargetKind.PREFIX:
                return recording.name is not None and recording.name.startswith(self.name)
            case TargetKind.SUBJECT:
                return recording.subject == self.name


@dataclass(frozen=True)
class Named:
    """A recording that a document names. ``bucket`` and ``key`` are None if it has only a subject."""

    bucket: str | None
    key: str | None
    subject: str | None = None

    @property
    def name(self) -> str | None:
        return None if self.bucket is None or self.key is None else f"{self.bucket}/{self.key}"


def object_target(uri: str) -> Target:
    """``s3://bucket/key``. Raises :class:`InvalidUri`."""
    address = parse_s3_uri(uri)
    return Target(TargetKind.OBJECT, f"{address.bucket}/{address.key}")


def prefix_target(uri: str) -> Target:
    """``s3://bucket/prefix``; ``s3://bucket`` is the whole bucket. Raises :class:`InvalidUri`."""
    address = parse_s3_prefix(uri)
    return Target(TargetKind.PREFIX, f"{address.bucket}/{address.key}")


def subject_target(subject: str) -> Target:
    """The value of the metadata ``subject``. Raises :class:`InvalidJob`."""
    if not 1 <= len(subject) <= _MAX_SUBJECT or "\0" in subject:
        raise InvalidJob(f"not a subject: {shown(subject)}")
    return Target(TargetKind.SUBJECT, subject)


def named_in(value: object, nesting: int = _NESTING) -> Iterator[Named]:
    """The recordings that a decoded document names, at any depth: messages, URIs, and documents inside its texts."""
    if isinstance(value, dict):
        yield from _of_object(value)
        for inner in value.values():
            yield from named_in(inner, nesting)
    elif isinstance(value, list):
        for inner in value:
            yield from named_in(inner, nesting)
    elif isinstance(value, str):
        if value.startswith("s3://"):
            bucket, _, key = value.removeprefix("s3://").partition("/")
            yield Named(bucket, key)
        elif nesting and (inner := _document(value)) is not None:
            yield from named_in(inner, nesting - 1)


def named_in_text(text: str | bytes) -> list[Named]:
    """The recordings that a JSON text names. A text that is not JSON names none."""
    try:
        return list(named_in(json.loads(text)))
    except (ValueError, RecursionError):
        return []


def mentions(text: str, target: Target) -> bool:
    """Whether a text contains the key, the start of the keys, or the subject of a target.

    For a message that names no recording in a readable form: it is cut, damaged, or has no bucket.
    """
    part = target.name if target.kind is TargetKind.SUBJECT else target.key
    return bool(part) and any(form in text for form in (part, json.dumps(part)[1:-1]))


def subject_of(metadata: object) -> str | None:
    """The person in a recording's metadata; None if it has none."""
    subject = metadata.get(SUBJECT) if isinstance(metadata, dict) else None
    return str(subject) if isinstance(subject, str | int | float) else None


def _of_object(value: dict[str, Any]) -> Iterator[Named]:
    bucket, key, subject = value.get("bucket"), value.get("key"), subject_of(value.get("metadata"))
    addressed = isinstance(bucket, str) and isinstance(key, str)
    if addressed or subject is not None:
        yield Named(bucket if addressed else None, key if addressed else None, subject)


def _document(text: str) -> object:
    """The JSON document in a text, also one in Base64, as in an envelope. None: there is none."""
    if text[:1] not in ("{", "["):
        if len(text) < 16 or len(text) % 4:
            return None
        try:
            text = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError):
            return None
        if text[:1] not in ("{", "["):
            return None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found
