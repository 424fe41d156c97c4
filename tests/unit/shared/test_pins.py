"""S3's answers about the keys to enqueue."""

from __future__ import annotations

import pytest

from tests.support.odd_store import Answer, OddStore, odd_store
from tussis.shared.errors import BucketElsewhere, SettingsInvalid, StorageUnavailable
from tussis.shared.job_requests import JobRequest
from tussis.shared.pins import Pins, requests_under

__all__ = ["odd_store"]

REQUESTS = [JobRequest(f"s3://clinic/{number}.wav") for number in range(9)]


def test_an_endpoint_that_leads_elsewhere_is_asked_one_round(odd_store: OddStore) -> None:
    odd_store.answers = {"HEAD": [Answer(etag=None, status=301, headers={"Location": "https://store.example/"})]}
    odd_store.answers["GET"] = odd_store.answers["HEAD"]
    pins = Pins(lambda: odd_store.client, 3)
    with pytest.raises(SettingsInvalid, match=r"https://store\.example/"):
        pins.pin_many(REQUESTS)
    pins.close()
    assert len({path for _, path, _ in odd_store.asked if path.endswith(".wav")}) == 3


def test_a_bucket_elsewhere_is_that_request_s_alone(odd_store: OddStore) -> None:
    elsewhere = Answer(etag=None, status=301, headers={"x-amz-bucket-region": "eu-west-3"})
    odd_store.answers = {"HEAD": [Answer(b"12345")], "HEAD /clinic/0.wav": [elsewhere], "GET": [elsewhere]}
    pins = Pins(lambda: odd_store.client, 3)
    first, *others = pins.pin_many(REQUESTS)
    pins.close()
    assert isinstance(first, BucketElsewhere)
    assert "eu-west-3" in str(first)
    assert [request.etag for request in others if isinstance(request, JobRequest)] == ["9b2c"] * 8


def test_an_answer_without_an_entity_tag_is_one_line(odd_store: OddStore) -> None:
    odd_store.answers = {"HEAD": [Answer(b"12345", None)]}
    pins = Pins(lambda: odd_store.client, 1)
    [answer] = pins.pin_many(REQUESTS[:1])
    pins.close()
    assert isinstance(answer, StorageUnavailable)
    assert "ETag" in str(answer)


def test_a_listing_without_entity_tags_is_one_line(odd_store: OddStore) -> None:
    entry = b"<Contents><Key>a.wav</Key><Size>5</Size></Contents>"
    odd_store.answers = {
        "GET": [Answer(b"<ListBucketResult><IsTruncated>false</IsTruncated>" + entry + b"</ListBucketResult>")]
    }
    with pytest.raises(StorageUnavailable, match="without ETag"):
        list(requests_under("s3://clinic/", lambda: odd_store.client, JobRequest("s3://clinic/")))
