"""The short request for an object on a real object store, which checks its signature."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.servers import Bucket
from tussis.shared.messages import normalise_etag
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings
from tussis.worker.embedded.servers import Servers
from tussis.worker.pipeline import objects
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.repeated_get import RepeatedGet

KEYS = ("a.wav", "2026/Müller + Söhne 100%.wav", "q?x=1&y#z.ogg", "~tilde-_.'()*!")


@pytest.fixture
def s3(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in servers.endpoints.environment().items():
        monkeypatch.setenv(name, value)
    return s3_client(load_settings())


def test_the_store_accepts_the_short_request(s3: Any, bucket: Bucket) -> None:
    """Given a bucket before and after it keeps versions, when its objects are fetched, then one call was botocore's."""
    calls: list[str] = []
    s3.meta.events.register("before-call.s3.GetObject", lambda params, **_: calls.append(params["url"]))
    repeated = RepeatedGet(s3)

    versions = set()
    for number in range(2):
        for key in KEYS:
            bucket.put(key, f"{number}{key}".encode() * 9_000)
        for key in KEYS:
            head = s3.head_object(Bucket=bucket.name, Key=key)
            versions.add(head.get("VersionId"))
            version = ObjectVersion(bucket.name, key, normalise_etag(head["ETag"]), head.get("VersionId"), None)
            data = objects.fetch(repeated, version, max_bytes=10_000_000, deadline_s=60.0)
            assert data == f"{number}{key}".encode() * 9_000
        status = {"Status": "Enabled"}
        bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=status)

    assert len(versions) > len(KEYS)
    assert len(calls) == 1, calls


def test_a_client_without_the_internal_session_makes_whole_calls(s3: Any, bucket: Bucket) -> None:
    bucket.put("a.wav", b"sound")
    etag = normalise_etag(s3.head_object(Bucket=bucket.name, Key="a.wav")["ETag"])
    calls: list[str] = []
    s3.meta.events.register("before-call.s3.GetObject", lambda params, **_: calls.append(params["url"]))
    session = s3._endpoint.http_session
    del s3._endpoint.http_session
    repeated = RepeatedGet(s3)
    s3._endpoint.http_session = session

    for _ in range(2):
        answer = repeated.get_object(Bucket=bucket.name, Key="a.wav", IfMatch=f'"{etag}"')
        assert answer["Body"].read() == b"sound"

    assert len(calls) == 2
