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
