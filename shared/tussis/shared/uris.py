"""S3 URIs. The key is in the URI unchanged: nothing is percent-decoded, and ``?`` and ``#`` are part of the key."""

from __future__ import annotations

import re
from typing import NamedTuple

from tussis.shared.errors import InvalidUri

#: S3's own limit on a key: 1024 bytes of UTF-8.
MAX_KEY_BYTES = 1024
# Characters that S3 accepts: lower case, digits, dots, dashes, and (old AWS buckets) upper case and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


class ObjectAddress(NamedTuple):
    """A bucket and a key."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def shown(value: object) -> str:
    """The repr of the value for a message of one line: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_bucket(bucket: str) -> None:
    """Raise :class:`InvalidUri` unless ``bucket`` is a valid bucket name."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidUri(f"not a bucket name: {shown(bucket)}: use 3 to 255 letters, digits, dots and dashes")


def check_key(key: str) -> None:
    """Raise :class:`InvalidUri` unless ``key`` is a valid object key that PostgreSQL can store."""
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidUri(f"the key is not valid Unicode: {shown(key)}") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidUri(f"the key has {size} bytes of UTF-8: 1 to {MAX_KEY_BYTES} are allowed")
    if "\x00" in key:
        raise InvalidUri(f"the key contains a NUL character: {shown(key)}")


def parse_s3_uri(uri: str) -> ObjectAddress:
    """Split ``s3://bucket/key``.

    Raises :class:`InvalidUri` for another scheme, an empty bucket or key, and a key over 1024 bytes or with a NUL.
    """
    bucket, key = _split(uri)
    if not key:
        raise InvalidUri(f"no key in {shown(uri)}: write s3://bucket/key")
    check_bucket(bucket)
    check_key(key)
    return ObjectAddress(bucket, key)


def parse_s3_prefix(uri: str) -> ObjectAddress:
    """Split ``s3://bucket/prefix`` for a listing. ``s3://bucket`` means the whole bucket, with an empty key.

    Raises :class:`InvalidUri` as :func:`parse_s3_uri` does.
    """
    bucket, prefix = _split(uri)
    check_bucket(bucket)
    if prefix:
        check_key(prefix)
    return ObjectAddress(bucket, prefix)


def _split(uri: str) -> tuple[str, str]:
    if not isinstance(uri, str) or not uri.startswith("s3://"):
        raise InvalidUri(f"not an S3 URI: {shown(uri)}: write s3://bucket/key")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
