"""PostgreSQL's errors as ours, decided for every SQLSTATE: none of them is a bug of a recording's at its first sight.

=========================== ================================================================================
:class:`DatabaseUnavailable` it concerns every recording and passes: waited for without end, the work is kept
:class:`DatabaseReadOnly`    the same; the next connection may find the new primary
:class:`DiskFull`,           only the operator can mend it: waited for as well, and said aloud
:class:`DatabaseRefused`,
:class:`SchemaMismatch`
:class:`DatabaseFault`       everything else. It may be this recording's: tried again with growing delays, counted, and
                             the failure ``expired`` when ``TUSSIS_RETRY_TOTAL_S`` is over
=========================== ================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from tussis.shared.errors import (
    DatabaseFault,
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    SchemaMismatch,
    TussisError,
)

#: Class of SQLSTATE (its first two characters) -> our error.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
BY_CLASS: dict[str, type[TussisError]] = {
    "02": DatabaseFault,  # no data
    "03": DatabaseFault,  # SQL statement not yet complete
    "08": DatabaseUnavailable,  # connection exception; PgBouncer's own errors are 08P01
    "09": DatabaseFault,  # triggered action exception
    "0A": DatabaseFault,  # feature not supported; a plan whose table was altered under it
    "0B": DatabaseFault,  # invalid transaction initiation
    "0F": DatabaseFault,  # locator exception
    "0L": DatabaseRefused,  # invalid grantor
    "0P": DatabaseRefused,  # invalid role
    "0Z": DatabaseFault,  # diagnostics exception
    "10": DatabaseFault,  # XQuery
    "20": DatabaseFault,  # case not found
    "21": DatabaseFault,  # cardinality violation
    "22": DatabaseFault,  # data exception: the value of one recording, or an encoding
    "23": DatabaseFault,  # constraint: a race, a row that a restored database lacks, or a value
    "24": DatabaseFault,  # invalid cursor state
    "25": DatabaseFault,  # invalid transaction state
    "26": DatabaseFault,  # invalid statement name: prepared statements behind a pooler
    "27": DatabaseFault,  # triggered data change violation
    "28": DatabaseRefused,  # login
    "2B": DatabaseRefused,  # dependent privileges
    "2D": DatabaseFault,  # invalid transaction termination
    "2F": DatabaseFault,  # SQL routine exception
    "34": DatabaseFault,  # invalid cursor name
    "38": DatabaseFault,  # external routine exception
    "39": DatabaseFault,  # external routine invocation exception
    "3B": DatabaseFault,  # savepoint exception
    "3D": DatabaseRefused,  # no such database
    "3F": SchemaMismatch,  # no such schema
    "40": DatabaseUnavailable,  # deadlock, serialisation: the same again succeeds
    "42": SchemaMismatch,  # the statements are the same for every recording: the database is not what they expect
    "44": DatabaseFault,  # WITH CHECK OPTION
    "53": DatabaseUnavailable,  # too many connections, out of memory
    "54": DatabaseFault,  # program limit exceeded: a row or an index entry that is too large
    "55": DatabaseFault,  # object not in prerequisite state
    "57": DatabaseUnavailable,  # shutdown, crash of another backend, statement timeout
    "58": DatabaseUnavailable,  # system error below PostgreSQL
    "72": DatabaseUnavailable,  # snapshot too old
    "F0": DatabaseUnavailable,  # configuration file
    "HV": DatabaseFault,  # foreign data wrapper
    "P0": DatabaseFault,  # PL/pgSQL: a trigger of somebody else's
    "XX": DatabaseFault,  # internal error, corrupted data
}
#: SQLSTATE -> our error, where it differs from its class.
BY_STATE: dict[str, type[TussisError]] = {
    "25006": DatabaseReadOnly,  # read-only transaction: a standby behind the address after a switch
    "25P03": DatabaseUnavailable,  # idle in transaction for too long: this process had been stopped
    "25P04": DatabaseUnavailable,  # transaction timeout
    "42501": DatabaseRefused,  # insufficient privilege
    "42P03": DatabaseFault,  # duplicate cursor
    "42P04": DatabaseFault,  # duplicate database
    "42P05": DatabaseFault,  # duplicate prepared statement: prepared statements behind a pooler
    "53100": DiskFull,
    "55006": DatabaseUnavailable,  # object in use
    "55P03": DatabaseUnavailable,  # lock timeout
}
#: Server sessions that are not one client's own: only a pooler makes these.
_POOLED = frozenset({"26000", "42P05"})

# A failed connection carries no SQLSTATE, only the server's, the pooler's or libpq's words (English unless the server's
# lc_messages says otherwise).
_REFUSED_WORDS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "permission denied for database",
    # PgBouncer's
    "no such database",
    "no such user",
    "unsupported startup parameter",
    # libpq's: an option in TUSSIS_DATABASE_URL
    "certificate verify failed",
    "root certificate file",
    "could not match",
    "could not read certificate file",
    "could not load private key file",
    "definition of service",
    "server does not support SSL",
    "invalid integer value",
    "invalid port number",
    "invalid connection option",
    "service file",
)
_NAME_UNKNOWN = ("does not exist",)
# "invalid sslmode value", "invalid target_session_attrs value" ...
_INVALID_VALUE = ("invalid ", " value: ")

_AWAY = "the database at {where} does not answer ({what}): is it running? Check TUSSIS_DATABASE_URL"
_ADVICE: dict[type[TussisError], str] = {
    DatabaseUnavailable: "the database at {where} cannot do this now ({what}): try again",
    DatabaseReadOnly: "the database at {where} only reads ({what}): a standby answers at the primary's address, or "
    "somebody stopped writing; look where TUSSIS_DATABASE_URL leads",
    DatabaseRefused: "the database at {where} refuses ({what}): check TUSSIS_DATABASE_URL and the rights of its user",
    DiskFull: "the database at {where} cannot write ({what}): free its disk",
    SchemaMismatch: "the database at {where} lacks what this version needs ({what}): run `tussis migrate`",
    DatabaseFault: "the database at {where} refuses a statement ({what}; SQLSTATE {state}): its log has the statement",
}
_UNSET_DIRECT = (
    "the database at {where} mixes up prepared statements ({what}): a pooler is in between, unset "
    "TUSSIS_DATABASE_DIRECT"
)


@contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Turn psycopg's and SQLAlchemy's errors into ours, naming ``where`` (host:port/database, no password).

    Raises the errors of the table above for every error of psycopg's. What is left is no error of a database.
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
    """Our error for one of psycopg's or SQLAlchemy's; None for any other."""
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate
    kind = kind_of_state(state) if state is not None else _kind_of_words(original)
    advice = _ADVICE[kind]
    if kind is DatabaseUnavailable and (state is None or state[:2] in ("08", "57")):
        advice = _AWAY
    elif state in _POOLED:
        advice = _UNSET_DIRECT
    return kind(advice.format(where=where, what=_first_line(original), state=state or "none"))


def kind_of_state(state: str) -> type[TussisError]:
    """Our error for a SQLSTATE; :class:`DatabaseFault` for one that PostgreSQL does not know."""
    return BY_STATE.get(state) or BY_CLASS.get(state[:2], DatabaseFault)


def _kind_of_words(error: psycopg.Error) -> type[TussisError]:
    """Of an error without SQLSTATE: the connection failed or broke, or psycopg itself refuses a value."""
    if not isinstance(error, psycopg.OperationalError):
        return DatabaseFault
    words = str(error)
    if any(part in words for part in _REFUSED_WORDS) or all(part in words for part in _INVALID_VALUE):
        return DatabaseRefused
    if "FATAL" in words and any(part in words for part in _NAME_UNKNOWN):
        return DatabaseRefused
    return DatabaseUnavailable


def _first_line(error: psycopg.Error) -> str:
    # The server's own message has no password in it; libpq names host, port, user and database only.
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
