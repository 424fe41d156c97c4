"""Revision 0007: the views, up and down again, and the rights on them."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.support.store import execute, rows
from tussis.shared.store import migrate

VIEWS = (
    "SELECT relname, pg_get_viewdef(oid), obj_description(oid, 'pg_class') FROM pg_class "
    "WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace ORDER BY 1"
)
COLUMNS = (
    "SELECT relname, attnum, attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) "
    "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
    "WHERE relkind = 'v' AND attnum > 0 AND relnamespace = 'public'::regnamespace ORDER BY 1, 2"
)
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


def seen(url: str) -> list[list[tuple[Any, ...]]]:
    return [rows(url, query) for query in (VIEWS, COLUMNS, INDEXES)]


def test_down_restores_the_views_of_the_revision_before(database_url: str) -> None:
    migrate.upgrade(database_url, "0006")
    before = seen(database_url)
    migrate.upgrade(database_url, "0007")
    after = seen(database_url)

    migrate.downgrade(database_url, "0006")

    assert seen(database_url) == before
    assert {name for name, *_ in before[0]} == {"analyses_newest", "current", "current_segments"}
    migrate.upgrade(database_url, "0007")
    assert seen(database_url) == after


def test_up_keeps_the_rights_of_the_analysts(database_url: str) -> None:
    migrate.upgrade(database_url, "0006")
    execute(database_url, "CREATE ROLE views_reader")
    try:
        execute(database_url, "GRANT SELECT ON current, current_segments TO views_reader")

        migrate.upgrade(database_url, "0007")

        with psycopg.connect(database_url) as connection:
            connection.execute("SET ROLE views_reader")
            assert connection.execute("SELECT recorded_at, site, subject FROM current").fetchall() == []
            assert connection.execute("SELECT uri FROM current_segments").fetchall() == []
    finally:
        execute(database_url, "DROP OWNED BY views_reader")
        execute(database_url, "DROP ROLE views_reader")


def test_up_reads_the_metadata_of_stored_recordings(database_url: str) -> None:
    migrate.upgrade(database_url, "0006")
    for key, metadata in (("a.wav", '{"recorded_at": "2026-11-22T14:30+01:00", "site": "north"}'), ("b.wav", "{}")):
        execute(
            database_url,
            "INSERT INTO recordings (bucket, key, etag, metadata) VALUES ('b', %s, 'e', %s::jsonb)",
            key,
            metadata,
        )

    migrate.upgrade(database_url, "0007")

    read = "SELECT key, (recorded_at AT TIME ZONE 'UTC')::text, site, subject FROM recordings ORDER BY key"
    assert rows(database_url, read) == [("a.wav", "2026-11-22 13:30:00", "north", None), ("b.wav", None, None, None)]
    migrate.downgrade(database_url, "0006")
    assert rows(database_url, "SELECT count(*) FROM recordings") == [(2,)]
    assert rows(database_url, "SELECT proname FROM pg_proc WHERE proname LIKE 'tussis%%'") == []
