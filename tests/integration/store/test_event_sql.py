"""The rule of cough events in SQL finds the same events as in Python."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts, rows
from tussis.shared.dsp.constants import HOP_SECONDS, MAX_SEGMENTS, SEGMENT_SECONDS
from tussis.shared.events import EVENT_THRESHOLD, find_events
from tussis.shared.store.event_sql import EVENTS
from tussis.shared.store.repository import Store

MODEL = model_facts()


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> Iterator[Store]:
    """A store for all tests of the module: each writes recordings of its own."""
    with Store.connect(shared_store_url) as store:
        store.register_model(MODEL)
        an_analysis(store, shared_store_url, [1.0] * 40, 20.0)
        yield store


def an_analysis(store: Store, url: str, probabilities: list[float], duration_s: float) -> int:
    """Store an analysis with these segments, in bags of 32, and return its id."""
    claim = claimed(store.claim(a_claim(a_job(key=f"{uuid.uuid4()}.wav"), MODEL)))
    store.complete(claim, a_result(1, duration_s=duration_s, segments_total=len(probabilities)))
    analysis_id = claim.analysis_id
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM bags WHERE analysis_id = %s", (analysis_id,))
        connection.execute("UPDATE analyses SET segments = %s WHERE id = %s", (len(probabilities), analysis_id))
        for bag in range(-(-len(probabilities) // MAX_SEGMENTS)):
            connection.execute(
                "INSERT INTO bags (analysis_id, bag_index, start_s, end_s, probability, logit, segments)"
                " VALUES (%s, %s, 0, 1, 0.5, 0, 1)",
                (analysis_id, bag),
            )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO segments (analysis_id, bag_index, segment_index, analysis_created_at, start_s, end_s,"
                " probability, logit) SELECT id, %s, %s, created_at, %s, %s, %s, 0 FROM analyses WHERE id = %s",
                [
                    (
                        index // MAX_SEGMENTS,
                        index % MAX_SEGMENTS,
                        HOP_SECONDS * index,
                        HOP_SECONDS * index + SEGMENT_SECONDS,
                        probability,
                        analysis_id,
                    )
                    for index, probability in enumerate(probabilities)
                ],
            )
    return analysis_id


def events_in_sql(url: str, analysis_id: int, threshold: float) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(EVENTS, {"analysis_id": analysis_id, "threshold": threshold}).fetchall()


def events_in_python(probabilities: list[float], duration_s: float, threshold: float) -> list[tuple[Any, ...]]:
    starts = [HOP_SECONDS * index for index in range(len(probabilities))]
    return [
        (index, event.start_s, event.end_s, event.peak, pytest.approx(event.mean, abs=1e-12), event.bins)
        for index, event in enumerate(find_events(starts, probabilities, duration_s, threshold))
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 32, 33, 100])
@pytest.mark.parametrize("more_s", [0.001, 0.25, 0.5, 0.75, 1.0, 1.9, 2.0, 60.0])
def test_both_find_the_same_events(filled: Store, shared_store_url: str, count: int, more_s: float) -> None:
    """``more_s``: the time from the start of the last segment to the end of the recording."""
    drawn = random.Random(f"{count} {more_s}")
    # Neighbouring segments are alike, so that some events are long. Some probabilities are equal to the threshold.
    level, probabilities = 0.0, []
    for _ in range(count):
        if drawn.random() < 0.3:
            level = drawn.choice([0.0, 0.1, EVENT_THRESHOLD, 0.9, 1.0])
        probabilities.append(min(1.0, max(0.0, drawn.choice([level, level + drawn.uniform(-0.1, 0.1)]))))
    duration_s = HOP_SECONDS * (count - 1) + more_s
    analysis_id = an_analysis(filled, shared_store_url, probabilities, duration_s)

    for threshold in (0.0, 0.1, EVENT_THRESHOLD, 0.5, 0.95, 1.0):
        expected = events_in_python(probabilities, duration_s, threshold)
        assert events_in_sql(shared_store_url, analysis_id, threshold) == expected


def test_of_a_result_that_a_worker_stored(filled: Store, shared_store_url: str) -> None:
    claim = claimed(filled.claim(a_claim(a_job(key=f"{uuid.uuid4()}.wav"), MODEL)))
    result = a_result(8)
    filled.complete(claim, result)

    expected = events_in_python(list(result.segments.probability), result.duration_s, EVENT_THRESHOLD)

    assert expected
    assert events_in_sql(shared_store_url, claim.analysis_id, EVENT_THRESHOLD) == expected


def test_two_hours_are_quick(filled: Store, shared_store_url: str) -> None:
    drawn = random.Random(5)
    probabilities = [drawn.random() ** 0.3 for _ in range(14_400)]
    analysis_id = an_analysis(filled, shared_store_url, probabilities, 7_200.0)
    execute(shared_store_url, "ANALYZE segments")

    began = time.perf_counter()
    found = events_in_sql(shared_store_url, analysis_id, EVENT_THRESHOLD)
    took_s = time.perf_counter() - began

    assert found == events_in_python(probabilities, 7_200.0, EVENT_THRESHOLD)
    assert len(found) > 100
    assert took_s < 2


def test_an_analysis_without_segments_has_no_events(filled: Store, shared_store_url: str) -> None:
    analysis_id = claimed(filled.claim(a_claim(a_job(key=f"{uuid.uuid4()}.wav"), MODEL))).analysis_id

    assert events_in_sql(shared_store_url, analysis_id, 0.0) == []
    assert rows(shared_store_url, "SELECT state FROM analyses WHERE id = %s", analysis_id) == [("running",)]
