"""The schema: all tables, and the functions and triggers that are created with them.

``migrations/`` creates the same; a test compares the two schemas. ``docs/schema.md`` lists the tables with the comments
of :mod:`tussis.shared.store.tables`. Times of day are ``timestamptz``. Times inside a recording are seconds from its
first sample. Probabilities are between 0 and 1. PostgreSQL 15 or newer (``NULLS NOT DISTINCT``).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, MetaData, event

from tussis.shared.store import fact_functions, forget_functions
from tussis.shared.store.tables import analyses, answers, base, dead_letters, forgetting, models, recordings

#: The revision that this version of the code needs: the head of ``migrations/``.
SCHEMA_REVISION = "0014"
#: Alembic's table. It has a name of its own because the database can also hold the migrations of another system.
VERSION_TABLE = "tussis_revision"

#: Imported so that :data:`metadata` has all tables.
_MODULES: Final = (recordings, models, analyses, answers, dead_letters, forgetting)
metadata: Final = base.metadata


@event.listens_for(metadata, "before_create")
def _create_functions(_: MetaData, connection: Connection, **__: object) -> None:
    """Create the functions of the generated columns."""
    for statement in fact_functions.FUNCTIONS:
        connection.exec_driver_sql(statement)


@event.listens_for(metadata, "after_create")
def _create_forget_functions(_: MetaData, connection: Connection, **__: object) -> None:
    """Create the functions and triggers of forgotten recordings and of the audit trail."""
    for statement in forget_functions.statements(str(connection.exec_driver_sql("SELECT current_schema()").scalar())):
        connection.exec_driver_sql(statement)
