"""The migrated schema against the declared one, catalogue against catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

from tests.support.servers import fresh_database
from tests.support.store import execute
from tussis.shared.store import rights
from tussis.shared.store.connection import connect_engine
from tussis.shared.store.schema import VERSION_TABLE, metadata
from tussis.shared.store.views import VIEWS
from tussis.worker.embedded.servers import Servers

#: Without the partitions: the migrated schema has one for each month, the declared one has none.
OURS = (
    "NOT relispartition AND relnamespace = 'public'::regnamespace "
    f"AND relname <> '{VERSION_TABLE}' AND relname <> '{VERSION_TABLE}_pkc'"
)

CATALOGUE = {
    "relations": f"SELECT relname, relkind, obj_description(oid, 'pg_class') FROM pg_class WHERE {OURS}",
    "columns": (
        "SELECT relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, "
        "attcollation::regcollation, pg_get_expr(adbin, adrelid), col_description(pg_class.oid, attnum) "
        "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
        f"WHERE attnum > 0 AND {OURS}"
    ),
    "constraints": (
        "SELECT relname, conname, contype, pg_get_constraintdef(pg_constraint.oid) "
        f"FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {OURS}"
    ),
    "indexes": f"SELECT relname, pg_get_indexdef(oid) FROM pg_class WHERE relkind = 'i' AND {OURS}",
    "functions": (
        "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    ),
    "triggers": (
        "SELECT tgname, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        f"WHERE NOT tgisinternal AND {OURS}"
    ),
    "views": f"SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND {OURS}",
}


@pytest.fixture
def migrated(store_url: str) -> Iterator[Engine]:
    engine = connect_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def declared(servers: Servers) -> Iterator[Engine]:
    """A database made from the declarations, without a migration."""
    with fresh_database(servers, "template1") as url:
        engine = connect_engine(url)
        try:
            metadata.create_all(engine)
            with engine.begin() as connection:
                for name, view in VIEWS.items():
                    connection.execute(text(f"CREATE VIEW {name} AS {view.definition}"))
                    connection.exec_driver_sql(f"COMMENT ON VIEW {name} IS '{view.comment}'")
                    for column, comment in view.columns.items():
                        connection.exec_driver_sql(f"COMMENT ON COLUMN {name}.{column} IS '{comment}'")
                rights.grant(connection)
            yield engine
        finally:
            engine.dispose()


def catalogue(engine: Engine, part: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return sorted((tuple(row) for row in connection.execute(text(CATALOGUE[part]))), key=repr)


@pytest.mark.parametrize("part", CATALOGUE)
def test_the_migrated_schema_is_the_declared_one(migrated: Engine, declared: Engine, part: str) -> None:
    expected = catalogue(declared, part)
    assert len(expected) >= 3
    assert catalogue(migrated, part) == expected


def test_alembic_sees_no_difference(migrated: Engine) -> None:
    with migrated.connect() as connection:
        options = {
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
            # The partitions have no declaration.
            "include_name": lambda name, kind, _: kind != "table" or not str(name).startswith("segments_"),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("columns", "ALTER TABLE bags ALTER COLUMN logit DROP NOT NULL"),
        ("columns", 'ALTER TABLE models ALTER COLUMN parent TYPE text COLLATE "C"'),
        ("columns", "COMMENT ON COLUMN bags.logit IS 'other'"),
        ("columns", "COMMENT ON COLUMN current.decision IS 'other'"),
        ("relations", "COMMENT ON VIEW current IS 'other'"),
        ("constraints", "ALTER TABLE analyses DROP CONSTRAINT analyses_open_check"),
        ("indexes", "DROP INDEX analyses_open_failures_idx"),
        ("triggers", "DROP TRIGGER recordings_forgotten ON recordings"),
        ("functions", "GRANT EXECUTE ON FUNCTION tussis_is_forgotten(text, text, jsonb) TO PUBLIC"),
        ("views", "ALTER VIEW analyses_newest RENAME COLUMN worker TO who"),
    ],
)
def test_the_comparison_sees_a_change(
    store_url: str, migrated: Engine, declared: Engine, part: str, change: str
) -> None:
    execute(store_url, change)
    assert catalogue(migrated, part) != catalogue(declared, part)


def test_every_table_view_and_column_has_a_comment(migrated: Engine) -> None:
    relations = [row for row in catalogue(migrated, "relations") if row[1] in ("r", "p", "v")]
    columns = [row for row in catalogue(migrated, "columns") if row[0] in {name for name, *_ in relations}]

    assert len(relations) == len(metadata.sorted_tables) + len(VIEWS)
    assert [name for name, _, comment in relations if not comment] == []
    assert [(row[0], row[1]) for row in columns if not row[-1]] == []
