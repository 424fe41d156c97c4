"""What is fetched is the object, whole and unchanged, or an error that says why not."""

from __future__ import annotations

import base64
import gc
import gzip
import hashlib
import time
import uuid
import warnings
import zlib
from typing import Any, Final

import pytest

from tests.support.odd_store import Answer, OddStore, odd_store
from tussis.shared.errors import (
    CorruptAudio,
    DownloadCut,
    DownloadDamaged,
    ObjectChanged,
    ObjectMissing,
    ObjectTooLarge,
    SettingsInvalid,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.messages import Job
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch, resolve

__all__ = ["odd_store"]

DATA: Final = bytes(range(256)) * 200
MD5: Final = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
OTHER: Final = b"x" * len(DATA)
CRC32: Final = base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
SHA256: Final = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
KMS: Final = {"x-amz-server-side-encryption": "aws:kms"}
PARTS: Final = "0" * 32 + "-2"


def version(etag: str = MD5, size: int | None = None) -> ObjectVersion:
    return ObjectVersion("clinic", "a.wav", etag, None, size)


def fetched(store: OddStore, of: ObjectVersion, answer: Answer, *, max_bytes: int = 1 << 20, **options: Any) -> bytes:
    store.answers["GET"] = [answer]
    return fetch(store.client, of, max_bytes=max_bytes, deadline_s=30.0, **options)


@pytest.mark.parametrize("etag", [f'"{MD5}"', f'W/"{MD5}"', MD5, f'"{MD5.upper()}"'])
def test_an_entity_tag_is_compared_without_its_quotes(odd_store: OddStore, etag: str) -> None:
    plain = MD5.upper() if MD5.upper() in etag else MD5
    assert fetched(odd_store, version(plain), Answer(DATA, etag)) == DATA
    assert odd_store.asked[0][2]["if-match"] == f'"{plain}"'
    assert [method for method, _, _ in odd_store.asked] == ["GET"]


@pytest.mark.parametrize(
    ("of", "answer"),
    [
        (version(), Answer(DATA[:100], f'"{MD5}"')),
        (version(), Answer(b"", f'"{MD5}"')),
        (version(), Answer(OTHER, f'"{MD5}"')),
        (version(), Answer(DATA[:-1], f'"{MD5}"', chunked=True)),
        (version(), Answer(OTHER, f'"{MD5}"', headers={"x-amz-server-side-encryption": "AES256"})),
        (version(), Answer(OTHER, f'"{MD5}"', headers={"x-amz-checksum-crc32": CRC32})),
        (version(), Answer(OTHER, f'"{MD5}"', headers={"x-amz-checksum-sha256": SHA256} | KMS)),
        (version(PARTS), Answer(OTHER, f'"{PARTS}"', headers={"x-amz-checksum-crc32": CRC32})),
        (version("odd", len(DATA)), Answer(DATA[:100], '"odd"')),
    ],
)
def test_bytes_that_are_not_the_object_s_are_refused(odd_store: OddStore, of: ObjectVersion, answer: Answer) -> None:
    with pytest.raises(DownloadDamaged, match=r"s3://clinic/a\.wav"):
        fetched(odd_store, of, answer)


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (PARTS, {}),
        ("opaque", {}),
        ("0" * 32, KMS),
        ("0" * 32, {"x-amz-server-side-encryption": "aws:kms:dsse"}),
        ("0" * 32, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
        # A checksum of the parts' checksums says nothing about the whole.
        (PARTS, {"x-amz-checksum-crc32": f"{CRC32}-2", "x-amz-checksum-type": "COMPOSITE"}),
    ],
)
def test_where_nothing_else_tells_the_length_of_head_does(
    odd_store: OddStore, etag: str, headers: dict[str, str]
) -> None:
    odd_store.answers["HEAD"] = [Answer(b"", f'"{etag}"', length=len(DATA))]
    assert fetched(odd_store, version(etag), Answer(DATA, f'"{etag}"', headers=headers)) == DATA
    assert [method for method, _, _ in odd_store.asked] == ["GET", "HEAD"]
    with pytest.raises(DownloadDamaged, match=f"{len(DATA)}"):
        fetched(odd_store, version(etag), Answer(DATA[:100], f'"{etag}"', headers=headers))


