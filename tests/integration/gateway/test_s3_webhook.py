"""Object stores report uploads to the gateway: with a token, with the signature of SNS, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import HEADERS, TOKEN, Gateway, gateway_settings, serving
from tests.support.s3_events import TOPIC, eventbridge, minio, record, records, sns, test_event
from tests.support.servers import Bucket, s3_client, server_folder
from tests.support.signed_sns import Signer, confirmation
from tests.support.waiting import wait_until
from tussis.shared.errors import SettingsInvalid
from tussis.shared.job_requests import JobRequest, job_for
from tussis.shared.messages import job_id_for
from tussis.shared.pins import Pins
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.s3 import REGION, ObjectStore
from tussis.worker.embedded.servers import Endpoints
from tussis.worker.gateway import s3_webhook
from tussis.worker.gateway.sns import SnsMessages

PATH = "/v1/s3-events"
PART = 5 * 1024 * 1024
ODD = "2026/a b+c%41 ü.wav"


def open_jobs(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """The messages of the ledger by job id."""
    found: Any = gateway.services.redis.hgetall("tussis.ledger")
    return {job_id.decode(): json.loads(message) for job_id, message in found.items()}


@pytest.mark.parametrize("shape", ["records", "minio", "eventbridge", "sns"])
def test_every_shape_is_enqueued_with_a_token(gateway: Gateway, shape: str) -> None:
    plain = records(record("clinic", "a b.wav"))
    body = {
        "records": plain,
        "minio": minio("clinic", "a b.wav"),
        "eventbridge": eventbridge("clinic", "a b.wav"),
        "sns": json.dumps(sns(plain)),
    }[shape]

    first = gateway.client.post(PATH, content=body)
    again = gateway.client.post(PATH, content=body)

    etag = "d41d8cd98f00b204e9800998ecf8427e"
    expected = job_id_for("clinic", "a b.wav", version_id=None, etag=etag, model=None, profile=None)
    assert (first.status_code, first.json()) == (200, {"enqueued": 1, "open_already": 0, "left_out": {}})
    assert again.json() == {"enqueued": 0, "open_already": 1, "left_out": {}}
    assert open_jobs(gateway).keys() == {expected}


def test_the_query_selects_objects_and_has_options(gateway: Gateway) -> None:
    query = "?bucket=clinic&bucket=second&prefix=in/&suffix=.wav&suffix=.mp3&priority=2&model=cough@3&device=cpu"
    body = records(*(record(*where) for where in [("clinic", "in/a.wav"), ("other", "in/a.wav"), ("clinic", "b.wav")]))

    answer = gateway.client.post(PATH + query, content=body)

    assert answer.json() == {"enqueued": 1, "open_already": 0, "left_out": {"filtered": 2}}
    (job,) = open_jobs(gateway).values()
    assert (job["key"], job["priority"], job["model"], job["device"]) == ("in/a.wav", 2, "cough@3", "cpu")
    wrong = gateway.client.post(f"{PATH}?priority=10", content=body)
    unknown = gateway.client.post(f"{PATH}?sufix=.wav", content=body)
    assert (wrong.status_code, unknown.status_code) == (422, 422)


def test_events_that_create_no_job_are_answered_with_success(gateway: Gateway) -> None:
    body = json.dumps([json.loads(test_event("clinic")), json.loads(records(record("clinic", "dir/", size=0)))])

    answer = gateway.client.post(PATH, content=body)

    assert answer.json() == {"enqueued": 0, "open_already": 0, "left_out": {"test_event": 1, "folder": 1}}
    assert open_jobs(gateway) == {}


def test_a_body_that_cannot_be_read_is_not_sent_again_and_one_object_holds_no_other_up(
    gateway: Gateway, bucket: Bucket
) -> None:
    unreadable = gateway.client.post(PATH, content="hello")
    gone = records(record(bucket.name, "absent.wav", eTag=None), record("clinic", "b.wav"))
    refused = gateway.client.post(PATH, content=gone)

    assert (unreadable.status_code, unreadable.json()["error"]["class"]) == (422, "s3_event_unreadable")
    assert (refused.status_code, refused.json()["error"]["class"]) == (422, "object_missing")
    assert [job["key"] for job in open_jobs(gateway).values()] == ["b.wav"]


def test_without_room_the_store_is_told_to_send_it_again(s3_environment: None, broker_url: str, bucket: Bucket) -> None:
    with serving(gateway_settings(broker_url, bucket.name, serve_max_depth=1), bucket.name) as gateway:
        body = records(record("clinic", "a.wav"), record("clinic", "b.wav"))
        full = gateway.client.post(PATH, content=body)

        assert (full.status_code, full.json()["error"]["class"]) == (503, "queue_full")
        assert int(full.headers["Retry-After"]) > 0
        (job_id,) = open_jobs(gateway)
        gateway.services.redis.delete("tussis.ledger", "tussis.open")
        assert gateway.client.post(PATH, content=records(record("clinic", "b.wav"))).json()["enqueued"] == 1
        assert job_id not in open_jobs(gateway)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong-token-of-nobody"}, {"Authorization": f"Basic {TOKEN}"}, {"X-Token": TOKEN}],
)
def test_a_request_without_a_token_and_a_signature_is_refused(gateway: Gateway, headers: dict[str, str]) -> None:
    for body in (records(record("clinic", "a.wav")), "hello", ""):
        answer = httpx.post(gateway.url + PATH, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["class"]) == (401, "token_refused")
    assert open_jobs(gateway) == {}


# --- SNS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Signer:
    """A key in the place of that of SNS."""
    signer = Signer()
    monkeypatch.setattr(s3_webhook, "SnsMessages", lambda topics: SnsMessages(topics, signer.fetch))
    return signer


@pytest.fixture
def subscribed(signer: Signer, s3_environment: None, broker_url: str, bucket: Bucket) -> Iterator[Gateway]:
    """A gateway that accepts the messages of a topic."""
    settings = gateway_settings(broker_url, bucket.name, serve_sns_topics=f"{TOPIC} {TOPIC}2")
    with serving(settings, bucket.name) as gateway:
        yield gateway


def post(gateway: Gateway, message: dict[str, Any]) -> httpx.Response:
    """As SNS does: without a token."""
    return httpx.post(
        gateway.url + PATH, content=json.dumps(message), headers={"Content-Type": "text/plain; charset=UTF-8"}
    )


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_message_that_sns_signed_needs_no_token(subscribed: Gateway, signer: Signer, version: str) -> None:
    message = signer.notification(records(record("clinic", "a.wav")), version)

    answer = post(subscribed, message)

    assert (answer.status_code, answer.json()["enqueued"]) == (200, 1)
    changed = post(subscribed, message | {"Message": records(record("clinic", "b.wav"))})
    foreign = post(subscribed, signer.sign(sns(records(record("clinic", "b.wav")), f"{TOPIC}3"), version))
    assert (changed.status_code, changed.json()["error"]["class"]) == (403, "sns_refused")
    assert (foreign.status_code, foreign.json()["error"]["class"]) == (403, "sns_refused")
    assert [job["key"] for job in open_jobs(subscribed).values()] == ["a.wav"]


def test_a_subscription_is_confirmed_for_a_topic_of_the_settings_only(subscribed: Gateway, signer: Signer) -> None:
    allowed, foreign = signer.sign(confirmation(), "2"), signer.sign(confirmation(f"{TOPIC}3"), "2")
    forged = allowed | {"SubscribeURL": f"{allowed['SubscribeURL']}&x=1"}

    refused = [post(subscribed, message).status_code for message in (foreign, forged)]
    with_token = httpx.post(subscribed.url + PATH, content=json.dumps(foreign), headers=HEADERS).status_code
    assert [*refused, with_token] == [403, 403, 403]
    assert not [url for url in signer.fetched if "ConfirmSubscription" in url]
    answer = post(subscribed, allowed)
    assert (answer.status_code, answer.json()["left_out"]) == (200, {"SubscriptionConfirmation": 1})
    assert signer.fetched[-1] == allowed["SubscribeURL"]
    ended = post(subscribed, signer.sign(confirmation() | {"Type": "UnsubscribeConfirmation"}))
    assert ended.status_code == 200
    assert [url for url in signer.fetched if "ConfirmSubscription" in url] == [allowed["SubscribeURL"]]


def test_a_topic_that_is_no_arn_is_refused_at_the_start(s3_environment: None, broker_url: str, bucket: Bucket) -> None:
    settings = gateway_settings(broker_url, bucket.name, serve_sns_topics="uploads")
    with pytest.raises(SettingsInvalid, match="TUSSIS_SERVE_SNS_TOPICS"), serving(settings, bucket.name):
        pass


# --- SeaweedFS -----------------------------------------------------------------------------------------------------


@contextmanager
def reporting_store(endpoint: str) -> Iterator[Any]:
    """A client of an embedded store whose filer reports to the endpoint."""
    with server_folder() as folder:
        home = folder / "s3"
        home.mkdir(mode=0o700)
        _write(home / "notification.toml", endpoint)
        held = Folder(folder)
        store = ObjectStore(held)
        try:
            store.start()
            keys = held.credentials
            endpoints = Endpoints("", "", store.url, keys.s3_access_key, keys.s3_secret_key, REGION)
            with closing(s3_client(endpoints)) as client:
                yield client
        finally:
            store.stop()
            held.release()


def _write(path: Path, endpoint: str) -> None:
    path.write_text(f'[notification.webhook]\nenabled = true\nendpoint = "{endpoint}"\nbearer_token = "{TOKEN}"\n')


@pytest.mark.acceptance
def test_what_the_filer_of_seaweedfs_reports_is_what_enqueue_would_enqueue(
    s3_environment: None, broker_url: str, bucket: Bucket
) -> None:
    settings = gateway_settings(broker_url, bucket.name, serve_requests_per_s=1000)
    with (
        serving(settings, bucket.name) as gateway,
        reporting_store(f"{gateway.url}{PATH}?bucket=clinic&bucket=versioned") as client,
        closing(Pins(lambda: client, 1)) as pins,
    ):
        clinic, versioned, other = (Bucket(name, client) for name in ("clinic", "versioned", "other"))
        for found in (clinic, versioned, other):
            client.create_bucket(Bucket=found.name)
        expected = set()

        def expect(uri: str) -> None:
            expected.add(job_for(pins.pin(JobRequest(uri)), 0.0).job_id)

        for body in (b"first", b"second"):  # the first content is overwritten
            expect(clinic.put(ODD, body))
        client.copy_object(Bucket="clinic", Key="copy.wav", CopySource={"Bucket": "clinic", "Key": ODD})
        put_in_parts(clinic, "parts.wav")
        for key, body in (("empty.wav", b""), ("folder/", b""), ("big.wav", bytes(2 * PART)), ("tagged.wav", b"x")):
            clinic.put(key, body)
        client.put_object_tagging(Bucket="clinic", Key="tagged.wav", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
        other.put("foreign.wav", b"x")
        for key in ("copy.wav", "parts.wav", "big.wav", "tagged.wav"):
            expect(clinic.uri(key))
        for status in ("Enabled", "Suspended"):
            client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": status})
            for body in (b"one", b"two"):
                expect(versioned.put(f"{status}.wav", body))
        client.delete_object(Bucket="versioned", Key="Enabled.wav")
        wait_until(lambda: expected <= open_jobs(gateway).keys(), 60, "the jobs")
        expect(clinic.put("last.wav", b"last"))
        wait_until(lambda: expected <= open_jobs(gateway).keys(), 60, "the last job")
        assert open_jobs(gateway).keys() == expected


def put_in_parts(bucket: Bucket, key: str) -> None:
    """Store an object of two parts."""
    where = {"Bucket": bucket.name, "Key": key}
    where["UploadId"] = bucket.client.create_multipart_upload(**where)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": bucket.client.upload_part(**where, PartNumber=number, Body=bytes(PART))["ETag"]}
        for number in (1, 2)
    ]
    bucket.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
