"""The error class of Tussis for every SQLSTATE of PostgreSQL. No database error fails a recording at once.

=========================== ================================================================================
:class:`DatabaseUnavailable` transient, for every recording: the worker waits without limit and keeps its work
:class:`DatabaseReadOnly`    the same; the next connection may reach the new primary
:class:`DiskFull`,           only the operator can fix it: the worker waits as well, and reports it
:class:`DatabaseRefused`,
:class:`SchemaMismatch`
:class:`Forgotten`           permanent: the trigger that protects forgotten recordings refused the row
:class:`DatabaseFault`       everything else. The recording may be the cause: the attempt counts, retries have growing
                             delays, and after ``TUSSIS_RETRY_TOTAL_S`` the job is the failure ``expired``
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
    Forgotten,
    SchemaMismatch,
    TussisError,
)
from tussis.shared.store.forget_functions import FORGOTTEN_STATE
from tussis.shared.tls import tls_reason

#: Class of SQLSTATE (its first two characters) -> error class of Tussis.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
BY_CLASS: dict[str, type[TussisError]] = {
    "02": DatabaseFault,  # no data
    "03": DatabaseFault,  # SQL statement not yet complete
    "08": DatabaseUnavailable,  # connection exception; PgBouncer reports its own errors as 08P01
    "09": DatabaseFault,  # triggered action exception
    "0A": DatabaseFault,  # feature not supported; a cached plan of a table that was altered
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
    "40": DatabaseUnavailable,  # deadlock, serialisation failure: a retry succeeds
    "42": SchemaMismatch,  # all recordings use the same statements, so the schema is wrong
    "44": DatabaseFault,  # WITH CHECK OPTION
    "53": DatabaseUnavailable,  # too many connections, out of memory
    "54": DatabaseFault,  # program limit exceeded: a row or an index entry that is too large
    "55": DatabaseFault,  # object not in prerequisite state
    "57": DatabaseUnavailable,  # shutdown, crash of another backend, statement timeout
    "58": DatabaseUnavailable,  # system error outside PostgreSQL
    "72": DatabaseUnavailable,  # snapshot too old
    "F0": DatabaseUnavailable,  # configuration file
    "HV": DatabaseFault,  # foreign data wrapper
    "P0": DatabaseFault,  # PL/pgSQL: a trigger that is not part of Tussis
    "XX": DatabaseFault,  # internal error, corrupted data
}
#: SQLSTATE -> error class of Tussis, if it differs from that of the SQLSTATE's class.
BY_STATE: dict[str, type[TussisError]] = {
    "25006": DatabaseReadOnly,  # read-only transaction: a standby behind the address after a switch
    "25P03": DatabaseUnavailable,  # idle in transaction for too long: this process was stopped
    "25P04": DatabaseUnavailable,  # transaction timeout
    "42501": DatabaseRefused,  # insufficient privilege
    "42P03": DatabaseFault,  # duplicate cursor
    "42P04": DatabaseFault,  # duplicate database
    "42P05": DatabaseFault,  # duplicate prepared statement: prepared statements behind a pooler
    "53100": DiskFull,
    "55006": DatabaseUnavailable,  # object in use
    "55P03": DatabaseUnavailable,  # lock timeout
}
#: Errors of prepared statements in a session that several clients share. Only a pooler causes them.
_POOLED = frozenset({"26000", "42P05"})

# The error of a failed connection has no SQLSTATE, only a message of the server, the pooler or libpq. It is in English
# unless lc_messages of the server selects another language.
_REFUSED_TEXTS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "permission denied for database",
    # messages of PgBouncer
    "no such database",
    "no such user",
    "unsupported startup parameter",
    # messages of libpq about an option in TUSSIS_DATABASE_URL
    "certificate verify failed",
    "does not match host name",
    "certificate required",
    "alert unknown ca",
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

_NO_ANSWER = "the database at {where} does not answer ({what}): start it, or check TUSSIS_DATABASE_URL"
_NO_TLS = "no TLS connection to the database at {where} ({what}): {reason}"
_CA, _CERTIFICATE = "sslrootcert in TUSSIS_DATABASE_URL", "sslcert and sslkey in TUSSIS_DATABASE_URL"
_MESSAGES: dict[type[TussisError], str] = {
    DatabaseUnavailable: "the database at {where} cannot run a statement now ({what}): try again",
    DatabaseReadOnly: "the database at {where} accepts no writes ({what}): it is a standby, or its writes are turned "
    "off; check that TUSSIS_DATABASE_URL is the address of the primary",
    DatabaseRefused: "the database at {where} refuses access ({what}): check TUSSIS_DATABASE_URL and the rights of its "
    "user",
    DiskFull: "the database at {where} cannot write ({what}): free space on its disk",
    SchemaMismatch: "the schema of the database at {where} does not match this version of Tussis ({what}): run "
    "`tussis migrate`",
    DatabaseFault: "the database at {where} refuses a statement ({what}; SQLSTATE {state}): find the statement in its "
    "log",
}
_UNSET_DIRECT = (
    "prepared statements fail behind the pooler of the database at {where} ({what}): unset TUSSIS_DATABASE_DIRECT"
)


@contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Convert errors of psycopg and SQLAlchemy to errors of Tussis that name ``where`` (host:port/database).

    Raises an error of the table above for every error of psycopg. All other exceptions are not errors of a database and
    pass unchanged.
    """
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:
        raise DatabaseUnavailable(
            f"no free connection to the database at {where}: all connections of the pool are in use; try again"
        ) from error
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        fault = translated(error, where)
        if fault is None:
            raise
        raise fault from error


def translated(error: BaseException, where: str) -> TussisError | None:
    """The error of Tussis for an error of psycopg or SQLAlchemy; None for any other error."""
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    # psycopg has no class for a SQLSTATE that PostgreSQL does not define, and leaves the attribute empty.
    state = original.sqlstate or original.diag.sqlstate
    if state == FORGOTTEN_STATE:
        return Forgotten()
    kind = kind_of_state(state) if state is not None else _kind_of_text(original)
    message = _MESSAGES[kind]
    reason = tls_reason(str(original), ca=_CA, certificate=_CERTIFICATE) if state is None else None
    if reason is not None and kind is DatabaseRefused and "certificate" in str(original):
        return kind(_NO_TLS.format(where=where, what=_first_line(original), reason=reason))
    if kind is DatabaseUnavailable and (state is None or state[:2] in ("08", "57")):
        message = _NO_ANSWER
    elif state in _POOLED:
        message = _UNSET_DIRECT
    return kind(message.format(where=where, what=_first_line(original), state=state or "none"))


def kind_of_state(state: str) -> type[TussisError]:
    """The error class of Tussis for a SQLSTATE; :class:`DatabaseFault` for one that PostgreSQL does not define."""
    return BY_STATE.get(state) or BY_CLASS.get(state[:2], DatabaseFault)


def _kind_of_text(error: psycopg.Error) -> type[TussisError]:
    """The class of an error without SQLSTATE: the connection failed or broke, or psycopg itself rejected a value."""
    if not isinstance(error, psycopg.OperationalError):
        return DatabaseFault
    text = str(error)
    if any(part in text for part in _REFUSED_TEXTS) or all(part in text for part in _INVALID_VALUE):
        return DatabaseRefused
    if "FATAL" in text and any(part in text for part in _NAME_UNKNOWN):
        return DatabaseRefused
    return DatabaseUnavailable


def _first_line(error: psycopg.Error) -> str:
    # The message of the server contains no password. libpq names only host, port, user and database.
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
