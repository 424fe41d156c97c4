"""A statement that is a complete transaction: no BEGIN, no COMMIT, and one round trip to the server instead of eight.

The operations that run for every recording use such statements. Rare operations (redeliveries, failures, pauses) use
ordinary transactions, which are easier to read. A statement with data-modifying WITH clauses is as atomic as a
transaction. All clauses see the database as it was at the start of the statement. A clause runs after the clauses whose
rows it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")


class Statement:
    """The text of a statement in the form that PostgreSQL reads, made once, and the names of its parameters.

    psycopg would look for the placeholders of a text above 4,096 bytes at every call.
    """

    def __init__(self, sql: str) -> None:
        """``sql`` has the placeholders of psycopg: ``%(name)s`` for a parameter, ``%%`` for a percent sign."""
        self._names: list[str] = []
        self.text = _PLACEHOLDER.sub(self._numbered, sql).encode()

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters in the order of their numbers. Raises KeyError if one is missing."""
        return [parameters[name] for name in self._names]

    def _numbered(self, found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in self._names:
            self._names.append(name)
        return f"${self._names.index(name) + 1}"


def run_statement(engine: Engine, statement: Statement, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
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
            cursor = psycopg.RawCursor(connection)
            found = cursor.execute(statement.text, statement.values(parameters)).fetchone()
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


def whole_array_of(values: Iterable[int]) -> str:
    """Whole numbers as an array literal of PostgreSQL."""
    return f"{{{','.join(str(int(value)) for value in values)}}}"


def whole(value: int | None) -> str | None:
    """A whole number as text, which PostgreSQL reads as the type of the cast in the statement.

    psycopg sends a number as the smallest of three types that holds it. A prepared statement is for one combination of
    types, so numbers of different sizes would make the server parse and plan the same text many times.
    """
    return None if value is None else str(value)