@pytest.mark.parametrize("headers", [{"x-amz-checksum-crc32": CRC32}, {"x-amz-checksum-sha256": SHA256}])
def test_a_checksum_that_fits_needs_no_md5(odd_store: OddStore, headers: dict[str, str]) -> None:
    etag = "0" * 32
    assert fetched(odd_store, version(etag), Answer(DATA, f'"{etag}"', headers=headers)) == DATA
    assert [method for method, _, _ in odd_store.asked] == ["GET"]
    assert odd_store.asked[0][2]["x-amz-checksum-mode"] == "ENABLED"


def test_a_store_whose_entity_tags_only_look_like_md5_has_a_way_out(odd_store: OddStore) -> None:
    etag = "0" * 32
    with pytest.raises(DownloadDamaged, match="TUSSIS_VERIFY_MD5=false"):
        fetched(odd_store, version(etag), Answer(DATA, f'"{etag}"'))
    odd_store.answers["HEAD"] = [Answer(b"", f'"{etag}"', length=len(DATA))]
    assert fetched(odd_store, version(etag), Answer(DATA, f'"{etag}"'), verify_md5=False) == DATA


def test_another_entity_tag_is_another_object(odd_store: OddStore) -> None:
    """Given a store or a gateway that ignores If-Match."""
    with pytest.raises(ObjectChanged, match="entity tag 1111"):
        fetched(odd_store, version(), Answer(OTHER, f'"{"1" * 32}"'))


def test_an_object_that_is_replaced_before_its_head_is_another_one(odd_store: OddStore) -> None:
    odd_store.answers["HEAD"] = [Answer(b"", '"other"', length=len(DATA))]
    with pytest.raises(ObjectChanged):
        fetched(odd_store, version(PARTS), Answer(DATA, f'"{PARTS}"'))


def test_a_tag_that_if_match_does_not_match_is_compared_with_the_answer_s(odd_store: OddStore) -> None:
    """A weak tag, as a compressing proxy makes it, matches nothing in If-Match (RFC 9110, 13.1.1)."""
    refused = Answer(b"", None, status=412)
    odd_store.answers["GET"] = [refused, Answer(DATA, f'W/"{MD5}"'), refused, Answer(OTHER, '"other"')]
    assert fetch(odd_store.client, version(), max_bytes=1 << 20, deadline_s=30.0) == DATA
    assert "if-match" not in odd_store.asked[1][2]
    with pytest.raises(ObjectChanged):
        fetch(odd_store.client, version(), max_bytes=1 << 20, deadline_s=30.0)


