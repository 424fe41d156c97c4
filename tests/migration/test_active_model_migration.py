"""Revision 0009: the columns, the table and the views of the active model, up with rows and down again."""

from __future__ import annotations

import psycopg

from tests.migration.test_views_migration import seen
from tests.support.store import execute, rows
from tussis.shared.store import migrate

BEFORE = "0007"
CURRENT = "SELECT key, model, state, error_class FROM current ORDER BY key"


def fill(url: str) -> None:
    """Three models, of which the third has no analysis, and four objects."""
    for number in (1, 2, 3):
        execute(
            url,
            "INSERT INTO models (name, version, sha256, profile, threshold, provenance, first_seen_at) "
            "VALUES ('cough', %s, repeat(%s, 64), 'documented', 0.61, 'test', "
            "timestamptz '2026-11-01Z' + (%s - 1) * interval '1 d')",
            str(number),
            str(number),
            number,
        )
    for key, model, error_class in (
        ("a.wav", 1, None),
        ("a.wav", 2, None),
        ("b.wav", 1, None),
        ("c.wav", 2, "not_audio"),
        ("d.wav", None, "model_not_served"),
    ):
        execute(
            url,
            """
            WITH recording AS (
                INSERT INTO recordings (bucket, key, etag) VALUES ('b', %s, 'e')
                ON CONFLICT (bucket, key, etag) DO UPDATE SET etag = 'e' RETURNING id
            )
            INSERT INTO analyses (recording_id, model_id, profile, profile_overridden, coverage, job_id, state,
                attempt_token, attempts, worker, device, enqueued_at, started_at, finished_at, error_class,
                error_message, bag_probability, bag_logit, decision, threshold, segments, segments_total, analyzed_s,
                truncated, decoder)
            SELECT id, given.model, 'documented', false, 'head', gen_random_uuid(),
                CASE WHEN given.error IS NULL THEN 'succeeded' ELSE 'failed' END, gen_random_uuid(), 1, 'cpu@1', 'cpu',
                now(), now(), clock_timestamp(), given.error, given.error, score, score, score > 0.61, 0.61, score::int,
                score::int, score, score > 1, CASE WHEN given.error IS NULL THEN 'soundfile' END
            FROM recording, (SELECT %s::bigint, %s::text) AS given (model, error),
                LATERAL (SELECT CASE WHEN given.error IS NULL THEN 1.0 END) AS scores (score)
            """,
            key,
            model,
            error_class,
        )


def test_up_keeps_what_analysts_see_and_down_restores_the_revision_before(database_url: str) -> None:
    migrate.upgrade(database_url, BEFORE)
    fill(database_url)
    before, shown = seen(database_url), rows(database_url, CURRENT)
    assert [key for key, *_ in shown] == ["a.wav", "b.wav", "c.wav", "d.wav"]

    migrate.upgrade(database_url, "0009")

    assert rows(database_url, CURRENT) == shown
    assert rows(
        database_url, "SELECT version, active_at = first_seen_at, last_served_at IS NULL FROM models ORDER BY 1"
    ) == [("1", True, True), ("2", True, True), ("3", None, True)]
    assert rows(database_url, "SELECT name, version, explicit, (since AT TIME ZONE 'UTC')::text FROM active_model") == [
        ("cough", "2", False, "2026-11-02 00:00:00")
    ]
    migrate.downgrade(database_url, BEFORE)
    assert seen(database_url) == before
    assert rows(database_url, CURRENT) == shown


def test_up_keeps_the_rights_of_the_analysts(database_url: str) -> None:
    migrate.upgrade(database_url, BEFORE)
    execute(database_url, "CREATE ROLE active_reader")
    try:
        execute(database_url, "GRANT SELECT ON current TO active_reader")
        migrate.upgrade(database_url, "0009")
        with psycopg.connect(database_url) as connection:
            connection.execute("SET ROLE active_reader")
            assert connection.execute("SELECT uri FROM current").fetchall() == []
    finally:
        execute(database_url, "DROP OWNED BY active_reader")
        execute(database_url, "DROP ROLE active_reader")
