"""Notifications of object stores: the objects that were created, from the body of a message or of an HTTP request.

The shapes (``docs/s3-events.md``): S3's records, also with the names of MinIO and Ceph; EventBridge's `Object Created`;
the webhook of the filer of SeaweedFS. Each can be wrapped by SNS, or be JSON in a JSON string. Keys are URL-encoded in
records only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

from tussis.shared.errors import S3EventUnreadable
from tussis.shared.filer_events import Entry, is_filer_event, read_filer_event
from tussis.shared.messages import normalise_etag
from tussis.shared.uris import ObjectAddress, shown

#: JSON in strings in JSON: SNS, a queue and a store add one each.
_MOST_LAYERS: Final = 5
#: The end of the source of records about objects: aws:s3, minio:s3, ceph:s3.
_S3: Final = ":s3"
_EVENTBRIDGE_S3: Final = "aws.s3"

_Item = TypeVar("_Item")


class Reason(StrEnum):
    """Why an event is not about a recording to analyse."""

    TEST = "test_event"
    """The store tested the notification."""
    DELETED = "deleted"
    FOLDER = "folder"
    EMPTY = "empty"
    """The object has no bytes."""
    UNCHANGED = "unchanged"
    """The store changed something else than the content."""
    INTERNAL = "internal"
    """An entry of the store that is not an object, for instance a part of an upload."""
    OTHER = "other_event"
    """Another event of an object store."""
    FOREIGN = "foreign_event"
    """The event of another service."""
    FILTERED = "filtered"
    """The filters of the receiver do not accept the object."""


@dataclass(frozen=True)
class CreatedObject:
    """An object that was created or overwritten. ``etag`` has no quotes. None: the notification does not tell it.

    ``size`` is in bytes. ``sequencer`` orders the events of one key: see :func:`in_order`.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None
    sequencer: str | None = None

    @property
    def uri(self) -> str:
        return ObjectAddress(self.bucket, self.key).uri


@dataclass(frozen=True)
class LeftOut:
    """An event that creates no job. ``what`` is a URI, or the name of the event."""

    reason: Reason
    what: str


