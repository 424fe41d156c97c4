"""``TUSSIS_ALLOWED_BUCKETS``: what is not allowed is refused before any request to the object store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tussis.producer import JobRequest, Producer
from tussis.shared.allowed import AllowedBuckets
from tussis.shared.errors import BucketNotAllowed, SettingsInvalid
from tussis.shared.s3 import head_object, list_objects, s3_client
from tussis.shared.settings import load_settings
from tussis.shared.uploads import UPLOAD_READ_TIMEOUT_S

TEXT = "clinic, other/2026/,other/2027/"


@pytest.mark.parametrize("key", ["a.wav", "2026/../b.wav\n", "..a", "x/.hidden"])
def test_a_bucket_allows_its_keys(key: str) -> None:
    if ".." in key.split("/"):
        with pytest.raises(BucketNotAllowed):
            AllowedBuckets.parse(TEXT).check("clinic", key)
    else:
        AllowedBuckets.parse(TEXT).check("clinic", key)
    AllowedBuckets.parse(None).check("any", key)


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("other", "a.wav"),
        ("other", "2026"),
        ("other", "20260/a.wav"),
        ("other", "2026/../2025/a.wav"),
        ("other", "2026/./a.wav"),
        ("clinic", ".."),
        ("clinic2", "a.wav"),
        ("Clinic", "a.wav"),
        ("2026", "a.wav"),
        ("unknown", None),
        ("other", ""),
    ],
)
def test_what_is_not_under_an_entry_is_refused(bucket: str, key: str | None) -> None:
    with pytest.raises(BucketNotAllowed, match="TUSSIS_ALLOWED_BUCKETS"):
        AllowedBuckets.parse(TEXT).check(bucket, key)


@pytest.mark.parametrize("text", [",", "clinic,", "s3://clinic", "/2026/", "*", "a b"])
def test_a_wrong_setting_allows_nothing(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="TUSSIS_ALLOWED_BUCKETS"):
        AllowedBuckets.parse(text)
    with pytest.raises(SettingsInvalid, match="TUSSIS_ALLOWED_BUCKETS"):
        s3_client(load_settings(allowed_buckets=text, s3_endpoint_url="http://127.0.0.1:1"))


def client(unused_port: int, **more: Any) -> Any:
    settings = load_settings(allowed_buckets=TEXT, s3_endpoint_url=f"http://127.0.0.1:{unused_port}")
    return s3_client(settings, read_timeout_s=UPLOAD_READ_TIMEOUT_S, **more)


@pytest.mark.parametrize(
    "request_",
    [
        lambda s3: s3.get_object(Bucket="other", Key="a"),
        lambda s3: head_object(s3, "other", "a"),
        lambda s3: s3.head_bucket(Bucket="unknown"),
        lambda s3: s3.put_object(Bucket="other", Key="a", Body=b""),
        lambda s3: next(list_objects(s3, "other", "")),
        lambda s3: next(list_objects(s3, "other", "20")),
        lambda s3: s3.list_objects_v2(Bucket="other"),
    ],
)
def test_a_client_sends_no_request_for_another_bucket(
    request_: Callable[[Any], object], unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    s3 = client(unused_port)
    sent: list[str] = []
    s3.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.url))
    with pytest.raises(BucketNotAllowed):
        request_(s3)
    assert sent == []
    # A client for models may.
    with pytest.raises(EndpointConnectionError):
        client(unused_port, recordings=False).get_object(Bucket="other", Key="a")


def test_a_producer_with_settings_refuses_early() -> None:
    requests = [JobRequest("s3://other/a.wav", etag="e"), JobRequest("s3://other/2026/a.wav", etag="e")]
    with Producer("redis://127.0.0.1:1", settings=load_settings(allowed_buckets=TEXT)) as producer:
        refused, accepted = producer.enqueue_many(requests, dry_run=True)
        with pytest.raises(BucketNotAllowed):
            producer.enqueue("s3://other/a.wav", etag="e")
    assert isinstance(refused.error, BucketNotAllowed)
    assert accepted.error is None
