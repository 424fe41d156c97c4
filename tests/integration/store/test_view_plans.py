"""A condition on a view reads the rows that it selects, and not the whole table; a result finds its analysis."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any

import psycopg
import pytest

from tests.support.query_document import QUESTIONS, number
from tests.support.store import rows
from tussis.shared.store.hot_sql import COMPLETE


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    """The URL of a database with 5,000 objects, and the statistics of them."""
    with psycopg.connect(shared_store_url) as connection:
        fill_many(connection)
    return shared_store_url


def fill_many(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO models (name, version, sha256, profile, threshold, provenance, active_at) "
        "SELECT 'cough', version::text, repeat(version::text, 64), 'documented', 0.61, 'test', now() "
        "FROM generate_series(1, 2) AS version"
    )
    connection.execute(
        "INSERT INTO recordings (bucket, key, etag, metadata) SELECT 'b', n || '.wav', 'e', jsonb_build_object("
        "'recorded_at', to_char(timestamp '2026-12-01' - n * interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) "
        "FROM generate_series(1, 5000) AS n"
    )
    connection.execute(
        "INSERT INTO analyses (created_at, recording_id, model_id, profile, profile_overridden, coverage, forced_by, "
        "job_id, state, attempt_token, attempts, worker, device, enqueued_at, started_at, finished_at, "
        "bag_probability, bag_logit, decision, threshold, segments, segments_total, analyzed_s, truncated, decoder) "
        "SELECT time, recordings.id, 1, 'documented', false, 'head', '', gen_random_uuid(), 'succeeded', "
        "gen_random_uuid(), 1, 'cpu@1', 'cpu', time, time, time, 0.5, 0, false, 0.61, 1, 1, 2, false, 'soundfile' "
        "FROM recordings, LATERAL (SELECT timestamptz '2026-12-01Z' - recordings.id * interval '1 hour' AS time) AS at"
    )
    connection.execute("INSERT INTO jobs SELECT job_id, id, enqueued_at, created_at FROM analyses")
    connection.execute("INSERT INTO events SELECT id, 0, 0, 1, 0.9, 0.8, 2 FROM analyses")
    connection.execute("ANALYZE")


@pytest.mark.parametrize(
    ("view", "condition", "index"),
    [
        ("current", "bucket = 'b' AND key = 'k'", "recordings_bucket_key_etag_key"),
        ("current", "bucket = 'b' AND key LIKE '123%%'", "recordings_bucket_key_etag_key"),
        ("current", "created_at >= '2026-11-28' AND created_at < '2026-11-29'", "analyses_created_at_id_idx"),
        ("current", "finished_at >= '2026-11-28' AND finished_at < '2026-11-29'", "analyses_finished_at_idx"),
        ("current", "analysis_id = 7", "analyses_pkey"),
        ("current", "recorded_at >= '2026-11-28Z' AND recorded_at < '2026-11-29Z'", "recordings_recorded_at_idx"),
        ("cough_events", "recorded_at >= '2026-11-28Z' AND recorded_at < '2026-11-29Z'", "recordings_recorded_at_idx"),
        ("cough_events", "bucket = 'b' AND key = 'k'", "recordings_bucket_key_etag_key"),
        ("cough_events", "created_at >= '2026-11-28' AND created_at < '2026-11-29'", "analyses_created_at_id_idx"),
        ("quality", "bucket = 'b' AND key = 'k'", "recordings_bucket_key_etag_key"),
        ("quality", "created_at >= '2026-11-28' AND created_at < '2026-11-29'", "analyses_created_at_id_idx"),
        ("model_pairs", "bucket = 'b' AND key = 'k'", "recordings_bucket_key_etag_key"),
        ("job_answers", "job_id = '00000000-0000-0000-0000-000000000000'", "jobs_pkey"),
    ],
)
def test_a_condition_on_a_view_uses_an_index(filled: str, view: str, condition: str, index: str) -> None:
    """No plan reads all analyses."""
    plan = [line for (line,) in rows(filled, f"EXPLAIN SELECT * FROM {view} WHERE {condition}")]
    assert any(index in line for line in plan), "\n".join(plan)
    assert not any("Seq Scan on analyses" in line for line in plan), "\n".join(plan)


def test_the_answers_of_some_jobs_are_found_by_an_index(filled: str) -> None:
    [question] = [query for title, query in QUESTIONS.items() if number(title) == 22]
    plan = [line for (line,) in rows(filled, f"EXPLAIN {question}")]
    assert any("jobs_pkey" in line for line in plan), "\n".join(plan)
    assert not any("Seq Scan on jobs" in line or "Seq Scan on analyses" in line for line in plan), "\n".join(plan)


def test_a_result_finds_its_analysis_by_the_id(filled: str) -> None:
    """Not by the state, of which the index keeps an entry of each recording while an old transaction is open."""
    parameters: dict[str, Any] = defaultdict(lambda: None, analysis_id="7", token=uuid.uuid4())
    with psycopg.connect(filled) as connection:
        found = psycopg.RawCursor(connection).execute(b"EXPLAIN " + COMPLETE.text, COMPLETE.values(parameters))
        plan = "\n".join(line for (line,) in found)
    assert "analyses_pkey" in plan
    assert "analyses_state" not in plan, plan
