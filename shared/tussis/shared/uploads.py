"""Uploads of recordings to the object store: the key of a new object, and a stream of bytes that becomes an object.

A small content is one request (PutObject). A larger one is sent in parts while it arrives, so that it is never in
memory as a whole. Each request has the MD5 of its bytes, which the store compares with what it received.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tussis.shared.errors import EmptyObject, ObjectChanged, ObjectExists, ObjectMissing, ObjectTooLarge, TussisError
from tussis.shared.messages import random_id
from tussis.shared.s3 import entity_tag, head_object, storage_errors
from tussis.shared.uris import ObjectAddress, parse_s3_prefix

#: Bytes of one part, and of the largest content that is sent in one request. S3's least size of a part is 5 MiB.
PART_BYTES: Final = 8 * 2**20
#: S3's own limit (S3 user guide, "Multipart upload limits").
_MAX_PARTS: Final = 10_000
#: Seconds. A store answers a part after it has written it, which takes longer than the answer to a HEAD.
UPLOAD_READ_TIMEOUT_S: Final = 20.0
_OTHER: Final = "{} has other content: use another key"
_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class Uploaded:
    """An object that was uploaded.

    ``etag`` has no quotes. ``version_id`` is None in a bucket without versions. ``sha256`` is that of the content, in
    hexadecimal.
    """

    bucket: str
    key: str
    etag: str
    version_id: str | None
    size_bytes: int
    sha256: str

    @property
    def uri(self) -> str:
        return ObjectAddress(self.bucket, self.key).uri


def parse_upload_prefix(uri: str) -> ObjectAddress:
    """The bucket and the start of the keys of ``s3://bucket/prefix``. The start ends with ``/``, or is empty.

    Raises :class:`InvalidUri`.
    """
    bucket, prefix = parse_s3_prefix(uri)
    return ObjectAddress(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/")


def new_key(prefix: str, file_name: str | None = None, now: datetime | None = None, unique: str | None = None) -> str:
    """The key of a new object: prefix, date (UTC), a random id (or ``unique``), and the extension of the file name.

    For example ``uploads/2026/11/29/2f1c4f0e-....wav``. The rest of the file name is not used, because it may have
    the name of a person. An extension of other characters than 1 to 8 letters and digits is left out.
    """
    day = (now or datetime.now(UTC)).strftime("%Y/%m/%d")
    stem, dot, last = (file_name or "").rpartition(".")
    extension = dot + last
    known = bool(stem) and _EXTENSION.fullmatch(extension) is not None
    return f"{prefix}{day}/{unique or random_id()}{extension.lower() if known else ''}"


def upload(
    s3: Any,
    address: ObjectAddress,
    chunks: Iterable[bytes],
    *,
    max_bytes: int,
    limited_by: str = "TUSSIS_MAX_BYTES",
    part_bytes: int = PART_BYTES,
    only_new: bool = False,
) -> Uploaded:
    """Upload the bytes as one object. The object exists only after the last of them: an error leaves nothing.

    Holds at most two parts and one chunk in memory. ``max_bytes`` is the size limit, and ``limited_by`` the setting
    that a message names. An error of ``chunks`` ends the upload and is raised unchanged. If the process is killed, the
    store keeps the parts: a rule of the bucket can delete them (AbortIncompleteMultipartUpload).

    ``only_new``: an object that has the key meanwhile is not replaced (If-None-Match, which some stores ignore). The
    same content is taken as uploaded; other content raises :class:`ObjectExists`.

    Raises :class:`ObjectTooLarge`, :class:`EmptyObject`, and the errors of :func:`tussis.shared.s3.storage_errors`.
    """
    part_bytes = max(part_bytes, -(-max_bytes // _MAX_PARTS))
    digest = hashlib.sha256()
    size = 0
    waiting = bytearray()
    multipart: _Multipart | None = None
    condition = {"IfNoneMatch": "*"} if only_new else {}
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise ObjectTooLarge(f"the upload has more than {max_bytes} bytes, the limit ({limited_by})")
            digest.update(chunk)
            waiting += chunk
            while len(waiting) > part_bytes:
                if multipart is None:
                    multipart = _Multipart(s3, address)
                multipart.add(bytes(memoryview(waiting)[:part_bytes]))
                del waiting[:part_bytes]
        if not size:
            raise EmptyObject("the upload has no bytes")
        if multipart is None:
            answer = _put(s3, address, bytes(waiting), condition)
        else:
            multipart.add(bytes(waiting))
            answer = multipart.complete(condition)
        etag, version_id = entity_tag(answer, address.uri), answer.get("VersionId")
    except ObjectChanged:  # only with only_new
        if multipart is not None:
            multipart.abort()
        head = head_object(s3, address.bucket, address.key)
        if head.etag != (_md5(waiting).hexdigest() if multipart is None else multipart.etag):
            raise ObjectExists(_OTHER.format(address.uri)) from None
        etag, version_id = head.etag, head.version_id
    except BaseException:
        if multipart is not None:
            multipart.abort()
        raise
    return Uploaded(address.bucket, address.key, etag, version_id, size, digest.hexdigest())


def uploaded_before(
    s3: Any, address: ObjectAddress, chunks: Iterable[bytes], *, max_bytes: int, part_bytes: int = PART_BYTES
) -> Uploaded | None:
    """The object that has this key already, if its content is that of the chunks. None if the key is free.

    The contents are compared by the entity tag: the MD5 of the content, or of the MD5s of the parts that
    :func:`upload` sends. A store that encrypts with a key of its own has other tags: there no object is recognised.
    Reads no chunk if the key is free. Raises :class:`ObjectExists` for other content, and the errors of
    :func:`upload`.
    """
    try:
        head = head_object(s3, address.bucket, address.key)
    except ObjectMissing:
        return None
    part_bytes = max(part_bytes, -(-max_bytes // _MAX_PARTS))
    digest, whole, part = hashlib.sha256(), _md5(), _md5()
    parts: list[bytes] = []
    size = filled = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise ObjectTooLarge(f"the upload has more than {max_bytes} bytes, the limit (TUSSIS_MAX_BYTES)")
        digest.update(chunk)
        whole.update(chunk)
        rest = memoryview(chunk)
        while rest:
            if filled == part_bytes:
                parts.append(part.digest())
                part, filled = _md5(), 0
            taken = rest[: part_bytes - filled]
            part.update(taken)
            filled += len(taken)
            rest = rest[len(taken) :]
    parts.append(part.digest())
    if head.etag not in (whole.hexdigest(), _etag_of_parts(parts)):
        raise ObjectExists(_OTHER.format(address.uri))
    return Uploaded(address.bucket, address.key, head.etag, head.version_id, size, digest.hexdigest())


def _put(s3: Any, address: ObjectAddress, data: bytes, condition: Mapping[str, str]) -> Any:
    which = {"Bucket": address.bucket, "Key": address.key}
    with storage_errors(address.uri, s3):
        return s3.put_object(**which, Body=data, ContentMD5=_content_md5(_md5(data)), **condition)


class _Multipart:
    """An upload in parts. The store shows the object when it is complete, and never a part of it."""

    def __init__(self, s3: Any, address: ObjectAddress) -> None:
        self._s3 = s3
        self._uri = address.uri
        self._which: dict[str, Any] = {"Bucket": address.bucket, "Key": address.key}
        self._parts: list[dict[str, Any]] = []
        self._digests: list[bytes] = []
        with storage_errors(self._uri, s3):
            self._which |= {"UploadId": s3.create_multipart_upload(**self._which)["UploadId"]}

    def add(self, data: bytes) -> None:
        number, digest = len(self._parts) + 1, _md5(data)
        with storage_errors(self._uri, self._s3):
            answer = self._s3.upload_part(**self._which, PartNumber=number, Body=data, ContentMD5=_content_md5(digest))
        self._parts.append({"PartNumber": number, "ETag": f'"{entity_tag(answer, self._uri)}"'})
        self._digests.append(digest.digest())

    @property
    def etag(self) -> str:
        """The entity tag of the object in a store that does not encrypt with a key of its own."""
        return _etag_of_parts(self._digests)

    def complete(self, condition: Mapping[str, str]) -> Any:
        parts = {"Parts": self._parts}
        with storage_errors(self._uri, self._s3):
            return self._s3.complete_multipart_upload(**self._which, MultipartUpload=parts, **condition)

    def abort(self) -> None:
        """Delete the parts. If that fails, the error that ended the upload is still the one to raise."""
        with contextlib.suppress(TussisError), storage_errors(self._uri):
            self._s3.abort_multipart_upload(**self._which)


def _etag_of_parts(digests: list[bytes]) -> str:
    return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"


def _content_md5(digest: hashlib._Hash) -> str:
    return base64.b64encode(digest.digest()).decode()


def _md5(data: bytes | bytearray = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
