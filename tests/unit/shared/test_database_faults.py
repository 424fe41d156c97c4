"""Every SQLSTATE that psycopg knows has its decision, and none of them makes a recording fail at its first sight."""

from __future__ import annotations

import re

import psycopg
import psycopg.errors
import pytest
import sqlalchemy.exc

from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.shared.errors import (
    DatabaseFault,
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    OperatorError,
    SchemaMismatch,
    TransientError,
    TussisError,
)
from tussis.shared.store.faults import BY_CLASS, BY_STATE, kind_of_state, translated

STATES = sorted({kind.sqlstate for kind in psycopg.errors._sqlcodes.values() if kind.sqlstate is not None})

#: What concerns every recording, by our error. Every other state may be one recording's: DatabaseFault.
DECIDED: dict[type[TussisError], str] = {
    DatabaseUnavailable: "08000 08001 08003 08004 08006 08007 08P01 25P03 25P04 40000 40001 40002 40003 40P01 53000"
    " 53200 53300 53400 55006 55P03 57000 57014 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02 58P03 72000"
    " F0000 F0001",
    DatabaseReadOnly: "25006",
    DiskFull: "53100",
    DatabaseRefused: "0L000 0LP01 0P000 28000 28P01 2B000 2BP01 3D000 42501",
    SchemaMismatch: "3F000 42000 42601 42602 42611 42622 42701 42702 42703 42704 42710 42712 42723 42725 42803 42804"
    " 42809 42830 42846 42883 42939 42P01 42P02 42P06 42P07 42P08 42P09 42P10 42P11 42P12 42P13 42P14 42P15 42P16"
    " 42P17 42P18 42P19 42P20 42P21 42P22 428C9",
}
EXPECTED = {state: kind for kind, states in DECIDED.items() for state in states.split()}


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_decision(state: str) -> None:
    assert state[:2] in BY_CLASS
    kind = EXPECTED.get(state, DatabaseFault)
    fault = translated(psycopg.errors.lookup(state)("so it is"), "here:5432/tussis")
    assert type(fault) is kind
    assert isinstance(fault, TransientError | OperatorError)
    message = str(fault)
    assert "here:5432/tussis" in message
    assert "so it is" in message
    assert "\n" not in message


def test_the_tables_name_nothing_that_does_not_exist() -> None:
    assert len(STATES) > 250
    assert set(EXPECTED) <= set(STATES)
    # These came with servers that are newer than psycopg's list, or are missing there.
    assert set(BY_STATE) <= set(STATES)
    assert set(BY_CLASS) <= {state[:2] for state in STATES}
    redundant = [state for state, kind in BY_STATE.items() if BY_CLASS[state[:2]] is kind]
    assert redundant == []


@pytest.mark.parametrize("state", ["ZZ999", "CR000", "99999"])
def test_a_state_that_postgresql_does_not_know_is_bounded(state: str) -> None:
    assert kind_of_state(state) is DatabaseFault


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (psycopg.errors.DuplicatePreparedStatement("prepared statement exists"), DatabaseFault, "DATABASE_DIRECT"),
        (psycopg.errors.InvalidSqlStatementName("no such statement"), DatabaseFault, "DATABASE_DIRECT"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot INSERT"), DatabaseReadOnly, "standby"),
        (psycopg.errors.AdminShutdown("bye"), DatabaseUnavailable, "start it, or check TUSSIS_DATABASE_URL"),
        (
            psycopg.errors.ProtocolViolation("query_wait_timeout"),
            DatabaseUnavailable,
            "start it, or check TUSSIS_DATABASE_URL",
        ),
        (psycopg.errors.LockNotAvailable("lock timeout"), DatabaseUnavailable, "try again"),
        (psycopg.errors.ForeignKeyViolation("no such model"), DatabaseFault, "SQLSTATE 23503"),
        (psycopg.errors.UntranslatableCharacter("no such character"), DatabaseFault, "SQLSTATE 22P05"),
        (psycopg.errors.SyntaxError("at or near NULLS"), SchemaMismatch, "tussis migrate"),
        (psycopg.errors.DiskFull("no space"), DiskFull, "free space on its disk"),
        # No SQLSTATE: psycopg's own, and failed connections.
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), DatabaseFault, "NUL"),
        (psycopg.InterfaceError("odd"), DatabaseFault, "odd"),
        (
            psycopg.OperationalError("server closed the connection unexpectedly"),
            DatabaseUnavailable,
            "start it, or check TUSSIS_DATABASE_URL",
        ),
        (psycopg.OperationalError("FATAL:  unsupported startup parameter: options"), DatabaseRefused, "options"),
        (psycopg.OperationalError("FATAL:  no such database: nowhere"), DatabaseRefused, "nowhere"),
        (psycopg.OperationalError('invalid sslmode value: "alwys"'), DatabaseRefused, "alwys"),
        (psycopg.OperationalError('invalid target_session_attrs value: "rw"'), DatabaseRefused, "rw"),
        (psycopg.OperationalError("could not match 2 port numbers to 3 hosts"), DatabaseRefused, "3 hosts"),
        (psycopg.OperationalError('definition of service "x" not found'), DatabaseRefused, "service"),
        (psycopg.OperationalError('FATAL:  database "nowhere" does not exist'), DatabaseRefused, "nowhere"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_said_to_whoever_reads_it(error: psycopg.Error, kind: type[TussisError], words: str) -> None:
    wrapped = sqlalchemy.exc.DBAPIError("SELECT 1", None, error)
    for found in (translated(error, "here"), translated(wrapped, "here")):
        assert type(found) is kind
        assert words in str(found)


def test_what_is_no_error_of_a_database_passes_through() -> None:
    assert translated(ValueError("a bug"), "here") is None


def test_the_operators_table_says_the_same() -> None:
    told: dict[str, type[TussisError]] = {}
    kinds = {kind.error_class: kind for kind in DECIDED} | {DatabaseFault.error_class: DatabaseFault}
    for error_class, states, _ in table(ROOT / "docs" / "errors.md", "class of error"):
        told |= dict.fromkeys(re.findall(r"\b[0-9A-Z]{2}(?:[0-9A-Z]{3})?\b", states), kinds[code(error_class)])
    expected = {state: kind for state, kind in (BY_CLASS | BY_STATE).items() if kind is not DatabaseFault}
    assert told == expected
