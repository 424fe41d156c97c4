"""The stream of outcomes as server-sent events, over a real broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.gateway import HEADERS, Gateway, gateway_settings, serving
from tests.support.outcomes import a_job, succeeded
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.shared.ledger import Ledger
from tussis.shared.outcomes import OutcomeBounds, parse_outcome

Event = dict[str, str]


class Reader:
    """Reads a stream in a thread."""

    def __init__(self, url: str, headers: dict[str, str] | None = None, **query: str) -> None:
        self.events: list[Event] = []
        self.ended = False
        self.error: Exception | None = None
        self._client = httpx.Client(timeout=30)
        self._connected = threading.Event()
        self._response: httpx.Response | None = None
        self._thread = threading.Thread(
            target=self._read, args=(f"{url}/v1/outcomes", HEADERS | (headers or {}), query), daemon=True
        )
        self._thread.start()
        assert self._connected.wait(30)

    def _read(self, url: str, headers: dict[str, str], query: dict[str, str]) -> None:
        try:
            with self._client.stream("GET", url, headers=headers, params=query) as response:
                assert response.status_code == 200, response.read()
                self._response = response
                event: Event = {}
                for line in response.iter_lines():
                    self._connected.set()
                    name, _, value = line.partition(": ")
                    if line and name:
                        event[name] = value
                    elif not line:
                        if "data" in event:
                            self.events.append(event)
                        event = {}
            self.ended = True
        except (httpx.HTTPError, AssertionError, RuntimeError) as error:
            self.error = error
        finally:
            self._connected.set()

    def wait_for(self, number: int) -> list[Event]:
        wait_until(lambda: len(self.events) >= number, 20, f"{number} events, not {self.events} ({self.error})")
        return self.events

    def close(self) -> None:
        self._client.close()


@contextmanager
def reading(gateway: Gateway, headers: dict[str, str] | None = None, **query: str) -> Iterator[Reader]:
    reader = Reader(gateway.url, headers, **query)
    try:
        yield reader
    finally:
        reader.close()
        wait_until(lambda: not gateway.services.streams, 20, "the stream to end")


@pytest.fixture
def end_jobs(gateway: Gateway) -> Callable[[int], list[str]]:
    """Enqueue some jobs and let them end; returns their ids."""

    def end_jobs(number: int, kept: int = 20_000) -> list[str]:
        ledger = Ledger(gateway.services.redis, bounds=OutcomeBounds(kept=kept))
        jobs = [a_job() for _ in range(number)]
        for job in jobs:
            ledger.open(job)
            assert ledger.close(job, succeeded(job))
        return [job.job_id for job in jobs]

    return end_jobs


def ids(events: list[Event]) -> list[str]:
    return [parse_outcome(event["data"]).job_id for event in events if event["event"] == "outcome"]


def test_outcomes_from_now_on_and_behind_an_event(gateway: Gateway, end_jobs: Callable[..., list[str]]) -> None:
    end_jobs(2)
    with reading(gateway) as reader:
        first = end_jobs(3)
        events = reader.wait_for(3)
    assert ids(events) == first
    later = end_jobs(2)

    with reading(gateway, {"Last-Event-ID": events[1]["id"]}) as resumed:
        assert ids(resumed.wait_for(3)) == [first[2], *later]


def test_a_gap_is_an_event_of_its_own(gateway: Gateway, end_jobs: Callable[..., list[str]]) -> None:
    with reading(gateway) as reader:
        end_jobs(1)
        (seen,) = reader.wait_for(1)
    kept = end_jobs(10, kept=4)[-4:]

    with reading(gateway, {"Last-Event-ID": seen["id"]}) as resumed:
        gap, *others = resumed.wait_for(5)

    assert (gap["event"], json.loads(gap["data"])["lost"]) == ("gap", 6)
    assert ids(others) == kept
    with reading(gateway, {"Last-Event-ID": gap["id"]}) as again:
        assert ids(again.wait_for(4)) == kept
    assert [event["event"] for event in again.events] == ["outcome"] * 4


def test_the_loss_of_the_brokers_data_is_a_gap(gateway: Gateway, end_jobs: Callable[..., list[str]]) -> None:
    end_jobs(5)
    newest = gateway.services.outcomes.last_id()
    gateway.services.redis.flushdb()
    fresh = end_jobs(1)

    with reading(gateway, {"Last-Event-ID": newest}) as reader:
        gap, outcome = reader.wait_for(2)

    assert (gap["event"], json.loads(gap["data"])["lost"]) == ("gap", None)
    assert ids([outcome]) == fresh


def test_a_group_continues_where_its_reader_acknowledged(gateway: Gateway, end_jobs: Callable[..., list[str]]) -> None:
    told = end_jobs(3)
    with reading(gateway, group="billing") as reader:
        events = reader.wait_for(3)
    assert ids(events) == told
    done = gateway.client.post(
        "/v1/outcomes/acknowledge", json={"group": "billing", "ids": [event["id"] for event in events[:2]]}
    )
    assert done.json() == {"acknowledged": 2}

    with reading(gateway, group="billing") as reader:
        assert ids(reader.wait_for(1)) == told[2:]
        more = end_jobs(1)
        assert ids(reader.wait_for(2)) == [told[2], *more]
    with reading(gateway, group="other") as reader:
        assert ids(reader.wait_for(4)) == [*told, *more]


def test_a_group_whose_events_are_acknowledged_when_they_are_sent(
    gateway: Gateway, end_jobs: Callable[..., list[str]]
) -> None:
    told = end_jobs(3)
    with reading(gateway, group="billing", acknowledge="sent") as reader:
        assert ids(reader.wait_for(3)) == told
        wait_until(lambda: pending(gateway, "billing") == 0, 10, "the events to be acknowledged")


def test_a_gap_of_a_group(gateway: Gateway, end_jobs: Callable[..., list[str]]) -> None:
    end_jobs(1)
    with reading(gateway, group="billing", acknowledge="sent") as reader:
        reader.wait_for(1)
        wait_until(lambda: pending(gateway, "billing") == 0, 10, "the event to be acknowledged")
    kept = end_jobs(10, kept=4)[-4:]

    with reading(gateway, group="billing") as reader:
        gap, *others = reader.wait_for(5)

    assert (gap["event"], json.loads(gap["data"])["lost"]) == ("gap", 6)
    assert ids(others) == kept


def test_the_end_of_a_batch_is_an_event(gateway: Gateway) -> None:
    with reading(gateway) as reader:
        gateway.client.post("/v1/batches/empty/close")
        job = a_job()
        gateway.services.ledger.open_many([job], "november")
        gateway.services.batches.close("november")
        gateway.services.ledger.close(job, succeeded(job))
        events = reader.wait_for(2)

    told = {event["event"]: json.loads(event["data"]) for event in events}
    assert told["batch"]["batch"] == "november"
    assert told["outcome"]["job_id"] == job.job_id


def test_more_streams_than_allowed_are_503(s3_environment: None, broker_url: str, bucket: Bucket) -> None:
    with serving(gateway_settings(broker_url, bucket.name, serve_streams=1), bucket.name) as gateway:
        with reading(gateway):
            refused = gateway.client.get("/v1/outcomes")
            assert (refused.status_code, refused.json()["error"]["class"]) == (503, "gateway_busy")
        assert gateway.client.get("/v1/metrics").text.count("tussis_http_streams 0.0") == 1


def test_streams_end_when_the_gateway_stops(gateway: Gateway) -> None:
    with reading(gateway) as reader:
        gateway.services.stop()
        wait_until(lambda: reader.ended, 10, "the stream to end")
    refused = gateway.client.get("/v1/outcomes")
    assert refused.json()["error"]["class"] == "gateway_busy"


@pytest.mark.parametrize("headers", [{"Last-Event-ID": "x"}, {"Last-Event-ID": "1"}])
def test_a_wrong_place_is_refused(gateway: Gateway, headers: dict[str, str]) -> None:
    answer = gateway.client.get("/v1/outcomes", headers=headers)

    assert (answer.status_code, answer.json()["error"]["class"]) == (422, "request_invalid")


def test_acknowledging_for_a_group_that_nobody_reads_does_nothing(gateway: Gateway) -> None:
    answer = gateway.client.post("/v1/outcomes/acknowledge", json={"group": "none", "ids": ["1-1"]})

    assert (answer.status_code, answer.json()) == (200, {"acknowledged": 0})


def pending(gateway: Gateway, group: str) -> int:
    groups: Any = gateway.services.redis.xinfo_groups("tussis.outcomes")
    return next(int(found["pending"]) for found in groups if found["name"] == group.encode())
