"""The old backend's routes over a real broker and a real object store. A thread of the test ends the jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.support.gateway import HEADERS, Gateway, gateway_settings, serving
from tests.support.old_client import post
from tests.support.outcomes import an_answer, failed, succeeded
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.shared.messages import Job
from tussis.shared.outcomes import JobOutcome, OutcomeAnswer, OutcomeState
from tussis.shared.queues import MODELS_KEY
from tussis.worker.embedded.servers import Servers

#: Seconds. Every wait ends long before on a quiet machine.
WAIT_S = 60.0
Serve = Callable[..., Gateway]
End = Callable[[Job], JobOutcome]


@pytest.fixture
def old(s3_environment: None, broker_url: str, bucket: Bucket) -> Iterator[Serve]:
    """Starts a gateway whose old routes need no token."""
    with_gateways: list[Any] = []

    def start(**settings: Any) -> Gateway:
        usual = {"serve_old_routes": "open", "serve_old_wait_s": WAIT_S}
        url = settings.pop("broker_url", broker_url)
        context = serving(gateway_settings(url, bucket.name, **(usual | settings)), bucket.name)
        with_gateways.append(context)
        return context.__enter__()

    yield start
    for context in with_gateways:
        context.__exit__(None, None, None)


@contextmanager
def ending(gateway: Gateway, end: End) -> Iterator[list[Job]]:
    """End every job that is opened, as a worker does. Yields the jobs."""
    jobs: list[Job] = []
    stop = threading.Event()

    def work() -> None:
        ledger = gateway.services.ledger
        redis: Any = gateway.services.redis
        while not stop.wait(0.02):
            job_ids: Any = redis.zrange("tussis.open", 0, -1)
            for job_id in job_ids:
                job = ledger.find(job_id.decode())
                if job is not None:
                    ledger.close(job, end(job))
                    jobs.append(job)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield jobs
    finally:
        stop.set()
        thread.join()


def answering(**fields: Any) -> End:
    answer = replace(an_answer(2), **fields)
    return lambda job: succeeded(job, answer=answer)


def stored(gateway: Gateway) -> list[bytes]:
    s3 = gateway.services.s3.client()
    return [s3.get_object(Bucket=gateway.bucket, Key=key)["Body"].read() for key in gateway.uploads()]


@pytest.mark.parametrize("web", [False, True])
def test_a_recording_is_stored_enqueued_first_in_line_and_answered(old: Serve, web: bool) -> None:
    gateway = old()

    with ending(gateway, answering(bag_probability=0.75, threshold=0.5)) as jobs:
        reply = post(gateway.url, b"sound", web=web)

    assert (reply.status, reply.body["coughDetected"], reply.body["confidence"]) == (200, True, 0.75)
    assert reply.body["segment_timestamps"] == [[0.0, 2.0], [0.5, 2.5]]
    assert reply.body["message"]
    assert "error" not in reply.body
    (job,) = jobs
    assert (job.priority, job.profile, job.coverage) == (0, None, None)
    assert job.job_id == reply.body["job_id"]
    assert job.key.endswith(".m4a")
    assert "recording" not in job.key
    assert stored(gateway) == [b"sound"]


def test_the_threshold_is_a_field_or_in_the_query(old: Serve) -> None:
    gateway = old()
    with ending(gateway, answering(bag_probability=0.75, threshold=0.5)):
        field = post(gateway.url, b"one", threshold="0.8").body
        url = f"{gateway.url}/api/detect-cough?threshold=0.9"
        query = httpx.post(url, files={"audio": ("a.wav", b"two")}, timeout=WAIT_S).json()

    assert (field["coughDetected"], field["threshold_used"]) == (False, 0.8)
    assert (query["coughDetected"], query["threshold_used"]) == (False, 0.9)
    assert field["file_probability"] == query["file_probability"] == 0.75


def test_legacy_is_asked_for_by_a_setting(old: Serve) -> None:
    gateway = old(serve_old_legacy=True)
    with ending(gateway, answering()) as jobs:
        post(gateway.url, b"sound")
    assert [(job.profile, job.coverage) for job in jobs] == [("legacy", "head")]


def _without_a_file(url: str) -> list[httpx.Response]:
    url += "/api/detect-cough"
    return [
        httpx.post(url),
        httpx.post(url, content=b"RIFF", headers={"Content-Type": "audio/wav"}),
        httpx.post(url, data={"threshold": "0.5"}),
        httpx.post(url, files={"threshold": (None, "0.5")}),
    ]


def test_a_request_without_a_file_is_400(old: Serve) -> None:
    gateway = old()
    for reply in _without_a_file(gateway.url):
        assert (reply.status_code, reply.json()) == (400, {"error": "No audio file provided"})
    assert not gateway.uploads()


@pytest.mark.parametrize("query", [False, True])
def test_a_wrong_threshold_is_400_and_leaves_nothing(old: Serve, query: bool) -> None:
    gateway = old()
    if query:
        url = f"{gateway.url}/api/detect-cough?threshold=high"
        reply = httpx.post(url, files={"audio": ("a.wav", b"two")})
        status, body = reply.status_code, reply.json()
    else:
        told = post(gateway.url, b"sound", threshold="high")
        status, body = told.status, told.body
    assert status == 400
    assert body["error"] == "threshold must be a number from 0 to 1, not 'high'"
    assert not gateway.uploads()
    assert gateway.services.ledger.open_jobs() == 0


def test_a_recording_that_cannot_be_analysed_is_500(old: Serve) -> None:
    gateway = old()
    with ending(gateway, failed) as jobs:
        reply = post(gateway.url, b"no sound")
    assert (reply.status, reply.shown_error) == (500, "Failed to process audio")
    assert (reply.body["error_class"], reply.body["job_id"]) == ("corrupt", jobs[0].job_id)


def test_an_empty_recording_is_500(old: Serve) -> None:
    gateway = old()
    reply = post(gateway.url, b"")
    assert (reply.status, reply.body) == (500, {"error": "Failed to process audio", "error_class": "empty"})


def test_a_cancelled_job_is_503(old: Serve) -> None:
    gateway = old()

    def cancelled(job: Job) -> JobOutcome:
        return JobOutcome(job_id=job.job_id, uri=job.uri, state=OutcomeState.CANCELLED)

    with ending(gateway, cancelled):
        reply = post(gateway.url, b"sound")
    assert reply.status == 503
    assert "cancelled" in (reply.shown_error or "")


def test_the_wait_ends_and_the_job_goes_on(old: Serve) -> None:
    gateway = old(serve_old_wait_s=0.5)

    began = time.monotonic()
    reply = post(gateway.url, b"sound")

    assert time.monotonic() - began < WAIT_S
    assert reply.status == 503
    assert "Do not send it again" in (reply.shown_error or "")
    job = gateway.services.ledger.find(reply.body["job_id"])
    assert job is not None
    assert stored(gateway) == [b"sound"]
    with ending(gateway, answering()):
        wait_until(lambda: gateway.services.ledger.open_jobs() == 0, WAIT_S, "the end of the job")
    told = gateway.client.get(f"/v1/jobs/{job.job_id}").json()
    assert told["state"] == "succeeded"


def test_a_slow_upload_does_not_shorten_the_wait(old: Serve) -> None:
    gateway = old(serve_old_wait_s=1.0)
    head = b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head + b"sound"
        time.sleep(1.5)  # longer than the wait: the time of a slow connection
        yield b"\r\n--x--\r\n"

    with ending(gateway, answering()):
        reply = httpx.post(
            f"{gateway.url}/api/detect-cough",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            timeout=60,
        )
    assert reply.status_code == 200, reply.text


def test_an_answer_that_the_worker_could_not_read_is_no_failure(old: Serve) -> None:
    gateway = old()
    with ending(gateway, lambda job: succeeded(job, answer=None)):
        reply = post(gateway.url, b"sound")
    assert reply.status == 503
    assert "Do not send it again" in (reply.shown_error or "")


def test_the_wait_survives_a_restart_of_the_broker(old: Serve, servers: Servers) -> None:
    gateway = old()
    replies: list[Any] = []
    client = threading.Thread(target=lambda: replies.append(post(gateway.url, b"sound")))
    client.start()
    wait_until(lambda: gateway.services.ledger.open_jobs() == 1, WAIT_S, "the job")
    servers.broker.kill()
    servers.broker.start()
    with ending(gateway, answering()):
        client.join(WAIT_S)
    assert [reply.status for reply in replies] == [200]


def test_a_gateway_that_stops_does_not_keep_the_client(old: Serve) -> None:
    gateway = old(serve_old_wait_s=600)
    replies: list[Any] = []
    client = threading.Thread(target=lambda: replies.append(post(gateway.url, b"sound")))
    client.start()
    wait_until(lambda: gateway.services.ledger.open_jobs() == 1, WAIT_S, "the job")
    gateway.services.stop()
    client.join(WAIT_S)
    assert [reply.status for reply in replies] == [503]


def test_a_server_that_is_away_is_503_without_its_address(old: Serve) -> None:
    gateway = old(broker_url="redis://127.0.0.1:1/0")
    reply = post(gateway.url, b"sound")
    assert reply.status == 503
    assert reply.body == {
        "error": "The service is not available: try again later",
        "error_class": "broker_unavailable",
    }
    health = httpx.get(f"{gateway.url}/health")
    assert (health.status_code, health.json()) == (503, {"status": "unhealthy", "model_loaded": False})


def test_a_missing_bucket_is_the_deployments_fault(old: Serve) -> None:
    gateway = old(upload_prefix="s3://no-such-bucket/uploads/")
    reply = post(gateway.url, b"sound")
    assert (reply.status, reply.body["error_class"]) == (503, "bucket_missing")
    assert "no-such-bucket" not in reply.body["error"]


def test_a_recording_above_the_limit_is_413(old: Serve) -> None:
    gateway = old(max_bytes=1000)
    for size in (1001, 3_000_000):
        reply = post(gateway.url, b"x" * size)
        assert reply.status == 413
        assert "more than" in (reply.shown_error or "")
    assert not gateway.uploads()


def test_without_the_setting_a_token_is_needed(old: Serve) -> None:
    gateway = old(serve_old_routes="tokens")

    refused = post(gateway.url, b"sound")
    wrong = post(gateway.url, b"sound", headers={"Authorization": "Bearer another"})
    with ending(gateway, answering()):
        accepted = post(gateway.url, b"sound", headers=HEADERS)

    assert (refused.status, wrong.status, accepted.status) == (401, 401, 200)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "token" in (refused.shown_error or "")
    assert httpx.get(f"{gateway.url}/health").status_code == 200


def test_open_old_routes_open_no_other_route(old: Serve) -> None:
    gateway = old()
    assert httpx.post(f"{gateway.url}/v1/recordings", content=b"sound").status_code == 401
    wrong = post(gateway.url, b"sound", headers={"Authorization": "Bearer another"})
    assert wrong.status == 401


def test_the_rate_is_limited(old: Serve) -> None:
    gateway = old(serve_requests_per_s=1, serve_old_wait_s=0.1)
    replies = [post(gateway.url, b"sound") for _ in range(3)]
    limited = [reply for reply in replies if reply.status == 429]
    assert limited
    assert int(limited[0].headers["retry-after"]) >= 1
    assert limited[0].shown_error


def test_off_means_off(old: Serve) -> None:
    gateway = old(serve_old_routes="off")
    assert httpx.post(f"{gateway.url}/api/detect-cough", headers=HEADERS).status_code == 404
    assert httpx.get(f"{gateway.url}/health").status_code == 404


@pytest.mark.parametrize("path", ["/api/detect-tb", "/api/detect", "/api/predict"])
def test_the_route_of_another_model_is_gone(old: Serve, path: str) -> None:
    reply = httpx.post(f"{old().url}{path}", files={"audio": ("a.wav", b"sound")})
    assert reply.status_code == 410
    assert reply.json() == {
        "error": "This service detects coughs and not tuberculosis: send recordings to POST /api/detect-cough"
    }


def test_health_says_whether_a_worker_has_a_model(old: Serve) -> None:
    gateway = old()
    assert httpx.get(f"{gateway.url}/health").json() == {"status": "healthy", "model_loaded": False}
    gateway.services.redis.hset(MODELS_KEY, "cough@1", str(time.time()))
    assert httpx.get(f"{gateway.url}/health").json() == {"status": "healthy", "model_loaded": True}
    gateway.services.redis.hset(MODELS_KEY, "cough@1", str(time.time() - 120))
    assert httpx.get(f"{gateway.url}/health").json()["model_loaded"] is False


def test_a_web_page_may_use_it_if_its_origin_is_allowed(old: Serve) -> None:
    origin = {"Origin": "https://app.example"}
    preflight = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    path = "/api/detect-cough"
    closed = old()
    assert "access-control-allow-origin" not in httpx.post(f"{closed.url}{path}", headers=origin).headers

    listed = old(serve_allow_origins="https://other.example https://app.example")
    asked = httpx.options(f"{listed.url}{path}", headers=preflight)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert (
        httpx.options(f"{listed.url}{path}", headers=preflight | {"Origin": "https://bad.example"}).status_code == 400
    )
    with ending(listed, answering()):
        reply = post(listed.url, b"sound", web=True)
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    refused = httpx.post(f"{listed.url}{path}", headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, "https://app.example")

    every = old(serve_allow_origins="*")
    assert httpx.post(f"{every.url}{path}", headers=origin).headers["access-control-allow-origin"] == "*"


def test_more_segments_than_an_outcome_has_need_the_database(old: Serve) -> None:
    gateway = old()
    answer: OutcomeAnswer = replace(an_answer(64), segments_scored=101)
    with ending(gateway, lambda job: succeeded(job, answer=answer)):
        reply = post(gateway.url, b"sound")
    assert (reply.status, reply.body["error_class"]) == (503, "settings_invalid")
    assert reply.body["job_id"]
    assert "Do not send it again" in (reply.shown_error or "")


def test_the_document_has_the_route_and_its_failures(old: Serve) -> None:
    paths = httpx.get(f"{old().url}/openapi.json").json()["paths"]
    responses = paths["/api/detect-cough"]["post"]["responses"]
    assert set(responses) >= {"200", "400", "401", "408", "413", "429", "500", "503"}
    assert "/health" in paths
