"""Checks the bytes of a download against the object's length, checksum or MD5."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from dataclasses import dataclass
from typing import Any

from tussis.shared.errors import CorruptAudio, DownloadDamaged, ObjectChanged, ObjectTooLarge
from tussis.shared.s3 import head_object

_MD5 = re.compile(r"[0-9a-fA-F]{32}")
#: Server-side encryption with which an entity tag is still the MD5 of the content (S3 API reference, type Object).
_MD5_KEPT = (None, "AES256")


@dataclass(frozen=True)
class ObjectVersion:
    """One version of one object. ``version_id`` is None in a bucket without versions."""

    bucket: str
    key: str
    etag: str
    version_id: str | None
    size_bytes: int | None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def decoded(data: bytes, encoding: str, uri: str, max_bytes: int) -> bytes:
    """The content of an object: decompressed with ``Content-Encoding: gzip``, otherwise the unchanged bytes.

    boto3 does not decompress it. Bytes without the signature of gzip are returned unchanged, because the header is
    metadata from the uploader and may be wrong. Raises :class:`ObjectTooLarge` and :class:`CorruptAudio`.
    """
    codings = {coding.strip().lower() for coding in encoding.split(",")}
    if not codings & {"gzip", "x-gzip"} or not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(max_bytes + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        # Not the text of the error: it may quote bytes of the object.
        how = "it is cut off" if isinstance(error, EOFError) else "its gzip data is damaged"
        raise CorruptAudio(f"{uri} has Content-Encoding gzip, and {how}") from None
    if len(content) > max_bytes:
        raise ObjectTooLarge(f"{uri} has more than {max_bytes} bytes after decompression, the limit (TUSSIS_MAX_BYTES)")
    return content


def check(s3: Any, version: ObjectVersion, answer: Any, data: bytes, content: bytes, *, verify_md5: bool) -> None:
    """Compare ``data`` with the length, checksum or MD5 from the store. ``content`` is ``data`` decoded.

    A length that is already known must match. Then the first of these that is available decides: the checksum in the
    answer, which botocore has compared; the MD5, if the entity tag is one; entity tag and length from HEAD, unless the
    length was known. ``content`` may match instead of ``data``: some gateways compress. Raises
    :class:`DownloadDamaged`, :class:`ObjectChanged` and the storage errors.
    """
    if version.size_bytes is not None:
        _check_size(version, version.size_bytes, data, content)
    # An internal attribute of botocore: it wraps a body whose answer has a checksum of the whole object.
    if getattr(answer["Body"], "checksum", None) is not None:
        return
    if verify_md5 and _is_md5(version.etag, answer):
        found = [hashlib.md5(some, usedforsecurity=False).hexdigest() for some in _candidates(data, content)]
        if version.etag.lower() not in found:
            raise DownloadDamaged(
                f"{version.uri}: the {len(data)} bytes received have the MD5 {found[0]}, and the entity tag is "
                f"{version.etag}: check whether a gateway changes or cuts them; set TUSSIS_VERIFY_MD5=false if the "
                "entity tags of this store are not MD5 sums"
            )
        return
    if version.size_bytes is None:
        head = head_object(s3, version.bucket, version.key, version.version_id)
        if head.etag != version.etag:
            raise ObjectChanged(f"{version.uri} was replaced during the download: enqueue it again")
        if head.size_bytes is not None:
            _check_size(version, head.size_bytes, data, content)


def _is_md5(etag: str, answer: Any) -> bool:
    return (
        _MD5.fullmatch(etag) is not None
        and answer.get("ServerSideEncryption") in _MD5_KEPT
        and not answer.get("SSECustomerAlgorithm")
    )


def _check_size(version: ObjectVersion, size: int, data: bytes, content: bytes) -> None:
    if size not in [len(some) for some in _candidates(data, content)]:
        raise DownloadDamaged(
            f"{version.uri}: received {len(data)} bytes, the store reports {size}: check whether a gateway cuts them"
        )


def _candidates(data: bytes, content: bytes) -> list[bytes]:
    return [data] if content is data else [data, content]