def test_an_answer_without_a_length_is_read_within_the_limit(odd_store: OddStore) -> None:
    assert fetched(odd_store, version(), Answer(DATA, f'"{MD5}"', chunked=True)) == DATA
    assert fetched(odd_store, version(), Answer(DATA, f'"{MD5}"', chunked=True), max_bytes=len(DATA)) == DATA
    with pytest.raises(ObjectTooLarge, match="TUSSIS_MAX_BYTES"):
        fetched(odd_store, version(), Answer(DATA, f'"{MD5}"', chunked=True), max_bytes=len(DATA) - 1)
    with pytest.raises(DownloadCut):
        fetched(odd_store, version(), Answer(DATA, f'"{MD5}"', chunked=True, ends_early=True))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(DATA, None), StorageUnavailable),
        (Answer(DATA, '""'), StorageUnavailable),
        (
            Answer(b"<html>sign in", f'"{MD5}"', headers={"Content-Type": "text/html", "x-amz-request-id": ""}),
            StorageUnavailable,
        ),
        (Answer(DATA, f'"{MD5}"', headers={"Last-Modified": "never"}), StorageUnavailable),
        (Answer(b"", None, status=302, headers={"Location": "http://login.example/"}), SettingsInvalid),
        (Answer(b"", None, status=407), SettingsInvalid),
    ],
)
def test_what_is_no_object_store_gives_no_recording(
    odd_store: OddStore, answer: Answer, told: type[TussisError]
) -> None:
    odd_store.answers["HEAD"] = [answer]
    with pytest.raises(told, match=r"s3://clinic/a\.wav") as caught:
        fetched(odd_store, version(), answer)
    assert "\n" not in str(caught.value)
    job = Job(job_id=str(uuid.uuid4()), bucket="clinic", key="a.wav", enqueued_at=time.time())
    with pytest.raises(told, match=r"s3://clinic/a\.wav"):
        resolve(odd_store.client, job)
    # botocore does not close the connection of an answer whose headers it cannot parse. The exception holds it in a
    # cycle, and the garbage collector would warn in some later test.
    del caught
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_recording_that_was_uploaded_as_a_web_page_is_one(odd_store: OddStore) -> None:
    assert fetched(odd_store, version(), Answer(DATA, f'"{MD5}"', headers={"Content-Type": "text/html"})) == DATA


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_stored_as_gzip_is_decompressed(odd_store: OddStore, chunked: bool) -> None:
    packed = gzip.compress(DATA[:9000], mtime=0) + gzip.compress(DATA[9000:], mtime=0)
    etag = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    stored = Answer(packed, f'"{etag}"', headers={"Content-Encoding": "aws-chunked,gzip"}, chunked=chunked)
    assert fetched(odd_store, version(etag, len(packed)), stored) == DATA
    # A gateway that compresses on its own keeps the entity tag and the length of what it was given.
    assert fetched(odd_store, version(MD5, len(DATA)), Answer(packed, f'"{MD5}"', headers=stored.headers)) == DATA
    # A header alone makes no gzip.
    assert fetched(odd_store, version(MD5), Answer(DATA, f'"{MD5}"', headers=stored.headers)) == DATA


def test_gzip_that_was_cut_on_its_way_is_a_damaged_download_and_no_corrupt_object(odd_store: OddStore) -> None:
    packed = gzip.compress(DATA, mtime=0)
    etag = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadDamaged):
        fetched(odd_store, version(etag), Answer(packed[:-100], f'"{etag}"', headers=headers))
    # The object itself is like that.
    cut = hashlib.md5(packed[:-100], usedforsecurity=False).hexdigest()
    with pytest.raises(CorruptAudio):
        fetched(odd_store, version(cut), Answer(packed[:-100], f'"{cut}"', headers=headers))


def test_gzip_is_unpacked_within_the_limit(odd_store: OddStore) -> None:
    bomb = gzip.compress(bytes(1 << 24))
    with pytest.raises(ObjectTooLarge, match="after decompression"):
        fetched(odd_store, version("odd"), Answer(bomb, '"odd"', headers={"Content-Encoding": "gzip"}))
    with pytest.raises(CorruptAudio, match="gzip"):
        fetched(odd_store, version("odd", 500), Answer(bomb[:500], '"odd"', headers={"Content-Encoding": "gzip"}))


def test_an_endpoint_with_the_bucket_in_its_path_is_named(odd_store: OddStore) -> None:
    missing = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
    client = s3_client(load_settings(s3_endpoint_url=f"{odd_store.url}/clinic"))
    try:
        odd_store.answers = {"GET": [Answer(missing, None, status=404)], "HEAD": [Answer(b"", None, status=404)]}
        with pytest.raises(SettingsInvalid, match=r"TUSSIS_S3_ENDPOINT_URL .*/clinic"):
            fetch(client, version(), max_bytes=1 << 20, deadline_s=30.0)
        # A gateway that does serve S3 below a path has the bucket.
        odd_store.answers["HEAD /clinic/clinic"] = [Answer()]
        with pytest.raises(ObjectMissing):
            fetch(client, version(), max_bytes=1 << 20, deadline_s=30.0)
    finally:
        client.close()
