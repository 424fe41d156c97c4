"""A statement that is a complete transaction: no BEGIN, no COMMIT, and one round trip to the server instead of eight.

The operations that run for every recording use such statements. Rare operations (redeliveries, failures, pauses) use
ordinary transactions, which are easier to read. A statement with data-modifying WITH clauses is as atomic as a
transaction. All clauses see the database as it was at the start of the statement. A clause runs after the clauses whose
rows it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import Engine


def run_statement(engine: Engine, sql: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
    """Run a statement that is a complete transaction, and commit; returns its row or None.

    psycopg gets the text, because SQLAlchemy would take several times as long as the rest of the client's work. So the
    parameters must be values that psycopg accepts: JSON as text, arrays from :func:`array_of`. Raises the errors of
    psycopg unchanged.
    """
    pooled = engine.raw_connection()
    try:
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        try:
            connection.autocommit = True
            found = connection.execute(sql.encode(), parameters).fetchone()
            connection.autocommit = False
        except BaseException:
            # After any exception the state of the connection is unknown. The pool replaces it.
            pooled.invalidate()
            raise
        return found
    finally:
        pooled.close()


def array_of(values: Iterable[float]) -> str:
    """Numbers as an array literal of PostgreSQL. Exact: PostgreSQL parses the repr of a float to the same double."""
    return f"{{{','.join(repr(float(value)) for value in values)}}}"
