"""The rights of the PostgreSQL roles on every object of the schema. ``docs/security.md`` describes the roles.

The owner (the login of ``tussis migrate``) has every right. The other roles are groups without a login: a login is a
member of one of them. Each object has one line in :data:`RIGHTS`; a test fails for an object without one. A migration
to the newest revision grants what is written here (:func:`grant`), and so does every later ``tussis migrate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text

from tussis.shared.store.owner import OWNER_LOCK
from tussis.shared.store.schema import VERSION_TABLE


class Role(StrEnum):
    """A group of logins."""

    WORKER = "tussis_worker"
    ANALYST = "tussis_analyst"
    ANALYST_FULL = "tussis_analyst_full"


@dataclass(frozen=True)
class Rights:
    """The privileges of each role on a table or view, as GRANT has them."""

    worker: str = "SELECT"
    analyst: str = ""
    analyst_full: str = "SELECT"


#: What an analyst does not see in a view: the metadata of upstream, and the person that they name.
HIDDEN_COLUMNS: Final = frozenset({"metadata", "subject"})

_WRITTEN: Final = Rights(worker="SELECT, INSERT, UPDATE")
_DELETED: Final = Rights(worker="SELECT, INSERT, UPDATE, DELETE")
_READ: Final = Rights()
_OWNERS: Final = Rights(worker="SELECT")
_VIEW: Final = Rights(analyst="SELECT")
_NOBODYS: Final = Rights(worker="", analyst_full="")

#: Table or view -> rights. Partitions need none: a query of the table ``segments`` needs rights on it alone.
RIGHTS: Final[dict[str, Rights]] = {
    VERSION_TABLE: Rights(analyst="SELECT"),
    "recordings": _WRITTEN,
    "models": _WRITTEN,
    "software": _WRITTEN,
    "model_activations": _OWNERS,
    "model_shadows": _OWNERS,
    "analyses": _DELETED,
    "jobs": _WRITTEN,
    "attempts": _WRITTEN,
    "bags": _WRITTEN,
    "segments": _WRITTEN,
    "events": _WRITTEN,
    "bag_progress": _DELETED,
    "tombstones": _READ,
    "dead_letters": _WRITTEN,
    "forgotten": _NOBODYS,
    "forget_keys": _NOBODYS,
    "audit_trail": _NOBODYS,
    "active_model": _VIEW,
    "analyses_newest": _READ,
    "current": _VIEW,
    "current_segments": _VIEW,
    "quality": _VIEW,
    "failures_by_class": _VIEW,
    "model_pairs": _VIEW,
    "cough_events": _VIEW,
    "coughs_by_day": _VIEW,
    "coughs_by_hour": _VIEW,
    "drift_by_week": _VIEW,
    "job_answers": _VIEW,
}
#: Functions that every login may call: they read their arguments only, or only a trigger can call them.
PUBLIC_FUNCTIONS: Final = frozenset(
    {
        "tussis_recorded_at",
        "tussis_site",
        "tussis_subject",
        "tussis_digest",
        "tussis_refuse_forgotten",
        "tussis_drop_forgotten_letter",
        "tussis_keep_trail",
    }
)
#: Function -> the roles that may call it. Each runs with the rights of the owner. Every role writes its own deeds into
#: the audit trail: an analyst exports.
FUNCTIONS: Final[dict[str, tuple[Role, ...]]] = {
    "tussis_forget_digest": (Role.WORKER,),
    "tussis_is_forgotten": (Role.WORKER,),
    "tussis_note": tuple(Role),
}

_EXISTING_ROLES: Final = text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)")
_FUNCTIONS: Final = text("SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace")
_COLUMNS: Final = text(
    """
    SELECT pg_class.relname AS name, array_agg(pg_attribute.attname::text ORDER BY pg_attribute.attnum) AS columns
    FROM pg_class
    JOIN pg_attribute ON pg_attribute.attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition
    GROUP BY pg_class.relname
    """
)


def missing_roles(connection: Connection) -> tuple[Role, ...]:
    """The roles that the server does not have."""
    found = set(connection.scalars(_EXISTING_ROLES, {"names": list(Role)}))
    return tuple(role for role in Role if role not in found)


def make_roles(connection: Connection) -> None:
    """Create the roles that the server does not have, if this login may. Roles belong to all databases of a server."""
    for role in missing_roles(connection):
        # Another database of the server may be migrated at the same time, and a server may have managed roles.
        connection.exec_driver_sql(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL; END $$"
        )


def grant(connection: Connection) -> tuple[Role, ...]:
    """Create the missing roles and grant :data:`RIGHTS`, in this transaction. It can be repeated.

    Every other privilege of the roles on these objects is revoked. Objects of other revisions are left out. Returns the
    roles that do not exist and that this login may not create: they get no rights.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": OWNER_LOCK})
    make_roles(connection)
    missing = missing_roles(connection)
    columns = {row.name: row.columns for row in connection.execute(_COLUMNS)}
    functions = set(connection.scalars(_FUNCTIONS))
    schema = _quoted(connection, connection.scalars(text("SELECT current_schema()")).one())
    for role in Role:
        if role in missing:
            continue
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        for name, rights in RIGHTS.items():
            if name not in columns:
                continue
            connection.exec_driver_sql(f"REVOKE ALL ON {schema}.{name} FROM {role}")
            privileges = _privileges(connection, rights, role, columns[name])
            if privileges:
                connection.exec_driver_sql(f"GRANT {privileges} ON {schema}.{name} TO {role}")
        for name in FUNCTIONS.keys() & functions:
            connection.exec_driver_sql(f"REVOKE ALL ON FUNCTION {schema}.{name} FROM {role}")
            if role in FUNCTIONS[name]:
                connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {schema}.{name} TO {role}")
    return missing


