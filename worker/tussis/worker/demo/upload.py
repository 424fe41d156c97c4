"""Uploads the recordings into the bucket, as upstream does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tussis.shared.errors import FileUnreadable
from tussis.shared.s3 import list_objects, storage_errors
from tussis.worker.demo.recordings import DemoRecording
from tussis.worker.local.bucket import CONNECTIONS

BUCKET: Final = "tussis-demo"


def upload(client: Any, recordings: Sequence[DemoRecording], uploaded: Callable[[], None]) -> int:
    """Upload the recordings that the bucket lacks; return their number. ``uploaded`` is called for each recording.

    An object with the same bytes is not sent again: in a bucket with versions, the new one would be analysed again.

    Raises :class:`FileUnreadable`, and the errors of :func:`tussis.shared.s3.storage_errors`.
    """
    with storage_errors(f"s3://{BUCKET}"):
        if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
    there = {listed.key: listed.etag for listed in list_objects(client, BUCKET, "")}

    def one(recording: DemoRecording) -> bool:
        data = _read(recording.path)
        # The entity tag of an object that was uploaded in one part is its MD5 sum.
        if there.get(recording.key) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return False
        with storage_errors(f"s3://{BUCKET}/{recording.key}"):
            client.put_object(Bucket=BUCKET, Key=recording.key, Body=data)
        return True

    sent = 0
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="upload")
    try:
        for new in pool.map(one, recordings):
            sent += new
            uploaded()
    finally:
        pool.shutdown(cancel_futures=True)
    return sent


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror}") from error
