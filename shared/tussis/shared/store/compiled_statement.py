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
from sqlalchemy import ClauseElement, ColumnElement, Dialect, Engine, bindparam
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


class CompiledStatement:
    """A statement of SQLAlchemy that is a complete transaction and returns one row or none.

    It is compiled once in each process and passed to psycopg as text. SQLAlchemy would traverse the statement at each
    execution, which takes several times as long as the rest of the client's work. SQLAlchemy therefore does not process
    the parameters. They must be values that psycopg accepts: JSON as text, arrays from :func:`array_of`.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: tuple[bytes, dict[str, Any]] | None = None

    def _compile(self, dialect: Dialect) -> tuple[bytes, dict[str, Any]]:
        """The text of the statement, and the parameter values that it contains."""
        compiled = self._statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        return str(compiled).encode(), {
            name: bind.value for bind, name in compiled.bind_names.items() if not bind.required
        }

    def run(self, engine: Engine, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run the statement and commit. Raises the errors of psycopg unchanged."""
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
                # After any exception the state of the connection is unknown. The pool replaces it.
                pooled.invalidate()
                raise
            return found
        finally:
            pooled.close()


def given(name: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """A parameter of a compiled statement, with the type of a column."""
    return bindparam(name, type_=kind)


def array_of(values: Iterable[float]) -> str:
    """Numbers as an array literal of PostgreSQL. Exact: PostgreSQL parses the repr of a float to the same double."""
    return f"{{{','.join(repr(float(value)) for value in values)}}}"