def revoke(connection: Connection) -> None:
    """Revoke every right of the roles in this schema. The roles stay: they belong to all databases of the server."""
    missing = missing_roles(connection)
    schema = _quoted(connection, connection.scalars(text("SELECT current_schema()")).one())
    for role in Role:
        if role not in missing:
            for objects in ("TABLES", "SEQUENCES", "FUNCTIONS"):
                connection.exec_driver_sql(f"REVOKE ALL ON ALL {objects} IN SCHEMA {schema} FROM {role}")
            connection.exec_driver_sql(f"REVOKE ALL ON SCHEMA {schema} FROM {role}")


def make_login(connection: Connection, name: str, role: Role, password: str) -> None:
    """Create a login that is a member of ``role``, or give an existing one this password and this role alone.

    The server gets a verifier and not the password, so that its log has none.
    """
    driver = _driver(connection)
    verifier = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    login = sql.Identifier(name)
    exists = connection.scalars(_EXISTING_ROLES, {"names": [name]}).one_or_none() is not None
    statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}")
    _run(connection, statement.format(login, verifier))
    missing = missing_roles(connection)
    for other in Role:
        if other is not role and other not in missing:
            _run(connection, sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(other), login))
    _run(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), login))


def _privileges(connection: Connection, rights: Rights, role: Role, columns: list[str]) -> str:
    if role is Role.WORKER:
        return rights.worker
    if role is Role.ANALYST_FULL:
        return rights.analyst_full
    if not rights.analyst or HIDDEN_COLUMNS.isdisjoint(columns):
        return rights.analyst
    shown = ", ".join(_quoted(connection, column) for column in columns if column not in HIDDEN_COLUMNS)
    return f"{rights.analyst} ({shown})"


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _driver(connection: Connection) -> psycopg.Connection[tuple[object, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _run(connection: Connection, statement: sql.Composed) -> None:
    connection.exec_driver_sql(statement.as_string(_driver(connection)))
