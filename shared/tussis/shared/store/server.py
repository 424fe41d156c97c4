"""What the server has to be, whatever schema is in it: looked at by ``tussis migrate`` and at a worker's start."""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection

from tussis.shared.errors import SchemaMismatch, SettingsInvalid

#: The first PostgreSQL with ``NULLS NOT DISTINCT``.
OLDEST_SERVER = 15
_ENCODING = "UTF8"


def check_server(connection: Connection, where: str) -> None:
    """Look at the server, in the connection's transaction.

    Raises :class:`SchemaMismatch` for an encoding that cannot hold every object key, and for a PostgreSQL that is too
    old; :class:`SettingsInvalid` when a connection that is said to be direct is not.
    """
    encoding, number, backend = connection.exec_driver_sql(
        "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int, pg_backend_pid()"
    ).one()
    if encoding != _ENCODING:
        # An object key can hold any character; a failure that names it could not be written either.
        raise SchemaMismatch(
            f"the database at {where} has the encoding {encoding}, and object keys need {_ENCODING}: create one with "
            f"CREATE DATABASE ... ENCODING '{_ENCODING}' TEMPLATE template0"
        )
    if number // 10_000 < OLDEST_SERVER:
        raise SchemaMismatch(
            f"the database at {where} is PostgreSQL {number // 10_000}, and Tussis needs {OLDEST_SERVER} or newer"
        )
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    # A pooler tells its clients a number of its own, since they share the server's processes.
    if driver.prepare_threshold is not None and driver.info.backend_pid != backend:
        raise SettingsInvalid(
            f"TUSSIS_DATABASE_DIRECT is set, and a pooler answers at {where}: unset it, or name the server itself in "
            "TUSSIS_DATABASE_URL"
        )
