"""Run migrations: one at a time in a database, in one transaction, with a short wait for a busy table."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from tussis.shared.settings import load_settings
from tussis.shared.store.connection import connect_engine
from tussis.shared.store.owner import OWNER_LOCK, WAIT_FOR_OTHERS
from tussis.shared.store.schema import VERSION_TABLE, metadata

#: ALTER TABLE waits for running queries, and every later query waits for ALTER TABLE. So the wait is short.
_WAIT_FOR_TABLES = "5s"


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        compare_type=True,
        compare_server_default=True,
        # The partitions of segments have no declaration: there is one for each month.
        include_name=lambda name, kind, _: kind != "table" or not str(name).startswith("segments_"),
    )
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT_FOR_OTHERS}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": OWNER_LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_FOR_TABLES}'"))
        context.run_migrations()


def _main() -> None:
    given = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        _run(given)
        return
    engine = connect_engine(load_settings().need_database(), statement_timeout_s=0)
    with engine.connect() as connection:
        _run(connection)
    engine.dispose()


if context.is_offline_mode():
    raise SystemExit("migrations look at the database: run `tussis migrate` (there is no --sql)")
_main()
