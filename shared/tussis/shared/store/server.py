"""Requirements on the server, whatever its schema. ``tussis migrate`` and the start of a worker check them."""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection

from tussis.shared.errors import SchemaMismatch, SettingsInvalid

#: The first major version of PostgreSQL with ``NULLS NOT DISTINCT``.
OLDEST_SERVER = 15
_ENCODING = "UTF8"


def check_server(connection: Connection, where: str) -> None:
    """Check the server, in the transaction of the connection.

    Raises :class:`SchemaMismatch` for an encoding that cannot store every object key, and for a PostgreSQL that is too
    old. Raises :class:`SettingsInvalid` if a connection declared as direct has a pooler.
    """
    encoding, number, backend = connection.exec_driver_sql(
        "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int, pg_backend_pid()"
    ).one()
    if encoding != _ENCODING:
        # An object key can contain any character. Even a failure that names the key could not be stored.
        raise SchemaMismatch(
            f"the database at {where} has the encoding {encoding}, but object keys need {_ENCODING}: create one with "
            f"CREATE DATABASE ... ENCODING '{_ENCODING}' TEMPLATE template0"
        )
    if number // 10_000 < OLDEST_SERVER:
        raise SchemaMismatch(
            f"the database at {where} is PostgreSQL {number // 10_000}, but Tussis needs {OLDEST_SERVER} or "
            "later: upgrade it"
        )
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    # The clients of a pooler share the processes of the server, so the pooler reports a process id of its own.
    if driver.prepare_threshold is not None and driver.info.backend_pid != backend:
        raise SettingsInvalid(
            f"TUSSIS_DATABASE_DIRECT is set, but a pooler answers at {where}: unset it, or set TUSSIS_DATABASE_URL to "
            "the server itself"
        )
