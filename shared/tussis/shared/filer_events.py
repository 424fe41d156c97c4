"""Events of the webhook of SeaweedFS' filer: changes of entries in its tree, where ``/buckets/B/KEY`` is an object.

Read from the events of ``weed`` 4.48. A test compares the objects with the answers of its S3 server.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from tussis.shared.errors import S3EventUnreadable
from tussis.shared.uris import ObjectAddress, shown

_BUCKETS: Final = "/buckets/"
#: The folder with the parts of uploads, in each bucket.
_PARTS: Final = ".uploads/"
#: The end of the folder with the versions of an object. Each is an entry ``v_ID``.
_VERSIONS: Final = ".versions"
_ETAG: Final = "Seaweed-X-Amz-ETag"
_VERSION: Final = "Seaweed-X-Amz-Version-Id"
_DELETE_MARKER: Final = "Seaweed-X-Amz-Delete-Marker"


@dataclass(frozen=True)
class Entry:
    """An entry after its change."""

    path: str
    address: ObjectAddress | None = None
    """None: the entry is not an object."""
    deleted: bool = False
    is_folder: bool = False
    unchanged: bool = False
    """The content is the same as before the change."""
    version_id: str | None = None
    etag: str | None = None
    size: int = 0


def is_filer_event(document: dict[str, Any]) -> bool:
    """Whether the decoded JSON has the fields of such an event."""
    return isinstance(document.get("event_type"), str) and {"key", "message"} <= document.keys()


def read_filer_event(document: dict[str, Any]) -> Entry:
    """The changed entry. Raises :class:`S3EventUnreadable`."""
    path, message = document["key"], document["message"]
    try:
        if (new := message.get("new_entry")) is None:
            return Entry(str(path), deleted=True)
        # After a rename, the key of the event is the old path.
        now = f"{message['new_parent_path']}/{new['name']}" if message.get("new_parent_path") else str(path)
        return _entry(now, new, message.get("old_entry") if now == path else None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise S3EventUnreadable(f"the event of a filer about {shown(path)} has wrong fields ({error!r})") from None


def _entry(path: str, new: dict[str, Any], old: dict[str, Any] | None) -> Entry:
    """``old``: the entry that had this path before."""
    bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
    if not path.startswith(_BUCKETS) or bucket.startswith(".") or not key or key.startswith(_PARTS):
        return Entry(path)
    if new.get("is_directory"):
        return Entry(path, ObjectAddress(bucket, f"{key}/"), is_folder=True)
    version_id = _attribute(new, _VERSION)
    folder, _, name = key.rpartition("/")
    if folder.endswith(_VERSIONS) and version_id is not None and name == f"v_{version_id}":
        key = folder.removesuffix(_VERSIONS)
    return Entry(
        path,
        ObjectAddress(bucket, key),
        deleted=_attribute(new, _DELETE_MARKER) == "true",
        unchanged=old is not None and _content(old) == _content(new),
        version_id=version_id,
        etag=_etag(new),
        size=int(new.get("attributes", {}).get("file_size", 0)),
    )


def _attribute(entry: dict[str, Any], name: str) -> str | None:
    """An extended attribute, or None. The JSON has its bytes in Base64."""
    value = entry.get("extended", {}).get(name)
    return base64.b64decode(value, validate=True).decode() if value else None


def _etag(entry: dict[str, Any]) -> str | None:
    """The entity tag of the S3 server; of a file that was not stored through it, the MD5 sum."""
    md5 = entry.get("attributes", {}).get("md5")
    return _attribute(entry, _ETAG) or (base64.b64decode(md5, validate=True).hex() if md5 else None)


def _content(entry: dict[str, Any]) -> object:
    """What is equal for equal contents: the entity tag and where the bytes are."""
    return _etag(entry), [chunk.get("fid") for chunk in entry.get("chunks", [])], entry.get("content")
