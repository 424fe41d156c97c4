"""Deletes objects with all their versions and delete markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from tussis.shared.forgetting import Target, TargetKind
from tussis.shared.s3 import list_objects, storage_errors


def versions(s3: Any, target: Target) -> Iterator[tuple[str, str, str | None]]:
    """Bucket, key and version id of everything under an object's key, or under a prefix.

    The version is None in a store without versions. Raises the errors of :func:`tussis.shared.s3.storage_errors`.
    """
    found = False
    uri = f"s3://{target.name}"
    try:
        with storage_errors(uri, s3):
            pages = s3.get_paginator("list_object_versions").paginate(Bucket=target.bucket, Prefix=target.key)
            entries = [
                (entry["Key"], entry["VersionId"])
                for page in pages
                for part in ("Versions", "DeleteMarkers")
                for entry in page.get(part, [])
            ]
    except Exception as error:
        if not isinstance(error.__cause__, ClientError) or _code(error.__cause__) not in _NO_VERSIONS:
            raise
        entries = []
    for key, version in entries:
        if _is_meant(target, key):
            found = True
            yield target.bucket, key, None if version == "null" else version
    if not found:
        for listed in list_objects(s3, target.bucket, target.key):
            if _is_meant(target, listed.key):
                yield target.bucket, listed.key, None


def delete(s3: Any, objects: Iterable[tuple[str, str, str | None]]) -> int:
    """Delete the versions; returns their number."""
    count = 0
    for bucket, key, version in objects:
        which = {"Bucket": bucket, "Key": key} | ({} if version is None else {"VersionId": version})
        with storage_errors(f"s3://{bucket}/{key}", s3):
            s3.delete_object(**which)
        count += 1
    return count


_NO_VERSIONS = frozenset({"NotImplemented", "MethodNotAllowed"})


def _is_meant(target: Target, key: str) -> bool:
    return target.kind is TargetKind.PREFIX or key == target.key


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))
