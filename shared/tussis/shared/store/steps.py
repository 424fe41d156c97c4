"""A transaction in one statement: no BEGIN, no COMMIT, and one wait for the server instead of eight.

What every recording costs goes this way; what happens seldom (redeliveries, failures, pauses) goes through ordinary
transactions, which are easier to read. A statement with data-modifying WITH clauses is as atomic as a transaction: all
of them see the database as it was when the statement began, and what one of them feeds to another is done before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import ClauseElement, ColumnElement, Dialect, Engine, bindparam
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


class Step:
    """A statement of SQLAlchemy's that is a whole transaction, and answers with one row or none.

    It is compiled once a process and goes to psycopg as text: SQLAlchemy would look at all of it again each time, which
    takes several times as long as the rest of the client's work. So parameters are not processed: they are what psycopg
    takes as it is, JSON as text, arrays from :func:`array_of`.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: tuple[bytes, dict[str, Any]] | None = None

    def _compile(self, dialect: Dialect) -> tuple[bytes, dict[str, Any]]:
        """The text, and the values that stand in the statement itself."""
        compiled = self._statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        return str(compiled).encode(), {
            name: bind.value for bind, name in compiled.bind_names.items() if not bind.required
        }

    def run(self, engine: Engine, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run it and commit. Raises psycopg's errors, as they are."""
        if self._compiled is None:
            self._compiled = self._compile(engine.dialect)
        text, fixed = self._compiled
        pooled = engine.raw_connection()
        try:
            connection = pooled.driver_connection
            assert isinstance(connection, psycopg.Connection)
            try:
                connection.autocommit = True
                found = connection.execute(text, {**fixed, **parameters}).fetchone()
                connection.autocommit = False
            except BaseException:
                # Whatever befell it: the next one gets a new connection rather than one in an unknown state.
                pooled.invalidate()
                raise
            return found
        finally:
            pooled.close()


def given(name: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """A parameter of a step, of a column's type."""
    return bindparam(name, type_=kind)


def array_of(values: Iterable[float]) -> str:
    """Numbers as PostgreSQL writes arrays, exactly: Python's shortest digits are read back as the same double."""
    return f"{{{','.join(repr(float(value)) for value in values)}}}"
