"""Fetches a recording from S3: exactly the version that the message names, and at most the limit of bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from tussis.shared.errors import CorruptAudio, DownloadCut, DownloadSlow, ObjectChanged, ObjectTooLarge
from tussis.shared.messages import Job, normalise_etag
from tussis.shared.s3 import entity_tag, head_object, storage_errors
from tussis.worker.pipeline.object_bytes import ObjectVersion, check, decoded

#: The least and the most bytes of one read. The deadline is checked between two reads, and a read waits until all its
#: bytes are there. A read therefore requests as many bytes as came in one second so far: a slow download then exceeds
#: the deadline here, before the watchdog ends the process.
_LEAST, _MOST = 1 << 12, 1 << 16

#: A larger object has a longer deadline, in proportion: ``TUSSIS_DOWNLOAD_TIMEOUT_S`` for each 100 MiB.
DEADLINE_BYTES = 100 * 2**20


def resolve(s3: Any, job: Job) -> ObjectVersion:
    """The version that the job names. Sends one HEAD to S3, only if the message has no entity tag.

    Raises :class:`ObjectMissing`, :class:`BucketMissing`, :class:`ObjectChanged` and the storage errors.
    """
    if job.etag is not None:
        return ObjectVersion(job.bucket, job.key, normalise_etag(job.etag), job.version_id, None)
    head = head_object(s3, job.bucket, job.key, job.version_id)
    return ObjectVersion(job.bucket, job.key, head.etag, job.version_id or head.version_id, head.size_bytes)


def fetch(
    s3: Any,
    version: ObjectVersion,
    *,
    max_bytes: int,
    deadline_s: float,
    verify_md5: bool = True,
    between_reads: Callable[[], None] = lambda: None,
) -> bytes:
    """The bytes of the object, checked. An object with ``Content-Encoding: gzip`` is decompressed.

    ``deadline_s`` limits the whole download, in seconds; it grows with an object of more than ``DEADLINE_BYTES``.
    ``verify_md5`` is ``TUSSIS_VERIFY_MD5``. ``between_reads`` may raise to stop the download.

    Raises :class:`ObjectMissing`, :class:`ObjectChanged` (the entity tag has changed), :class:`ObjectTooLarge` (the
    object or its decompressed content has more than ``max_bytes``), :class:`DownloadCut`, :class:`DownloadSlow`,
    :class:`DownloadDamaged`, :class:`CorruptAudio` (the gzip data) and the storage errors.
    """
    began = time.monotonic()
    answer = _open(s3, version)
    with storage_errors(version.uri):
        try:
            data = _read(answer, version.uri, max_bytes, began, deadline_s, between_reads)
        finally:
            answer["Body"].close()
    try:
        content = decoded(data, str(answer.get("ContentEncoding") or ""), version.uri, max_bytes)
    except CorruptAudio:
        # A damaged download passes, and a damaged object does not: the bytes as they came tell which one it is.
        check(s3, version, answer, data, data, verify_md5=verify_md5)
        raise
    check(s3, version, answer, data, content, verify_md5=verify_md5)
    return content


def _open(s3: Any, version: ObjectVersion) -> Any:
    """The answer to GET with the entity tag of the version. Its body is unread."""
    from botocore.exceptions import ClientError

    which = {"Bucket": version.bucket, "Key": version.key}
    if version.version_id:
        which["VersionId"] = version.version_id
    with storage_errors(version.uri, s3):
        try:
            answer = s3.get_object(**which, IfMatch=f'"{version.etag}"')
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 412:
                raise
            # A proxy may make an entity tag weak, and If-Match never matches a weak tag. The tag of the answer decides.
            answer = s3.get_object(**which)
    try:
        found = entity_tag(answer, version.uri)
        if found != version.etag:
            raise ObjectChanged(
                f"{version.uri} now has the entity tag {found}, and the job names {version.etag}: enqueue it again"
            )
    except BaseException:
        answer["Body"].close()
        raise
    return answer


def _read(
    answer: Any, uri: str, max_bytes: int, began: float, deadline_s: float, between_reads: Callable[[], None]
) -> bytes:
    """The whole body. Without ``Content-Length`` (chunked, or an HTTP/1.0 gateway) it is read until it ends."""
    size: int | None = answer.get("ContentLength")
    deadline_s *= 1 if size is None else max(1, size / DEADLINE_BYTES)
    if size is not None and size > max_bytes:
        raise ObjectTooLarge(f"{uri} has {size} bytes, the limit is {max_bytes} (TUSSIS_MAX_BYTES)")
    # Its value is returned without a copy, which would need the memory of a long recording twice.
    data = io.BytesIO()
    received = 0
    while True:
        between_reads()
        elapsed = time.monotonic() - began
        if elapsed > deadline_s and received != size:
            of = "" if size is None else f" of {size}"
            raise DownloadSlow(
                f"{uri}: received {received}{of} bytes in {deadline_s:g} s, the limit (TUSSIS_DOWNLOAD_TIMEOUT_S)"
            )
        amount = _LEAST if elapsed <= 0 else min(max(int(received / elapsed), _LEAST), _MOST)
        # botocore compares the checksum in the read after the last byte.
        chunk = answer["Body"].read(amount)
        if not chunk:
            break
        data.write(chunk)
        received += len(chunk)
        if received > max_bytes:
            raise ObjectTooLarge(f"{uri} has more than {max_bytes} bytes, the limit (TUSSIS_MAX_BYTES)")
    if size is not None and received != size:
        raise DownloadCut(f"{uri}: the download ended after {received} of {size} bytes")
    return data.getvalue()
