"""Migrations: up from empty, down, at once from two processes, and never over what is not ours."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.store import execute, rows
from tests.support.waiting import wait_until
from tussis.shared.errors import DatabaseUnavailable, SchemaMismatch
from tussis.shared.store import migrate
from tussis.shared.store.repository import Store
from tussis.shared.store.schema import SCHEMA_REVISION, VERSION_TABLE

ROOT = Path(__file__).resolve().parents[2]

RELATIONS = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY 1"
)


def test_up_from_empty(database_url: str) -> None:
    assert migrate.current(database_url) is None
    migrate.upgrade(database_url)
    assert migrate.current(database_url) == migrate.head() == SCHEMA_REVISION
    with Store.connect(database_url) as store:
        store.verify_schema()
    # And again: nothing to do.
    migrate.upgrade(database_url)


def test_down_to_base_leaves_nothing(store_url: str) -> None:
    assert len(rows(store_url, RELATIONS)) > 8
    migrate.downgrade(store_url, migrate.BASE)
    assert migrate.current(store_url) is None
    assert rows(store_url, RELATIONS) == [(VERSION_TABLE,)]


def test_each_step_down_and_up_again(store_url: str) -> None:
    for before, after in reversed(list(zip((migrate.BASE, *migrate.revisions()), migrate.revisions(), strict=False))):
        migrate.downgrade(store_url, before)
        migrate.upgrade(store_url, after)
        assert migrate.current(store_url) == after
        migrate.downgrade(store_url, before)
    migrate.upgrade(store_url)
    assert migrate.current(store_url) == SCHEMA_REVISION


def test_the_exclusive_attempts_keep_their_rows(store_url: str) -> None:
    """Given attempts on revision 0003, then 0004 renames the column of each and its comment, and back."""
    comment = (
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'attempts'::regclass AND attname IN ('alone', 'exclusive')"
    )
    migrate.downgrade(store_url, "0003")
    execute(
        store_url,
        """
        WITH recording AS (
            INSERT INTO recordings (bucket, key, etag) VALUES ('b', 'k', 'e') RETURNING id
        ), analysis AS (
            INSERT INTO analyses (recording_id, profile, profile_overridden, coverage, job_id, state, attempt_token,
                attempts, worker, device, enqueued_at, started_at)
            SELECT id, 'documented', false, 'head', gen_random_uuid(), 'running', gen_random_uuid(),
                2, 'cpu@one', 'cpu', now(), now()
            FROM recording
            RETURNING id
        )
        INSERT INTO attempts (analysis_id, number, token, worker, alone)
        SELECT id, number, gen_random_uuid(), 'cpu@one', number = 2 FROM analysis, generate_series(1, 2) AS number
        """,
    )

    migrate.upgrade(store_url, "0004")
    assert rows(store_url, "SELECT number, exclusive FROM attempts ORDER BY number") == [(1, False), (2, True)]
    assert rows(store_url, comment) == [
        ("exclusive", "true if no other recording shared the run; only an exclusive attempt counts when it crashes")
    ]

    migrate.downgrade(store_url, "0003")
    assert rows(store_url, "SELECT number, alone FROM attempts ORDER BY number") == [(1, False), (2, True)]
    assert rows(store_url, comment) == [
        ("alone", "true if the process worked on no other recording; only such an attempt counts when it crashes")
    ]


def test_a_migration_that_fails_half_way_leaves_nothing(database_url: str) -> None:
    # A table of that name belongs to somebody else; the first tables of ours were made before it was met.
    execute(database_url, "CREATE TABLE segments (theirs text)")
    with pytest.raises(SchemaMismatch, match=r'"segments" already exists.*separate database for Tussis'):
        migrate.upgrade(database_url)
    assert rows(database_url, RELATIONS) == [("segments",)]
    assert migrate.current(database_url) is None


def test_a_revision_that_this_version_does_not_know(store_url: str) -> None:
    execute(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '0042'")
    with pytest.raises(SchemaMismatch, match="0042"):
        migrate.upgrade(store_url)
    with pytest.raises(SchemaMismatch, match="0099"):
        migrate.upgrade(store_url, "0099")


def test_another_systems_migrations_in_the_same_database_are_left_alone(database_url: str) -> None:
    execute(database_url, "CREATE TABLE alembic_version (version_num text)")
    execute(database_url, "INSERT INTO alembic_version VALUES ('theirs')")
    migrate.upgrade(database_url)
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [("theirs",)]


def test_two_processes_at_once_migrate_once(database_url: str) -> None:
    code = "import sys; from tussis.shared.store import migrate; migrate.upgrade(sys.argv[1])"
    both = [
        subprocess.Popen([sys.executable, "-c", code, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in both]
    assert ends == [("", 0), ("", 0)]
    assert migrate.current(database_url) == SCHEMA_REVISION


def test_the_second_waits_for_the_first(database_url: str) -> None:
    # Hold the migrations' lock as another migration would, then let it go.
    with psycopg.connect(database_url) as first:
        first.execute("SELECT pg_advisory_xact_lock(%s)", [0x747573736973])
        second = threading.Thread(target=migrate.upgrade, args=[database_url])
        second.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: rows(database_url, waiting) == [(1,)], 20, "the second migration to wait")
        assert migrate.current(database_url) is None
        first.rollback()
        second.join(60)
    assert migrate.current(database_url) == SCHEMA_REVISION


def test_a_busy_table_is_not_waited_for_long(store_url: str) -> None:
    with psycopg.connect(store_url) as reader:
        reader.execute("SELECT * FROM segments")
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            migrate.downgrade(store_url, migrate.BASE)
    assert migrate.current(store_url) == SCHEMA_REVISION


def test_a_percent_sign_in_the_password(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE percent LOGIN SUPERUSER PASSWORD 'a%b'")
        try:
            name = connection.info.dbname
            port = connection.info.port
            migrate.upgrade(f"postgresql://percent:a%25b@127.0.0.1:{port}/{name}")
        finally:
            connection.execute(sql.SQL("REASSIGN OWNED BY percent TO {}").format(sql.Identifier(connection.info.user)))
            connection.execute("DROP ROLE percent")
    assert migrate.current(database_url) == SCHEMA_REVISION


def test_alembic_itself_runs_on_the_same_configuration(store_url: str) -> None:
    """``alembic check`` at the top of the checkout: what a developer runs after changing a table."""
    done = subprocess.run(
        [Path(sys.executable).with_name("alembic"), "check"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TUSSIS_DATABASE_URL": store_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No new upgrade operations detected" in done.stdout
