"""The buckets and prefixes from which recordings may be read: ``TUSSIS_ALLOWED_BUCKETS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tussis.shared.errors import BucketNotAllowed, InvalidUri, SettingsInvalid
from tussis.shared.uris import ObjectAddress, check_bucket


@dataclass(frozen=True)
class AllowedBuckets:
    """Which objects may be read. ``entries`` None: all."""

    entries: tuple[ObjectAddress, ...] | None = None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read ``bucket`` and ``bucket/prefix/``, with commas between them. None: all.

        Raises :class:`SettingsInvalid`.
        """
        if text is None:
            return cls()
        entries = []
        for entry in text.split(","):
            bucket, _, prefix = entry.strip().partition("/")
            try:
                check_bucket(bucket)
            except InvalidUri:
                raise SettingsInvalid(
                    "TUSSIS_ALLOWED_BUCKETS is wrong: write bucket or bucket/prefix/, with commas between them"
                ) from None
            entries.append(ObjectAddress(bucket, prefix))
        return cls(tuple(entries))

    def check(self, bucket: str, key: str | None = None) -> None:
        """Raise :class:`BucketNotAllowed` unless the object may be read; with ``key`` None, unless any object may.

        A prefix of a listing is checked as a key is. A key with a segment ``.`` or ``..`` is refused, because a store
        that keeps objects in folders may read it as another key.
        """
        if self.entries is None:
            return
        named = [entry for entry in self.entries if entry.bucket == bucket]
        if key is None and named:
            return
        hops = key is not None and not {".", ".."}.isdisjoint(key.split("/"))
        if key is None or hops or not any(key.startswith(entry.key) for entry in named):
            raise BucketNotAllowed(
                f"s3://{bucket}/{key or ''} is not under a bucket or prefix of TUSSIS_ALLOWED_BUCKETS: nothing is read"
            )

    def guard(self, client: Any) -> None:
        """Let a boto3 client check every request before it is sent."""
        if self.entries is not None:
            client.meta.events.register_first("before-parameter-build.s3", self._before)

    def _before(self, params: Mapping[str, Any], model: Any, **_: object) -> None:
        bucket = params.get("Bucket")
        if isinstance(bucket, str):
            listed = params.get("Prefix", "") if str(model.name).startswith("List") else None
            self.check(bucket, params.get("Key", listed))
