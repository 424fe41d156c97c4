"""What the gateway answered with 202 is stored and enqueued once, whatever is killed or away."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from tests.support.deployment import Deployment
from tests.support.gateway import HEADERS, TOKEN
from tests.support.processes import Running
from tests.support.waiting import wait_until
from tussis.shared.uris import ObjectAddress
from tussis.worker.embedded.ports import free_ports
from tussis.worker.gateway.unfinished import abort_unfinished

MIB = 2**20


@dataclass
class Upstream:
    """Clients that send one recording after the other, and repeat what was not answered with 202."""

    url: str
    answers: dict[int, dict[str, object]] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    """Statuses of all answers; 0: the connection broke."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def send(self, number: int) -> None:
        """Send the recording with this number until it is accepted."""
        while not self.stopping.is_set():
            try:
                answer = httpx.post(
                    f"{self.url}/v1/recordings",
                    content=pieces(number),
                    headers=HEADERS | {"Idempotency-Key": f"recording-{number}"},
                    timeout=60,
                )
            except httpx.HTTPError:
                self.statuses.add(0)
                time.sleep(0.2)
                continue
            self.statuses.add(answer.status_code)
            if answer.status_code == 202:
                self.answers[number] = answer.json()
                return
            assert answer.status_code in (409, 429, 500, 503), answer.text
            time.sleep(0.5)


def content(number: int) -> bytes:
    """A recording of its own: every fifth one has several parts."""
    return b"%08d" % number * (1_200_000 if number % 5 == 0 else 2_000)


def pieces(number: int) -> Iterator[bytes]:
    data = content(number)
    for first in range(0, len(data), MIB // 4):
        yield data[first : first + MIB // 4]


@pytest.fixture
def start(deployment: Deployment) -> Callable[[], Running]:
    """Start the gateway, always on the same port."""
    (port,) = free_ports(1)

    def start() -> Running:
        gateway = deployment.tussis(
            "serve",
            serve_port=port,
            serve_tokens=f"clinic:{TOKEN}",
            upload_prefix=f"s3://{deployment.bucket.name}/uploads/",
            serve_requests_per_s=1000,
        )
        gateway.wait_for_event("gateway_ready", 90)
        return gateway

    return start


def stored(deployment: Deployment) -> dict[str, bytes]:
    """URI -> content of every object under the prefix."""
    pages = deployment.bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=deployment.bucket.name, Prefix="uploads/"
    )
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    get = deployment.bucket.client.get_object
    return {deployment.bucket.uri(key): get(Bucket=deployment.bucket.name, Key=key)["Body"].read() for key in keys}


def check(deployment: Deployment, upstream: Upstream, total: int) -> None:
    """Each recording has one object with its bytes, and one open job."""
    assert len(upstream.answers) == total
    uris = {str(answer["uri"]) for answer in upstream.answers.values()}
    ids = {str(answer["job_id"]) for answer in upstream.answers.values()}
    assert len(uris) == len(ids) == total
    objects = stored(deployment)
    assert objects.keys() == uris
    assert all(objects[str(answer["uri"])] == content(number) for number, answer in upstream.answers.items())
    assert deployment.ledger.which_open(sorted(ids)) == ids
    assert deployment.ledger.open_jobs() == total


@pytest.mark.scenario(45)
def test_kills_of_the_gateway_and_of_the_broker_lose_and_double_nothing(
    deployment: Deployment, start: Callable[[], Running]
) -> None:
    """The clients repeat their requests with the same Idempotency-Key."""
    total, chance = 60, random.Random(45)
    gateway = start()
    upstream = Upstream(f"http://127.0.0.1:{gateway.wait_for_event('gateway_ready', 5)['port']}")
    with ThreadPoolExecutor(6) as pool:
        try:
            sending = [pool.submit(upstream.send, number) for number in range(total)]
            for turn in itertools.count():
                if all(sent.done() for sent in sending) or turn >= 5:
                    break
                time.sleep(chance.uniform(0.5, 2.0))
                if turn % 2:
                    deployment.servers.broker.kill()
                    deployment.servers.broker.start()
                else:
                    os.kill(gateway.pid, signal.SIGKILL)
                    gateway = start()
            for sent in sending:
                sent.result(timeout=300)
        finally:
            upstream.stopping.set()

    check(deployment, upstream, total)


@pytest.mark.scenario(45)
def test_without_the_object_store_uploads_are_503_and_nothing_is_enqueued(
    deployment: Deployment, start: Callable[[], Running]
) -> None:
    gateway = start()
    url = f"http://127.0.0.1:{gateway.wait_for_event('gateway_ready', 5)['port']}"
    upstream = Upstream(url)
    deployment.servers.s3.kill()

    began = time.monotonic()
    refused = httpx.post(f"{url}/v1/recordings", content=content(1), headers=HEADERS, timeout=60)
    by_key = httpx.post(f"{url}/v1/jobs", json={"uri": "s3://clinic/a.wav"}, headers=HEADERS, timeout=60)

    assert time.monotonic() - began < 60
    for answer in (refused, by_key):
        assert (answer.status_code, answer.json()["error"]["class"]) == (503, "storage_unavailable")
        assert "Retry-After" in answer.headers
    assert deployment.ledger.open_jobs() == 0
    deployment.servers.s3.start()
    upstream.send(1)
    check(deployment, upstream, 1)


@pytest.mark.scenario(45)
def test_the_unfinished_upload_of_a_killed_gateway_is_aborted(
    deployment: Deployment, start: Callable[[], Running], s3_environment: None
) -> None:
    from tests.support.gateway import gateway_settings
    from tussis.worker.gateway.services import open_services

    gateway = start()
    url = f"http://127.0.0.1:{gateway.wait_for_event('gateway_ready', 5)['port']}"
    killed = threading.Event()

    def slow() -> Iterator[bytes]:
        for _ in range(12):
            yield bytes(MIB)
        killed.wait(60)
        yield b"x"

    def send() -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{url}/v1/recordings", content=slow(), headers=HEADERS, timeout=60)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()

    def unfinished() -> list[object]:
        found = deployment.bucket.client.list_multipart_uploads(Bucket=deployment.bucket.name)
        return list(found.get("Uploads", ()))

    wait_until(unfinished, 30, "the upload to begin")
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait(30)
    killed.set()
    thread.join(30)
    assert unfinished()
    assert stored(deployment) == {}

    settings = gateway_settings(deployment.environment["TUSSIS_BROKER_URL"], deployment.bucket.name)
    prefix = ObjectAddress(deployment.bucket.name, "uploads/")
    with open_services(settings) as services:
        assert abort_unfinished(services, prefix, 3600) == 0
        wait_until(lambda: abort_unfinished(services, prefix, 0) == 1, 10, "the upload to be old enough")
    assert unfinished() == []
    assert deployment.ledger.open_jobs() == 0
