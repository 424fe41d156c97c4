"""The routes of jobs and batches, over a real broker and a real object store."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import httpx
import pytest

from tests.support.gateway import OTHER_TOKEN, Gateway, gateway_settings, serving
from tests.support.outcomes import succeeded
from tests.support.servers import Bucket
from tussis.shared.messages import job_id_for
from tussis.worker.gateway.jobs import fingerprint
from tussis.worker.gateway.models import OneJob


@pytest.fixture
def close(gateway: Gateway) -> Callable[[str], None]:
    """Let a job end with an answer."""

    def close(job_id: str) -> None:
        job = gateway.services.ledger.find(job_id)
        assert job is not None
        assert gateway.services.ledger.close(job, succeeded(job))

    return close


def test_one_recording_is_enqueued_under_the_id_that_every_producer_gives_it(gateway: Gateway, bucket: Bucket) -> None:
    uri = bucket.put("a.wav", b"sound")
    etag = bucket.client.head_object(Bucket=bucket.name, Key="a.wav")["ETag"].strip('"')

    answer = gateway.client.post("/v1/jobs", json={"uri": uri, "priority": 2, "metadata": {"site": "north"}})

    expected = job_id_for(bucket.name, "a.wav", version_id=None, etag=etag, model=None, profile=None)
    assert (answer.status_code, answer.json()) == (202, {"job_id": expected, "uri": uri, "sent": True})
    job = gateway.services.ledger.find(expected)
    assert job is not None
    assert (job.etag, job.priority, job.metadata) == (etag, 2, {"site": "north"})
    again = gateway.client.post("/v1/jobs", json={"uri": uri})
    assert again.json() == {"job_id": expected, "uri": uri, "sent": False}


@pytest.mark.parametrize(
    ("body", "status", "error_class", "part"),
    [
        ({"uri": "http://x/y"}, 422, "invalid_uri", "s3://"),
        ({"uri": "s3://BUCKET/absent.wav"}, 422, "object_missing", "absent.wav"),
        ({}, 422, "request_invalid", "body.uri"),
        ({"uri": "s3://BUCKET/a", "etag": "x", "priority": 10}, 422, "request_invalid", "priority"),
        ({"uri": "s3://BUCKET/a", "etag": "x", "colour": 1}, 422, "request_invalid", "colour"),
        ({"uri": "s3://BUCKET/a", "etag": "x", "profile": "no such"}, 422, "invalid_job", "profile"),
        ({"uri": "s3://BUCKET/a", "etag": "x", "metadata": {"recorded_at": "now"}}, 422, "invalid_job", "recorded_at"),
        ({"uri": "s3://BUCKET/a", "etag": "x", "metadata": {"x": "y" * 70_000}}, 413, "message_too_large", "bytes"),
    ],
)  # fmt: skip
def test_a_wrong_recording_is_refused_in_one_line(
    gateway: Gateway, bucket: Bucket, body: dict[str, object], status: int, error_class: str, part: str
) -> None:
    if "uri" in body:
        body = body | {"uri": str(body["uri"]).replace("BUCKET", bucket.name)}

    answer = gateway.client.post("/v1/jobs", json=body)

    error = answer.json()["error"]
    assert (answer.status_code, error["class"]) == (status, error_class)
    assert part in error["message"]
    assert "\n" not in error["message"]
    assert gateway.services.ledger.open_jobs() == 0


def test_a_body_that_is_no_json_and_an_unknown_path_have_the_same_form(gateway: Gateway) -> None:
    broken = gateway.client.post("/v1/jobs", content=b'{"uri": ', headers={"Content-Type": "application/json"})
    unknown = gateway.client.get("/v1/nothing")
    method = gateway.client.delete("/v1/jobs")

    assert (broken.status_code, broken.json()["error"]["class"]) == (422, "request_invalid")
    assert (unknown.status_code, unknown.json()["error"]["class"]) == (404, "route_unknown")
    assert (method.status_code, method.json()["error"]["class"]) == (405, "route_unknown")


def test_many_recordings_in_a_batch_of_which_one_is_missing(gateway: Gateway, bucket: Bucket) -> None:
    jobs = [{"uri": bucket.put(f"{number}.wav", b"%d" % number)} for number in range(3)]
    jobs.insert(1, {"uri": bucket.uri("absent.wav")})

    answer = gateway.client.post("/v1/jobs/many", json={"jobs": jobs, "batch": "nov/1", "close_batch": True})

    told = answer.json()
    assert (answer.status_code, told["enqueued"], told["refused"]) == (202, 3, 1)
    assert [item["uri"] for item in told["jobs"]] == [job["uri"] for job in jobs]
    assert told["jobs"][1]["error"]["class"] == "object_missing"
    batch = gateway.client.get("/v1/batches/nov/1").json()
    assert (batch["batch"], batch["state"], batch["total"], batch["open"]) == ("nov/1", "closed", 3, 3)
    assert gateway.client.get("/v1/batches").json() == {"batches": [batch]}


def test_a_batch_is_closed_and_an_unknown_one_is_404(gateway: Gateway) -> None:
    assert gateway.client.get("/v1/batches/none").json()["error"]["class"] == "batch_unknown"
    assert gateway.client.get("/v1/batches/none").status_code == 404

    closed = gateway.client.post("/v1/batches/empty/close")

    assert (closed.status_code, closed.json()["state"]) == (200, "done")


def test_a_full_queue_is_503_and_what_was_enqueued_is_told(
    s3_environment: None, broker_url: str, bucket: Bucket
) -> None:
    jobs = [{"uri": bucket.uri(f"{number}.wav"), "etag": "x"} for number in range(3)]
    with serving(gateway_settings(broker_url, bucket.name, serve_max_depth=2), bucket.name) as gateway:
        some = gateway.client.post("/v1/jobs/many", json={"jobs": jobs})
        none = gateway.client.post("/v1/jobs/many", json={"jobs": jobs[2:]})
        one = gateway.client.post("/v1/jobs", json=jobs[2])
        upload = gateway.client.post("/v1/recordings", content=b"sound")

        assert (some.status_code, some.json()["enqueued"]) == (202, 2)
        assert some.json()["jobs"][2]["error"]["class"] == "queue_full"
        for answer in (none, one, upload):
            assert (answer.status_code, answer.json()["error"]["class"]) == (503, "queue_full")
            assert int(answer.headers["Retry-After"]) > 0
        assert gateway.uploads() == []


def test_the_state_of_a_job_from_its_enqueueing_to_its_answer(gateway: Gateway, close: Callable[[str], None]) -> None:
    job_id = gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/a.wav", "etag": "x"}).json()["job_id"]
    opened = gateway.client.get(f"/v1/jobs/{job_id}").json()
    assert (opened["state"], opened["queue"]) == ("open", "tussis.any")
    waited = gateway.client.get(f"/v1/jobs/{job_id}", params={"wait_s": 0.2}).json()
    assert waited["state"] == "open"

    close(job_id)
    ended = gateway.client.get(f"/v1/jobs/{job_id}").json()

    assert (ended["state"], ended["decision"], ended["bag_probability"]) == ("succeeded", True, 0.8123456716537476)
    assert ended["segments"] == [{"start_s": 0.0, "probability": 0.25}, {"start_s": 0.5, "probability": 0.25}]


def test_a_wait_ends_when_the_job_ends(gateway: Gateway, close: Callable[[str], None]) -> None:
    job_id = gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/a.wav", "etag": "x"}).json()["job_id"]
    threading.Timer(1.0, close, [job_id]).start()
    began = time.monotonic()

    ended = gateway.client.get(f"/v1/jobs/{job_id}", params={"wait_s": 25})

    assert ended.json()["state"] == "succeeded"
    assert 0.9 < time.monotonic() - began < 4.5  # before the second look at the job, which comes after 5 s


def test_unknown_jobs_are_404(gateway: Gateway) -> None:
    for job_id in (str(uuid.uuid4()), "x"):
        for query in ("", "?wait_s=5"):
            answer = gateway.client.get(f"/v1/jobs/{job_id}{query}")
            assert (answer.status_code, answer.json()["error"]["class"]) == (404, "job_unknown")


class TestIdempotencyKey:
    def test_a_repeated_request_has_the_first_answer_and_enqueues_nothing(self, gateway: Gateway) -> None:
        body = {"uri": "s3://clinic/a.wav", "etag": "x", "again": True}
        headers = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}

        first = gateway.client.post("/v1/jobs", json=body, headers=headers)
        second = gateway.client.post("/v1/jobs", json=body, headers=headers)
        other_caller = gateway.client.post(
            "/v1/jobs", json=body, headers=headers | {"Authorization": f"Bearer {OTHER_TOKEN}"}
        )

        assert (first.status_code, second.status_code) == (202, 202)
        assert second.json() == first.json()
        assert other_caller.json()["job_id"] != first.json()["job_id"]
        assert gateway.services.ledger.open_jobs() == 2

    def test_another_request_with_the_key_is_422(self, gateway: Gateway) -> None:
        headers = {"Idempotency-Key": "k1"}
        gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/a.wav", "etag": "x"}, headers=headers)

        other = gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/b.wav", "etag": "x"}, headers=headers)

        assert (other.status_code, other.json()["error"]["class"]) == (422, "idempotency_key_reused")
        assert gateway.services.ledger.open_jobs() == 1

    def test_a_failed_request_may_be_repeated_with_another_body(self, gateway: Gateway, bucket: Bucket) -> None:
        headers = {"Idempotency-Key": "k2"}
        missing = gateway.client.post("/v1/jobs", json={"uri": bucket.uri("a.wav")}, headers=headers)
        uri = bucket.put("b.wav", b"sound")

        found = gateway.client.post("/v1/jobs", json={"uri": uri}, headers=headers)

        assert (missing.status_code, found.status_code) == (422, 202)

    def test_while_a_request_is_processed_a_repeated_one_is_409(self, gateway: Gateway) -> None:
        idempotency = gateway.services.idempotency
        occasion = idempotency.begin("k3", "clinic", "fingerprint of another request")
        body = {"uri": "s3://clinic/a.wav", "etag": "x"}
        reused = gateway.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k3"})
        assert reused.status_code == 422
        idempotency.release(occasion)

        idempotency.begin("k4", "clinic", fingerprint("jobs", OneJob.model_validate(body)))
        busy = gateway.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k4"})

        assert (busy.status_code, busy.json()["error"]["class"]) == (409, "idempotency_key_busy")
        assert "Retry-After" in busy.headers

    def test_after_a_kill_the_repeated_request_has_the_same_ids(self, gateway: Gateway) -> None:
        """The key of the killed process becomes free when its claim expires."""
        idempotency = gateway.services.idempotency
        killed = idempotency.begin("k5", "clinic", "f")
        gateway.services.redis.hset(str(killed.key), "busy_until", 0)

        repeated = idempotency.begin("k5", "clinic", "f")

        assert repeated.answer is None
        assert (repeated.at, repeated.new_id(3)) == (killed.at, killed.new_id(3))
        assert killed.new_id(3) != killed.new_id(4)

    @pytest.mark.parametrize("key", ["", "a b", "ä".encode().decode("latin-1"), "x" * 256])
    def test_a_key_of_another_form_is_422(self, gateway: Gateway, key: str) -> None:
        answer = gateway.client.post(
            "/v1/jobs",
            json={"uri": "s3://clinic/a.wav", "etag": "x"},
            headers=[(b"Idempotency-Key", key.encode("latin-1"))],
        )

        assert (answer.status_code, answer.json()["error"]["class"]) == (422, "request_invalid")


class TestTokens:
    @pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic YTpi", "Bearer", "Bearer é"])
    def test_without_a_token_nothing_is_answered(self, gateway: Gateway, header: str | None) -> None:
        headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            for method, path in (("GET", "/v1/batches"), ("POST", "/v1/recordings"), ("GET", "/v1/metrics")):
                answer = client.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["class"]) == (401, "token_refused")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert client.get("/healthz/live").status_code == 200
            assert client.get("/healthz/ready").json() == {"status": "ready", "reason": None}

    def test_each_token_has_a_rate_of_its_own(self, s3_environment: None, broker_url: str, bucket: Bucket) -> None:
        settings = gateway_settings(broker_url, bucket.name, serve_requests_per_s=0.5)
        with serving(settings, bucket.name) as gateway:
            first = gateway.client.get("/v1/batches")
            second = gateway.client.get("/v1/batches")
            other = gateway.client.get("/v1/batches", headers={"Authorization": f"Bearer {OTHER_TOKEN}"})

        assert (first.status_code, second.status_code, other.status_code) == (200, 429, 200)
        assert second.json()["error"]["class"] == "rate_exceeded"
        assert 1 <= int(second.headers["Retry-After"]) <= 2


def test_a_misspelt_parameter_is_refused(gateway: Gateway) -> None:
    for method, path, hint in (
        ("POST", "/v1/recordings?prority=0", "did you mean priority?"),
        ("GET", "/v1/failures?colour=red", "use class"),
        ("GET", "/v1/batches?limit=1", "it has none"),
    ):
        answer = gateway.client.request(method, path, content=b"x")
        assert (answer.status_code, answer.json()["error"]["class"]) == (422, "request_invalid"), path
        assert hint in answer.json()["error"]["message"]
    assert gateway.uploads() == []


def test_metrics_count_requests_by_their_route(gateway: Gateway) -> None:
    gateway.client.get("/v1/batches/some/name")
    gateway.client.get("/v1/batches/some/other?secret=1")
    gateway.client.get("/elsewhere")

    text = gateway.client.get("/v1/metrics").text

    assert 'tussis_http_requests_total{method="GET",route="/v1/batches/{name:path}",status="404"} 1.0' in text
    assert 'tussis_http_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert "tussis_http_open_jobs 0.0" in text
    assert "secret" not in text


def test_a_broker_that_is_away_is_503(gateway: Gateway, servers: object, unused_port: int) -> None:
    settings = gateway.services.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{unused_port}/0"})
    with serving(settings, gateway.bucket) as away:
        ready = away.client.get("/healthz/ready")
        answer = away.client.post("/v1/jobs", json={"uri": "s3://clinic/a.wav", "etag": "x"})

    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready", "reason": "broker_unavailable"})
    assert (answer.status_code, answer.json()["error"]["class"]) == (503, "broker_unavailable")
    assert "Retry-After" in answer.headers


def test_what_needs_the_database_says_so(gateway: Gateway) -> None:
    for method, path, body in (
        ("GET", "/v1/failures", None),
        ("POST", "/v1/cancellations", {"batch": "x"}),
    ):
        answer = gateway.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["class"]) == (503, "settings_invalid")
        assert "TUSSIS_DATABASE_URL" in answer.json()["error"]["message"]
