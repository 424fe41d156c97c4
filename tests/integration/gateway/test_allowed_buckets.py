"""The gateway refuses objects outside of TUSSIS_ALLOWED_BUCKETS before it sends a request to the object store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import Gateway, gateway_settings, serving
from tests.support.s3_events import record, records
from tests.support.servers import Bucket


@pytest.fixture
def limited(s3_environment: None, broker_url: str, bucket: Bucket) -> Iterator[Gateway]:
    """A gateway for the prefix ``in/`` of the bucket, whose uploads go elsewhere."""
    settings = gateway_settings(broker_url, bucket.name, allowed_buckets=f"another,{bucket.name}/in/")
    with serving(settings, bucket.name) as gateway:
        yield gateway


def test_what_is_not_allowed_is_refused_and_the_rest_enqueued(limited: Gateway, bucket: Bucket) -> None:
    # The objects do not exist: a request to the store would be answered with another error.
    outside, unpinned = ({"uri": bucket.uri("out/a.wav"), **more} for more in ({"etag": "e"}, {}))
    inside = {"uri": bucket.uri("in/a.wav"), "etag": "e"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/jobs", {"json": outside}),
        ("POST", "/v1/jobs", {"json": unpinned}),
        ("POST", "/v1/s3-events", {"content": records(record(bucket.name, "out/a.wav"))}),
        ("POST", "/v1/s3-events", {"content": records(record(bucket.name, "out/a.wav", eTag=None))}),
        ("POST", "/v1/recordings", {"content": b"x"}),
        ("PUT", "/v1/recordings/a.wav", {"content": b"x"}),
    ]
    for method, path, content in requests:
        answer = limited.client.request(method, path, **content)
        assert (answer.status_code, answer.json()["error"]["class"]) == (422, "bucket_not_allowed"), (path, answer.text)
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 0
    assert limited.services.ledger.open_jobs() == 0

    many = limited.client.post("/v1/jobs/many", json={"jobs": [outside, inside, unpinned]}).json()["jobs"]
    assert [job["uri"] for job in many if "job_id" in job] == [inside["uri"]]
    assert {job["error"]["class"] for job in many if "job_id" not in job} == {"bucket_not_allowed"}
    assert limited.services.ledger.open_jobs() == 1
