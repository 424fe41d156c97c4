"""Fetching a recording from S3: exactly the version that the message names, and never more bytes than the limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tussis.shared.errors import DownloadCut, DownloadSlow, ObjectTooLarge
from tussis.shared.messages import Job, normalise_etag
from tussis.shared.s3 import head_object, storage_errors

#: Bytes read at a time, at least and at most; the deadline is looked at between two reads. A read waits for all of
#: them, however slowly they come: it asks for as many as came in a second so far, so that a trickle is found slow
#: before the watchdog takes it for a hang and ends the process.
_LEAST, _MOST = 1 << 12, 1 << 16


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


def resolve(s3: Any, job: Job) -> ObjectVersion:
    """The version that the job means. Asks S3 (one HEAD) only where the message pins no entity tag.

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
    between_reads: Callable[[], None] = lambda: None,
) -> bytes:
    """The object's bytes.

    ``deadline_s`` bounds the whole download in seconds. ``between_reads`` may raise, to break it off. Raises
    :class:`ObjectMissing`, :class:`ObjectChanged` (the entity tag is another one by now), :class:`ObjectTooLarge`
    (before the body is read), :class:`DownloadCut`, :class:`DownloadSlow` and the storage errors.
    """
    began = time.monotonic()
    pin = {"VersionId": version.version_id} if version.version_id else {}
    with storage_errors(version.uri):
        answer = s3.get_object(Bucket=version.bucket, Key=version.key, IfMatch=f'"{version.etag}"', **pin)
        size = answer["ContentLength"]
        body = answer["Body"]
        try:
            if size > max_bytes:
                raise ObjectTooLarge(f"{version.uri} has {size} bytes, the limit is {max_bytes} (TUSSIS_MAX_BYTES)")
            data = bytearray()
            while len(data) < size:
                between_reads()
                elapsed = time.monotonic() - began
                if elapsed > deadline_s:
                    raise DownloadSlow(
                        f"{version.uri}: {len(data)} of {size} bytes after {deadline_s:g} s (TUSSIS_DOWNLOAD_TIMEOUT_S)"
                    )
                amount = _LEAST if elapsed <= 0 else min(max(int(len(data) / elapsed), _LEAST), _MOST)
                chunk = body.read(min(amount, size - len(data)))
                if not chunk:
                    raise DownloadCut(f"{version.uri}: the download ended after {len(data)} of {size} bytes")
                data += chunk
        finally:
            body.close()
    return bytes(data)
