"""S3 URIs: what is taken as it is, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tussis.shared.errors import InvalidUri
from tussis.shared.uris import ObjectAddress, parse_s3_prefix, parse_s3_uri, shown


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://clinic/a.wav", "clinic", "a.wav"),
        ("s3://clinic/2026/11/a b%20c?d#e.wav", "clinic", "2026/11/a b%20c?d#e.wav"),
        ("s3://clinic//leading", "clinic", "/leading"),
        ("s3://clinic/ä/日本.ogg", "clinic", "ä/日本.ogg"),
        ("s3://Old_Bucket.name-1/k", "Old_Bucket.name-1", "k"),
    ],
)
def test_bucket_and_key_come_out_as_they_stand(uri: str, bucket: str, key: str) -> None:
    address = parse_s3_uri(uri)

    assert address == ObjectAddress(bucket, key)
    assert address.uri == uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "not an S3 URI"),
        ("clinic/a.wav", "not an S3 URI"),
        ("http://clinic/a.wav", "not an S3 URI"),
        ("S3://clinic/a.wav", "not an S3 URI"),
        (None, "not an S3 URI"),
        (b"s3://clinic/a.wav", "not an S3 URI"),
        ("s3://", "no key"),
        ("s3://clinic", "no key"),
        ("s3://clinic/", "no key"),
        ("s3:///a.wav", "not a bucket name"),
        ("s3://ab/a.wav", "not a bucket name"),
        ("s3://-clinic/a.wav", "not a bucket name"),
        ("s3://cli nic/a.wav", "not a bucket name"),
        ("s3://" + "b" * 256 + "/a.wav", "not a bucket name"),
        ("s3://clinic/" + "k" * 1025, "1 to 1024 are allowed"),
        ("s3://clinic/a\0b", "NUL"),
        ("s3://clinic/\ud800", "Unicode"),
        ("x" * 10_000, "not an S3 URI"),
    ],
)
def test_what_is_no_uri_is_refused_in_one_short_line(uri: Any, says: str) -> None:
    with pytest.raises(InvalidUri, match=says) as refused:
        parse_s3_uri(uri)

    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://clinic", "clinic", ""),
        ("s3://clinic/", "clinic", ""),
        ("s3://clinic/2026/11/", "clinic", "2026/11/"),
        ("s3://clinic/2026/1", "clinic", "2026/1"),
    ],
)
def test_a_prefix_may_be_empty(uri: str, bucket: str, prefix: str) -> None:
    assert parse_s3_prefix(uri) == (bucket, prefix)


@pytest.mark.parametrize("uri", ["", "clinic", "s3://", "s3://ab", "s3://clinic/a\0b"])
def test_what_is_no_prefix_is_refused(uri: str) -> None:
    with pytest.raises(InvalidUri):
        parse_s3_prefix(uri)


def test_what_is_shown_stays_short() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1000)) == 80
