"""Uploads over HTTP, over a real broker and a real object store."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.gateway import TOKEN, Gateway, gateway_settings, serving
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.shared.messages import job_id_for

MIB = 2**20


def stored(gateway: Gateway, uri: str) -> bytes:
    key = uri.removeprefix(f"s3://{gateway.bucket}/")
    data: bytes = gateway.services.s3.client().get_object(Bucket=gateway.bucket, Key=key)["Body"].read()
    return data


def keys(gateway: Gateway) -> list[str]:
    listed = gateway.services.s3.client().list_objects_v2(Bucket=gateway.bucket)
    return [each["Key"] for each in listed.get("Contents", [])]


def in_pieces(data: bytes, size: int = 50_000) -> Iterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


@pytest.mark.parametrize("size", [1, 70_000, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_a_raw_body_is_stored_as_it_is_and_enqueued(gateway: Gateway, size: int) -> None:
    data = os.urandom(size)

    answer = gateway.client.post(
        "/v1/recordings", content=in_pieces(data), params={"file_name": "Müller.WAV", "priority": 1}
    )

    told = answer.json()
    assert answer.status_code == 202, told
    assert stored(gateway, told["uri"]) == data
    assert (told["size_bytes"], told["sha256"]) == (size, hashlib.sha256(data).hexdigest())
    assert told["uri"].startswith(f"s3://{gateway.bucket}/uploads/20")
    assert told["uri"].endswith(".wav")
    assert "ller" not in told["uri"]
    key = told["uri"].removeprefix(f"s3://{gateway.bucket}/")
    assert told["job_id"] == job_id_for(
        gateway.bucket, key, version_id=None, etag=told["etag"], model=None, profile=None
    )
    job = gateway.services.ledger.find(told["job_id"])
    assert job is not None
    assert job.priority == 1


def test_a_form_may_have_its_fields_before_and_behind_the_recording(gateway: Gateway) -> None:
    data = os.urandom(3 * MIB) + b"\r\n--x\r\n"
    body = (
        b'--B\r\nContent-Disposition: form-data; name="priority"\r\n\r\n0\r\n'
        b'--B\r\nContent-Disposition: form-data; name="audio"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
        + data
        + b'\r\n--B\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"site": "s\xc3\xbcd"}\r\n--B--\r\n'
    )

    answer = gateway.client.post(
        "/v1/recordings",
        content=in_pieces(body, 997),
        headers={"Content-Type": "multipart/form-data; boundary=B"},
        params={"batch": "b"},
    )

    told = answer.json()
    assert answer.status_code == 202, told
    assert stored(gateway, told["uri"]) == data
    job = gateway.services.ledger.find(told["job_id"])
    assert job is not None
    assert (job.priority, job.metadata) == (0, {"site": "süd"})
    assert gateway.client.get("/v1/batches/b").json()["total"] == 1


def test_a_form_of_a_usual_client(gateway: Gateway) -> None:
    answer = gateway.client.post(
        "/v1/recordings", files={"audio": ("a.ogg", b"OggS", "audio/ogg")}, data={"device": "cpu", "again": "true"}
    )

    assert answer.status_code == 202, answer.json()
    assert stored(gateway, answer.json()["uri"]) == b"OggS"


@pytest.mark.parametrize(
    ("content", "headers", "query", "status", "error_class"),
    [
        (b"", {}, {}, 422, "empty"),
        (b"x", {}, {"priority": "ten"}, 422, "request_invalid"),
        (b"x", {}, {"metadata": "{"}, 422, "request_invalid"),
        (b"x", {}, {"batch": "-wrong"}, 422, "invalid_job"),
        (b"x", {}, {"model": "not a name"}, 422, "invalid_job"),
        (b"x", {}, {"metadata": '{"recorded_at": "yesterday"}'}, 422, "invalid_job"),
        (b"x", {}, {"metadata": f'{{"deep": {101 * "["}{101 * "]"}}}'}, 422, "invalid_job"),
        (b"x", {"Content-Type": "multipart/form-data"}, {}, 422, "request_invalid"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=B"}, {}, 422, "request_invalid"),
        (b"--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"}, {}, 422, "request_invalid"),
        (
            b'--B\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\nabc',
            {"Content-Type": "multipart/form-data; boundary=B"}, {}, 422, "request_invalid",
        ),
        (
            b'--B\r\nContent-Disposition: form-data; name="audio"\r\n\r\nabc\r\n'
            b'--B\r\nContent-Disposition: form-data; name="colour"\r\n\r\nred\r\n--B--\r\n',
            {"Content-Type": "multipart/form-data; boundary=B"}, {}, 422, "request_invalid",
        ),
        (
            b'--B\r\nContent-Disposition: form-data; name="audio"\r\n\r\nabc\r\n'
            b'--B\r\nContent-Disposition: form-data; name="batch"\r\n\r\n-wrong\r\n--B--\r\n',
            {"Content-Type": "multipart/form-data; boundary=B"}, {}, 422, "invalid_job",
        ),
    ],
)  # fmt: skip
def test_a_wrong_upload_stores_and_enqueues_nothing(
    gateway: Gateway, content: bytes, headers: dict[str, str], query: dict[str, str], status: int, error_class: str
) -> None:
    answer = gateway.client.post("/v1/recordings", content=content, headers=headers, params=query)

    assert (answer.status_code, answer.json()["error"]["class"]) == (status, error_class), answer.json()
    assert gateway.services.ledger.open_jobs() == 0
    assert gateway.unfinished() == []
    assert keys(gateway) == []


def test_a_wrong_upload_under_a_key_of_its_own_stores_nothing(gateway: Gateway) -> None:
    answer = gateway.client.put("/v1/recordings/a.wav", content=b"x", params={"batch": "-wrong"})

    assert (answer.status_code, answer.json()["error"]["class"]) == (422, "invalid_job"), answer.json()
    assert keys(gateway) == []


def test_uploads_need_a_prefix(s3_environment: None, broker_url: str, bucket: Bucket) -> None:
    with serving(gateway_settings(broker_url, bucket.name, upload_prefix=""), bucket.name) as gateway:
        answer = gateway.client.post("/v1/recordings", content=b"sound")

    assert (answer.status_code, answer.json()["error"]["class"]) == (503, "settings_invalid")


def unfinished_body(gateway: Gateway) -> socket.socket:
    """A connection over which most of an upload was sent."""
    address = urlsplit(gateway.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0))
    connection.sendall(
        f"POST /v1/recordings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {9 * MIB}\r\n\r\n".encode()
        + bytes(8 * MIB + 10)
    )
    return connection


class TestLimits:
    @pytest.fixture
    def small(self, s3_environment: None, broker_url: str, bucket: Bucket) -> Iterator[Gateway]:
        settings = gateway_settings(broker_url, bucket.name, max_bytes=9 * MIB, serve_idle_s=1.0)
        with serving(settings, bucket.name) as gateway:
            yield gateway

    def test_a_body_over_the_limit_is_413_and_leaves_nothing(self, small: Gateway) -> None:
        declared = small.client.post("/v1/recordings", content=bytes(11 * MIB))
        streamed = small.client.post("/v1/recordings", content=in_pieces(bytes(9 * MIB + 1), MIB))
        json_body = small.client.post("/v1/jobs", content=bytes(5 * MIB), headers={"Content-Type": "application/json"})

        assert (declared.status_code, declared.json()["error"]["class"]) == (413, "body_too_large")
        assert (streamed.status_code, streamed.json()["error"]["class"]) == (413, "too_large")
        assert (json_body.status_code, json_body.json()["error"]["class"]) == (413, "body_too_large")
        assert small.uploads() == []
        assert small.unfinished() == []

    def test_a_body_that_stops_is_408_and_leaves_nothing(self, small: Gateway) -> None:
        with unfinished_body(small) as connection:
            connection.settimeout(20)
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"body_slow"' in answer
        wait_until(lambda: small.unfinished() == [], 10, "the upload to be aborted")
        assert small.services.ledger.open_jobs() == 0

    def test_a_client_that_goes_away_leaves_nothing(self, small: Gateway) -> None:
        with unfinished_body(small):
            wait_until(lambda: small.unfinished() != [], 10, "the upload to begin")
        wait_until(lambda: small.unfinished() == [], 10, "the upload to be aborted")

        assert small.services.ledger.open_jobs() == 0
        assert small.uploads() == []


class TestIdempotencyKey:
    def test_a_repeated_upload_has_the_first_answer_and_stores_nothing(self, gateway: Gateway) -> None:
        headers = {"Idempotency-Key": "u1"}

        first = gateway.client.post("/v1/recordings", content=b"sound", headers=headers)
        second = gateway.client.post("/v1/recordings", content=in_pieces(b"sound", 2), headers=headers)
        other = gateway.client.post("/v1/recordings", content=b"other", headers=headers)

        assert (first.status_code, second.status_code) == (202, 202)
        assert second.json() == first.json()
        assert (other.status_code, other.json()["error"]["class"]) == (422, "idempotency_key_reused")
        assert len(gateway.uploads()) == 1
        assert gateway.services.ledger.open_jobs() == 1

    def test_after_a_kill_the_repeated_upload_has_the_same_key(self, gateway: Gateway) -> None:
        first = gateway.client.post("/v1/recordings", content=b"sound", headers={"Idempotency-Key": "u2"}).json()
        (key,) = gateway.services.redis.keys("tussis.idempotency:*")
        gateway.services.redis.hdel(key, "answer")  # the process was killed before it kept the answer

        again = gateway.client.post("/v1/recordings", content=b"sound", headers={"Idempotency-Key": "u2"})

        assert again.status_code == 202
        assert again.json() == first | {"sent": False}
        assert gateway.services.ledger.open_jobs() == 1

    def test_without_a_key_each_upload_is_a_recording_of_its_own(self, gateway: Gateway) -> None:
        uris = {gateway.client.post("/v1/recordings", content=b"sound").json()["uri"] for _ in range(2)}

        assert len(uris) == 2


class TestPut:
    @pytest.mark.parametrize("size", [10, 17 * MIB])
    def test_the_same_content_may_be_put_again_and_other_content_may_not(self, gateway: Gateway, size: int) -> None:
        data = os.urandom(size)

        first = gateway.client.put("/v1/recordings/ward 1/ä.wav", content=in_pieces(data))
        second = gateway.client.put("/v1/recordings/ward 1/ä.wav", content=in_pieces(data, 777_777))
        other = gateway.client.put("/v1/recordings/ward 1/ä.wav", content=in_pieces(data[:-1] + b"x"))

        assert first.status_code == 202, first.json()
        assert first.json()["uri"] == f"s3://{gateway.bucket}/uploads/ward 1/ä.wav"
        assert second.json() == first.json() | {"sent": False}
        assert (other.status_code, other.json()["error"]["class"]) == (409, "object_exists")
        assert stored(gateway, first.json()["uri"]) == data

    def test_a_key_that_is_too_long_is_refused(self, gateway: Gateway) -> None:
        answer = gateway.client.put(f"/v1/recordings/{'k' * 1020}", content=b"x")

        assert (answer.status_code, answer.json()["error"]["class"]) == (422, "invalid_uri")


def test_an_upload_does_not_hold_the_whole_recording_in_memory(gateway: Gateway) -> None:
    """The body is larger than what the process may grow by."""
    import psutil

    process = psutil.Process()
    peak = [process.memory_info().rss]

    def pieces() -> Iterator[bytes]:
        piece = os.urandom(MIB)
        for _ in range(200):
            yield piece
            peak.append(process.memory_info().rss)

    answer = gateway.client.post("/v1/recordings", content=pieces(), timeout=120)

    assert answer.json()["size_bytes"] == 200 * MIB
    assert max(peak) - peak[0] < 100 * MIB


def test_many_uploads_at_once(s3_environment: None, broker_url: str, bucket: Bucket) -> None:
    """More than there are threads for uploads: they take turns."""
    from concurrent.futures import ThreadPoolExecutor

    settings = gateway_settings(broker_url, bucket.name, serve_uploads=2, serve_threads=4)
    with serving(settings, bucket.name) as gateway, ThreadPoolExecutor(12) as pool:

        def send(number: int) -> tuple[bytes, httpx.Response]:
            data = b"%d" % number * 100_000
            return data, gateway.client.post("/v1/recordings", content=in_pieces(data))

        answers = list(pool.map(send, range(24)))
        assert [answer.status_code for _, answer in answers] == [202] * 24
        assert all(stored(gateway, answer.json()["uri"]) == data for data, answer in answers)
        assert gateway.services.ledger.open_jobs() == 24


def test_time_of_a_small_upload(gateway: Gateway) -> None:
    """A coarse bound: the gateway must not wait for anything."""
    gateway.client.post("/v1/recordings", content=b"warm")
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert gateway.client.post("/v1/recordings", content=bytes(200_000)).status_code == 202
        times.append(time.perf_counter() - began)

    assert min(times) < 1.0
