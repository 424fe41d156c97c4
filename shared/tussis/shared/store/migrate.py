"""Migrate a database between schema revisions.

The scripts are in ``migrations/`` of the repository. A wheel has them inside this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy.exc
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from tussis.shared.errors import SchemaMismatch
from tussis.shared.store import rights
from tussis.shared.store.connection import connect_engine, place
from tussis.shared.store.faults import database_errors, kind_of_state
from tussis.shared.store.schema import VERSION_TABLE
from tussis.shared.store.server import check_server

#: The revision of an empty database.
BASE = "base"
_DUPLICATE = frozenset({"42P07", "42710", "42P06"})


def upgrade(url: str, revision: str = "head") -> None:
    """Upgrade the database to ``revision``, which must be newer. Safe to run from several processes at once.

    Raises :class:`SchemaMismatch` if this version has no such revision, if the database is on a revision that this
    version does not have, if tables with the same names exist that Tussis did not create, or if the encoding is not
    UTF8. Also raises the other errors of the store.
    """
    with _connected(url) as (connection, where), _schema_errors(where):
        command.upgrade(_config(connection), revision)
        if _revision_of(connection) == head():
            connection.rollback()
            with connection.begin():
                rights.grant(connection)


def downgrade(url: str, revision: str) -> None:
    """Downgrade the database to ``revision`` (``base``: no schema and no data). Raises as :func:`upgrade`."""
    with _connected(url) as (connection, where), _schema_errors(where):
        command.downgrade(_config(connection), revision)


def current(url: str) -> str | None:
    """The revision of the database; None if it has no Tussis schema."""
    with _connected(url) as (connection, _):
        return _revision_of(connection)


def grant_rights(url: str) -> tuple[rights.Role, ...]:
    """Grant the rights of the roles again (:func:`tussis.shared.store.rights.grant`); returns the missing roles.

    Raises the errors of the store.
    """
    with _connected(url) as (connection, _), connection.begin():
        return rights.grant(connection)


def make_login(url: str, name: str, role: rights.Role, password: str) -> None:
    """Create or change a login (:func:`tussis.shared.store.rights.make_login`). Raises the errors of the store."""
    with _connected(url) as (connection, _), connection.begin():
        rights.make_login(connection, name, role, password)


def head() -> str:
    """The newest revision that this version of Tussis has."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise SchemaMismatch(f"no migrations in {scripts_folder()}: the installation is damaged, install Tussis again")
    return revision


def revisions() -> tuple[str, ...]:
    """All revisions, oldest first."""
    return tuple(script.revision for script in reversed(list(_scripts().walk_revisions())))


def scripts_folder() -> Path:
    """The folder of the migration scripts: in the package (wheel), else at the top of the checkout (editable)."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parents[4] / "migrations"


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    # ConfigParser interpolates a percent sign in the path.
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _connected(url: str) -> Iterator[tuple[Connection, str]]:
    # Creating an index can take longer than any statement of a worker.
    engine = connect_engine(url, statement_timeout_s=0)
    where = place(engine.url)
    try:
        with database_errors(where), engine.connect() as connection:
            check_server(connection, where)
            # A migration begins and commits its own transaction.
            connection.rollback()
            yield connection, where
    finally:
        engine.dispose()


@contextmanager
def _schema_errors(where: str) -> Iterator[None]:
    """Convert errors of Alembic, and errors from a database of another system, to :class:`SchemaMismatch`."""
    try:
        yield
    except CommandError as error:
        raise SchemaMismatch(
            f"the database at {where} cannot be migrated: {error} (this version of Tussis has the revisions "
            f"{', '.join(revisions())})"
        ) from error
    except sqlalchemy.exc.ProgrammingError as error:
        cause = error.orig
        if not isinstance(cause, psycopg.Error) or cause.sqlstate is None:
            raise
        if cause.sqlstate in _DUPLICATE:
            raise SchemaMismatch(
                f"the database at {where} has an object of the same name that Tussis did not create "
                f"({cause.diag.message_primary}): use a separate database for Tussis"
            ) from error
        if kind_of_state(cause.sqlstate) is SchemaMismatch:
            raise SchemaMismatch(
                f"the database at {where} cannot be migrated ({cause.diag.message_primary}): Tussis did not "
                "create its schema"
            ) from error
        raise
