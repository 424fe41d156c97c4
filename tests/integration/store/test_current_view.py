"""The view ``current`` against the same rule in Python, and the typed columns of the metadata."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed, model_facts, rows
from tussis.shared.store.repository import Store

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OF_THE_JOB = ("object_changed", "model_not_served", "job_moved")


@dataclass(frozen=True)
class Row:
    """An analysis, as much of it as the view needs."""

    id: int
    key: str
    state: str
    error_class: str | None
    overridden: bool
    finished_at: datetime | None


@pytest.fixture(scope="module")
def drawn(shared_store_url: str) -> Iterator[tuple[str, list[Row]]]:
    """A database with random analyses: several contents of an object, times that are equal, and every state."""
    random_ = random.Random(12)
    with psycopg.connect(shared_store_url) as connection:
        yield shared_store_url, [insert(connection, random_) for _ in range(600)]
        connection.execute("TRUNCATE recordings CASCADE")


def insert(connection: psycopg.Connection, random_: random.Random) -> Row:
    key = f"{random_.randrange(120)}.wav"
    state = random_.choice(["succeeded", "failed", "discarded", "running", "waiting"])
    error_class = random_.choice(["not_audio", *OF_THE_JOB]) if state in ("failed", "discarded") else None
    profile_overridden, coverage_overridden = random_.random() < 0.1, random_.random() < 0.1
    final = state in ("succeeded", "failed", "discarded")
    finished_at = NOW + timedelta(hours=random_.randrange(4)) if final else None
    [recording_id] = connection.execute(
        "INSERT INTO recordings (bucket, key, etag) VALUES ('recordings', %s, %s) "
        "ON CONFLICT (bucket, key, etag) DO UPDATE SET etag = excluded.etag RETURNING id",
        (key, f"e{random_.randrange(2)}"),
    ).fetchone() or (0,)
    scores = (0.5, 0.0, False, 0.61, 1, 1, 2.0, False, "soundfile") if state == "succeeded" else (None,) * 9
    if state == "succeeded":
        connection.execute(
            "INSERT INTO models (name, version, sha256, profile, threshold, provenance, active_at) "
            "VALUES ('cough', '1', repeat('a', 64), 'documented', 0.61, 'test', now()) ON CONFLICT DO NOTHING"
        )
    [analysis_id] = connection.execute(
        "INSERT INTO analyses (recording_id, model_id, profile, profile_overridden, coverage, coverage_overridden, "
        "forced_by, job_id, state, attempt_token, attempts, worker, device, enqueued_at, started_at, finished_at, "
        "error_class, error_message, bag_probability, bag_logit, decision, threshold, segments, segments_total, "
        "analyzed_s, truncated, decoder) VALUES (%s, (SELECT id FROM models WHERE %s), 'documented', %s, 'head', %s, "
        "%s, gen_random_uuid(), %s, gen_random_uuid(), 1, 'cpu@1', 'cpu', now(), now(), %s, %s, %s, "
        "%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            recording_id,
            state == "succeeded",
            profile_overridden,
            coverage_overridden,
            str(uuid.uuid4()),
            state,
            finished_at,
            error_class,
            error_class,
            *scores,
        ),
    ).fetchone() or (0,)
    connection.commit()
    return Row(analysis_id, key, state, error_class, profile_overridden or coverage_overridden, finished_at)


def newest(drawn: list[Row]) -> dict[str, int]:
    """The rule of the view: object -> the id of its analysis."""
    found: dict[str, Row] = {}
    for row in drawn:
        if row.finished_at is None or row.overridden:
            continue
        held = found.get(row.key)
        if held is None or rank(row) > rank(held):
            found[row.key] = row
    return {key: row.id for key, row in found.items()}


def rank(row: Row) -> tuple[bool, datetime, int]:
    assert row.finished_at is not None
    return (row.error_class not in OF_THE_JOB, row.finished_at, row.id)


def test_current_has_the_newest_answer_of_each_object(drawn: tuple[str, list[Row]]) -> None:
    url, inserted = drawn
    expected = newest(inserted)
    assert 80 < len(expected) < 120
    assert rows(url, "SELECT key, analysis_id FROM current ORDER BY analysis_id") == sorted(
        expected.items(), key=lambda item: item[1]
    )


def test_a_condition_does_not_change_what_is_newest(drawn: tuple[str, list[Row]]) -> None:
    """A condition selects among the newest answers. It never brings back an older one."""
    url, inserted = drawn
    of_id = {row.id: row for row in inserted}
    answers = {of_id[analysis_id] for analysis_id in newest(inserted).values()}
    conditions: list[tuple[str, Callable[[Row], bool]]] = [
        ("state = 'failed'", lambda row: row.state == "failed"),
        ("error_class = 'job_moved'", lambda row: row.error_class == "job_moved"),
        ("finished_at < '2026-11-01 02:00Z'", lambda row: row.finished_at in (NOW, NOW + timedelta(hours=1))),
        ("bucket = 'recordings' AND key LIKE '1%%'", lambda row: row.key.startswith("1")),
    ]
    for condition, wanted in conditions:
        found = rows(url, f"SELECT analysis_id FROM current WHERE {condition} ORDER BY 1")
        assert found == [(row.id,) for row in sorted(answers, key=lambda row: row.id) if wanted(row)], condition
        assert found


def test_the_recommended_metadata_have_columns(store: Store, store_url: str) -> None:
    model = model_facts()
    for key, metadata in (
        ("a.wav", {"recorded_at": "2026-11-22T14:30:05+01:00", "site": "north", "subject": "P-17"}),
        ("b.wav", {"recorded_at": "yesterday", "site": 5}),
    ):
        store.complete(claimed(store.claim(a_claim(a_job(key=key, metadata=metadata), model))), a_result())

    assert rows(store_url, "SELECT key, recorded_at, site, subject FROM current ORDER BY key") == [
        ("a.wav", datetime(2026, 11, 22, 13, 30, 5, tzinfo=UTC), "north", "P-17"),
        ("b.wav", None, None, None),
    ]


def test_new_metadata_change_the_columns(store: Store, store_url: str) -> None:
    """A later message for the same content brings other metadata."""
    model = model_facts()
    for site in ("north", "south"):
        answer = store.claim(
            a_claim(a_job(metadata={"site": site, "recorded_at": "2026-11-22T14:30Z"}, again=True), model)
        )
        store.complete(claimed(answer), a_result())

    assert rows(store_url, "SELECT site, recorded_at FROM current") == [
        ("south", datetime(2026, 11, 22, 14, 30, tzinfo=UTC))
    ]