@dataclass(frozen=True)
class Notification:
    """What a body says, in its order."""

    created: tuple[CreatedObject, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class ObjectFilter:
    """Which objects a receiver accepts: any of the buckets, of the prefixes and of the suffixes. Empty: all."""

    buckets: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    def accepts(self, found: CreatedObject) -> bool:
        """Whether the object is accepted."""
        return (
            (not self.buckets or found.bucket in self.buckets)
            and (not self.prefixes or found.key.startswith(self.prefixes))
            and (not self.suffixes or found.key.endswith(self.suffixes))
        )

    def apply(self, told: Notification) -> Notification:
        """The notification, with the objects that are not accepted among the events that are left out."""
        refused = [LeftOut(Reason.FILTERED, found.uri) for found in told.created if not self.accepts(found)]
        return Notification(tuple(filter(self.accepts, told.created)), (*told.left_out, *refused))


def parse(body: bytes | str) -> Notification:
    """Read the body of a notification. Raises :class:`S3EventUnreadable` if it has none of the shapes."""
    created: list[CreatedObject] = []
    left_out: list[LeftOut] = []
    for found in _events(_decoded(body), _MOST_LAYERS):
        if isinstance(found, LeftOut):
            left_out.append(found)
        elif found.key.endswith("/") and not found.size:
            left_out.append(LeftOut(Reason.FOLDER, found.uri))
        elif found.size == 0:
            left_out.append(LeftOut(Reason.EMPTY, found.uri))
        else:
            created.append(found)
    return Notification(tuple(created), tuple(left_out))


def in_order(items: Sequence[_Item], created: Callable[[_Item], CreatedObject]) -> list[_Item]:
    """The items, those of one key in the order of their sequencers. Keys keep their places.

    A sequencer is a hexadecimal number of any length, compared as text that is padded with zeros on its left (S3 user
    guide, "Event message structure"). A key with an event without one keeps its order.
    """
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        found = created(item)
        places[found.bucket, found.key].append(place)
    ordered = list(items)
    for group in places.values():
        sequencers = {place: created(items[place]).sequencer for place in group}
        known = {place: sequencer for place, sequencer in sequencers.items() if sequencer is not None}
        if len(known) < len(group):
            continue
        width = max(map(len, known.values()))
        sources = sorted(group, key=lambda place: known[place].lower().rjust(width, "0"))
        for place, source in zip(group, sources, strict=True):
            ordered[place] = items[source]
    return ordered


def _decoded(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        unit = "bytes" if isinstance(text, bytes) else "characters"
        raise S3EventUnreadable(f"the body is not JSON ({len(text):,} {unit})") from None


def _events(document: Any, layers: int) -> list[CreatedObject | LeftOut]:
    """The events of a document. ``layers``: the most layers around it that may follow."""
    if isinstance(document, str) and layers:
        return _events(_decoded(document), layers - 1)
    if isinstance(document, list) and layers:
        return [found for entry in document for found in _events(entry, layers - 1)]
    if not isinstance(document, dict):
        raise _unreadable(document)
    if "TopicArn" in document and "Message" in document:
        if document.get("Type", "Notification") != "Notification":
            raise S3EventUnreadable(
                f"the body is a {shown(document['Type'])} of SNS for {shown(document['TopicArn'])}: confirm the "
                "subscription by opening its SubscribeURL"
            )
        return _events(document["Message"], layers)
    if isinstance(document.get("Records"), list):
        return [_of_record(record) for record in document["Records"]]
    if document.get("Event") == "s3:TestEvent":
        return [LeftOut(Reason.TEST, str(document.get("Bucket", "")))]
    if "detail-type" in document and isinstance(document.get("detail"), dict):
        return [_of_eventbridge(document)]
    if is_filer_event(document):
        return [_of_filer(read_filer_event(document))]
    raise _unreadable(document)


def _of_record(record: Any) -> CreatedObject | LeftOut:
    """S3's record. The source of other services has another end, or the record has no object."""
    if not isinstance(record, dict):
        raise _unreadable(record)
    source = record.get("eventSource", record.get("EventSource", _S3))
    if not isinstance(source, str) or not source.endswith(_S3):
        return LeftOut(Reason.FOREIGN, str(source))
    name = _text(record, "eventName").removeprefix("s3:")
    if name == "TestEvent":
        return LeftOut(Reason.TEST, name)
    if name.startswith(("ObjectRemoved", "LifecycleExpiration")):
        return LeftOut(Reason.DELETED, name)
    if not name.startswith("ObjectCreated"):
        return LeftOut(Reason.OTHER, name)
    bucket, found = _bucket_and_object(record.get("s3"))
    try:
        key = unquote_plus(_text(found, "key"), errors="strict")
    except UnicodeDecodeError:
        raise S3EventUnreadable(f"the key in the event is not UTF-8: {shown(found['key'])}") from None
    return CreatedObject(
        bucket, key, _optional(found, "versionId"), _etag(found, "eTag"), _size(found), _optional(found, "sequencer")
    )


def _of_eventbridge(document: dict[str, Any]) -> CreatedObject | LeftOut:
    kind, source = str(document["detail-type"]), document.get("source", _EVENTBRIDGE_S3)
    if source != _EVENTBRIDGE_S3:
        return LeftOut(Reason.FOREIGN, str(source))
    if kind == "Object Deleted":
        return LeftOut(Reason.DELETED, kind)
    if kind != "Object Created":
        return LeftOut(Reason.OTHER, kind)
    bucket, found = _bucket_and_object(document["detail"])
    return CreatedObject(
        bucket,
        _text(found, "key"),
        _optional(found, "version-id"),
        _etag(found, "etag"),
        _size(found),
        _optional(found, "sequencer"),
    )


def _of_filer(entry: Entry) -> CreatedObject | LeftOut:
    if entry.deleted:
        return LeftOut(Reason.DELETED, entry.path)
    if entry.address is None:
        return LeftOut(Reason.INTERNAL, entry.path)
    if entry.is_folder:
        return LeftOut(Reason.FOLDER, entry.address.uri)
    if entry.unchanged:
        return LeftOut(Reason.UNCHANGED, entry.address.uri)
    return CreatedObject(*entry.address, version_id=entry.version_id, etag=entry.etag, size=entry.size)


def _bucket_and_object(about: Any) -> tuple[str, dict[str, Any]]:
    bucket = about.get("bucket") if isinstance(about, dict) else None
    found = about.get("object") if isinstance(about, dict) else None
    if not isinstance(bucket, dict) or not isinstance(found, dict):
        raise S3EventUnreadable(f"the event names no bucket and object: it is {kind_of(about)}")
    return _text(bucket, "name"), found


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise S3EventUnreadable(f"the field {name} of the event is {shown(value)}, not text")
    return value


def _optional(fields: dict[str, Any], name: str) -> str | None:
    """The text, or None if it is missing, null or empty: stores write all three."""
    return _text(fields, name) if fields.get(name) else None


def _etag(fields: dict[str, Any], name: str) -> str | None:
    return normalise_etag(_optional(fields, name) or "") or None


def _size(fields: dict[str, Any]) -> int | None:
    size = fields.get("size")
    if size is not None and (type(size) is not int or size < 0):
        raise S3EventUnreadable(f"the field size of the event is {shown(size)}, not a number of bytes")
    return size


def kind_of(value: object) -> str:
    """A decoded JSON value in words, without its content: a body may have anything, such as a token of SNS."""
    match value:
        case dict():
            return f"an object with {len(value):,} fields"
        case list():
            return f"a list of {len(value):,}"
        case str():
            return f"text of {len(value):,} characters"
        case None:
            return "null"
    return "true or false" if isinstance(value, bool) else "a number"


def _unreadable(document: Any) -> S3EventUnreadable:
    return S3EventUnreadable(f"the body is not a notification of an object store: it is {kind_of(document)}")
