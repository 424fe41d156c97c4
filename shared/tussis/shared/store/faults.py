"""PostgreSQL's errors as ours: what passes, what only the operator can mend, and what is a bug and stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from tussis.shared.errors import DatabaseRefused, DatabaseUnavailable, DiskFull, SchemaMismatch, TussisError

#: SQLSTATE, or its class of two characters -> our error. https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE: dict[str, type[TussisError]] = {
    "08": DatabaseUnavailable,  # connection exception
    "57": DatabaseUnavailable,  # shutdown, crash of another backend, statement timeout
    "40": DatabaseUnavailable,  # deadlock, serialisation
    "53": DatabaseUnavailable,  # too many connections, out of memory
    "58": DatabaseUnavailable,  # system error below PostgreSQL
    "25P03": DatabaseUnavailable,  # idle in transaction for too long: this process had been stopped
    "55P03": DatabaseUnavailable,  # lock timeout
    "53100": DiskFull,
    "25006": DiskFull,  # read-only transaction: a standby, or an administrator who stopped writing
    "28": DatabaseRefused,  # login
    "3D": DatabaseRefused,  # no such database
    "42501": DatabaseRefused,  # insufficient privilege
    "42P01": SchemaMismatch,  # no such table
    "42703": SchemaMismatch,  # no such column
    "42P10": SchemaMismatch,  # no such unique constraint
    "3F": SchemaMismatch,  # no such schema
}
# A failed connection carries no SQLSTATE, only the server's words (English unless its lc_messages says otherwise).
_LOGIN_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "permission denied for database",
)
_NAME_UNKNOWN = ("does not exist",)

_ADVICE: dict[type[TussisError], str] = {
    DatabaseUnavailable: "the database at {where} does not answer ({what}): is it running? Check TUSSIS_DATABASE_URL",
    DatabaseRefused: "the database at {where} refuses ({what}): check TUSSIS_DATABASE_URL and the rights of its user",
    DiskFull: "the database at {where} cannot write ({what}): free its disk, or make it writable",
    SchemaMismatch: "the database at {where} lacks what this version needs ({what}): run `tussis migrate`",
}


@contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Turn psycopg's and SQLAlchemy's errors into ours, naming ``where`` (host:port/database, no password).

    Raises :class:`DatabaseUnavailable`, :class:`DatabaseRefused`, :class:`DiskFull` or :class:`SchemaMismatch`. Any
    other database error (a constraint, a type) is a bug of the caller's and passes through.
    """
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:
        raise DatabaseUnavailable(f"no free connection to the database at {where}: the pool is in use") from error
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        fault = translated(error, where)
        if fault is None:
            raise
        raise fault from error


def translated(error: BaseException, where: str) -> TussisError | None:
    """Our error for one of psycopg's or SQLAlchemy's; None when it is a bug rather than a circumstance."""
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    kind = _kind(original)
    if kind is None and isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        kind = DatabaseUnavailable
    if kind is None:
        return None
    return kind(_ADVICE[kind].format(where=where, what=_first_line(original)))


def _kind(error: psycopg.Error) -> type[TussisError] | None:
    state = error.sqlstate
    if state is not None:
        return _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2])
    if not isinstance(error, psycopg.OperationalError):
        return None
    words = str(error)
    if any(part in words for part in _LOGIN_REFUSED):
        return DatabaseRefused
    if "FATAL" in words and any(part in words for part in _NAME_UNKNOWN):
        return DatabaseRefused
    return DatabaseUnavailable


def _first_line(error: psycopg.Error) -> str:
    # The server's own message has no password in it; libpq names host, port, user and database only.
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
