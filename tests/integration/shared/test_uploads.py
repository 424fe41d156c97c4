"""Streams of bytes become objects of the embedded store, in one request or in parts."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.servers import Bucket
from tussis.shared.errors import BucketMissing, EmptyObject, ObjectExists, ObjectTooLarge, StorageUnavailable
from tussis.shared.s3 import head_object
from tussis.shared.uploads import upload
from tussis.shared.uris import ObjectAddress

MIB = 2**20
PART = 5 * MIB
LIMIT = 100 * MIB


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def in_chunks(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


@dataclass
class Counted:
    """A client that counts the calls of each operation."""

    client: Any
    calls: list[str]

    def __getattr__(self, name: str) -> Any:
        if name != "meta":
            self.calls.append(name)
        return getattr(self.client, name)


@pytest.mark.parametrize(
    ("size", "calls"),
    [
        (1, ["put_object"]),
        (300_000, ["put_object"]),
        (PART, ["put_object"]),
        (PART + 1, ["create_multipart_upload", *["upload_part"] * 2, "complete_multipart_upload"]),
        (3 * PART, ["create_multipart_upload", *["upload_part"] * 3, "complete_multipart_upload"]),
    ],
)
def test_the_object_has_the_bytes(bucket: Bucket, size: int, calls: list[str]) -> None:
    data = content(size)
    counted = Counted(bucket.client, [])

    uploaded = upload(
        counted, ObjectAddress(bucket.name, "a/b c.wav"), in_chunks(data), max_bytes=LIMIT, part_bytes=PART
    )

    assert counted.calls == calls
    assert bucket.client.get_object(Bucket=bucket.name, Key="a/b c.wav")["Body"].read() == data
    head = head_object(bucket.client, bucket.name, "a/b c.wav")
    assert (uploaded.etag, uploaded.version_id, uploaded.size_bytes) == (head.etag, head.version_id, size)
    assert uploaded.sha256 == hashlib.sha256(data).hexdigest()
    assert uploaded.uri == bucket.uri("a/b c.wav")


def test_a_bucket_with_versions_names_the_version(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    try:
        first = upload(bucket.client, ObjectAddress(bucket.name, "a"), [b"one"], max_bytes=LIMIT)
        large = upload(
            bucket.client, ObjectAddress(bucket.name, "a"), [content(PART + 1)], max_bytes=LIMIT, part_bytes=PART
        )
        assert first.version_id is not None
        assert head_object(bucket.client, bucket.name, "a").version_id == large.version_id != first.version_id
    finally:
        for version in bucket.client.list_object_versions(Bucket=bucket.name)["Versions"]:
            bucket.client.delete_object(Bucket=bucket.name, Key="a", VersionId=version["VersionId"])


def _left(bucket: Bucket) -> tuple[int, int]:
    """The number of objects and of unfinished uploads in the bucket."""
    objects = bucket.client.list_objects_v2(Bucket=bucket.name).get("KeyCount", 0)
    return objects, len(bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []))


@pytest.mark.parametrize("size", [1001, 2 * PART])
def test_more_bytes_than_the_limit_leave_nothing(bucket: Bucket, size: int) -> None:
    most = 1000 if size == 1001 else 2 * PART - 1
    with pytest.raises(ObjectTooLarge, match=rf"more than {most} bytes, the limit \(TUSSIS_UPLOAD_MAX_BYTES\)"):
        upload(
            bucket.client,
            ObjectAddress(bucket.name, "a"),
            in_chunks(content(size)),
            max_bytes=most,
            limited_by="TUSSIS_UPLOAD_MAX_BYTES",
            part_bytes=PART,
        )
    assert _left(bucket) == (0, 0)


@pytest.mark.parametrize("sent", [10, PART + MIB])
def test_an_error_of_the_stream_leaves_nothing(bucket: Bucket, sent: int) -> None:
    def broken() -> Iterator[bytes]:
        yield from in_chunks(content(sent))
        raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError, match="the client left"):
        upload(bucket.client, ObjectAddress(bucket.name, "a"), broken(), max_bytes=LIMIT, part_bytes=PART)
    assert _left(bucket) == (0, 0)


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_no_bytes_are_no_recording(bucket: Bucket, chunks: list[bytes]) -> None:
    with pytest.raises(EmptyObject, match="the upload has no bytes"):
        upload(bucket.client, ObjectAddress(bucket.name, "a"), chunks, max_bytes=LIMIT)
    assert _left(bucket) == (0, 0)


@pytest.mark.parametrize("size", [10, PART + 1])
def test_a_missing_bucket_is_named(bucket: Bucket, size: int) -> None:
    with pytest.raises(BucketMissing, match="the bucket no-such-bucket does not exist"):
        upload(bucket.client, ObjectAddress("no-such-bucket", "a"), [content(size)], max_bytes=LIMIT, part_bytes=PART)


def test_the_memory_does_not_grow_with_the_content(bucket: Bucket) -> None:
    def stream() -> Iterator[bytes]:
        piece = content(MIB)
        for _ in range(64):
            yield piece

    tracemalloc.start()
    try:
        uploaded = upload(bucket.client, ObjectAddress(bucket.name, "a"), stream(), max_bytes=LIMIT, part_bytes=PART)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    bucket.client.delete_object(Bucket=bucket.name, Key="a")
    assert uploaded.size_bytes == 64 * MIB
    assert peak < 4 * PART, f"{peak / MIB:.1f} MiB for an upload of 64 MiB"


def test_bytes_that_change_on_the_way_are_refused(bucket: Bucket) -> None:
    """The store compares what it received with the MD5 of what was sent."""
    events = bucket.client.meta.events

    def flip(params: dict[str, Any], **_: object) -> None:
        params["body"] = b"B" * 1000

    events.register("before-call.s3.PutObject", flip)
    try:
        with pytest.raises(StorageUnavailable):
            upload(bucket.client, ObjectAddress(bucket.name, "a"), [b"A" * 1000], max_bytes=LIMIT)
    finally:
        events.unregister("before-call.s3.PutObject", flip)
    assert _left(bucket) == (0, 0)


@pytest.mark.parametrize("size", [10, PART + 10])
def test_a_new_object_replaces_none_that_appears_meanwhile(bucket: Bucket, size: int) -> None:
    address = ObjectAddress(bucket.name, "raced.wav")
    first, other = content(size), content(size + 1)
    stored = upload(bucket.client, address, in_chunks(first), max_bytes=LIMIT, part_bytes=PART, only_new=True)

    again = upload(bucket.client, address, in_chunks(first), max_bytes=LIMIT, part_bytes=PART, only_new=True)
    with pytest.raises(ObjectExists, match=r"raced\.wav has other content"):
        upload(bucket.client, address, in_chunks(other), max_bytes=LIMIT, part_bytes=PART, only_new=True)

    assert again == stored
    assert bucket.client.get_object(Bucket=bucket.name, Key=address.key)["Body"].read() == first
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")
