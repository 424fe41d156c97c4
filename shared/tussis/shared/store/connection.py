"""The engine of a process. Every wait has a timeout.

No setting is made for a session. A pooler in transaction mode gives each transaction another server session, so other
clients would get the setting; PgBouncer also rejects ``options`` at startup. Timeouts are set for each transaction and
enforced by the client as well. Times are converted to UTC here. Statements are prepared only if the caller declares the
connection direct.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

from tussis.shared.store.address import parse_address
from tussis.shared.store.bounded_connection import BoundedConnection, use_live_connections
from tussis.shared.store.times import use_utc

#: Seconds for one host to answer a new connection.
CONNECT_TIMEOUT_S = 5
#: Statements take milliseconds, except status and results over tens of millions of rows.
STATEMENT_TIMEOUT_S = 60
#: A claim waits for the transaction of another claim, which takes milliseconds.
LOCK_TIMEOUT_S = 10
#: The server releases the locks of a process that stopped in the middle of a transaction after this time.
IDLE_IN_TRANSACTION_TIMEOUT_S = 60
#: Seconds after the statement timeout until the client gives up on a server that does not answer.
ANSWER_SLACK_S = 10
#: Seconds for which a thread waits for a free connection of the pool.
POOL_TIMEOUT_S = 10
#: Runs of a statement on one direct connection before it is prepared: psycopg's own default.
PREPARE_AFTER = 5

#: Connection options that a URL may override.
_DEFAULTS = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "tussis",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    # Milliseconds for which sent bytes may stay unacknowledged. This ends a half-open connection.
    "tcp_user_timeout": "15000",
}


def place(url: URL) -> str:
    """``host:port/database`` of an engine of :func:`connect_engine`, for messages; without user and password."""
    return f"{url.host}/{url.database}" if url.database else str(url.host)


def connect_engine(
    url: str, *, pool_size: int = 1, statement_timeout_s: int = STATEMENT_TIMEOUT_S, direct: bool = False
) -> Engine:
    """Create an engine that connects on first use and has at most ``pool_size`` connections. It returns times in UTC.

    ``url`` is any connection string of libpq. ``statement_timeout_s`` 0 means no timeout. ``direct``: the connection
    has no pooler, so statements can be prepared; behind a pooler, clients would share the name ``_pg3_0`` of a prepared
    statement. Create the engine in the process that uses it: a connection does not survive a fork. Raises
    :class:`SettingsInvalid`.
    """
    address = parse_address(url)
    # UTF-8 overrides PGCLIENTENCODING, because a key can contain any character.
    conninfo = make_conninfo(**{**_DEFAULTS, **address.parameters, "client_encoding": "utf8"})
    prepare_after = PREPARE_AFTER if direct else None

    def connect() -> BoundedConnection:
        connection = BoundedConnection.connect(conninfo, prepare_threshold=prepare_after)
        if statement_timeout_s:
            connection.answer_timeout_s = statement_timeout_s + ANSWER_SLACK_S
        use_utc(connection)
        return connection

    engine = create_engine(
        # The URL is only for messages. The function connect above makes the connections, with libpq.
        URL.create("postgresql+psycopg", host=address.hosts, database=address.database),
        creator=connect,
        use_native_hstore=False,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
    )
    use_live_connections(engine)
    _bound_transactions(engine, statement_timeout_s)
    _leave_connections_after_errors(engine)
    return engine


def _bound_transactions(engine: Engine, statement_timeout_s: int) -> None:
    """Set the timeouts of each transaction of SQLAlchemy.

    A statement of :func:`~tussis.shared.store.one_statement.run_statement` has no server timeout unless the role has
    one. Only :class:`BoundedConnection` limits its wait.
    """
    limits = {
        "statement_timeout": statement_timeout_s,
        "lock_timeout": LOCK_TIMEOUT_S,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S,
    }
    statement = "SELECT " + ", ".join(f"set_config('{name}', '{seconds}s', true)" for name, seconds in limits.items())

    @event.listens_for(engine, "begin")
    def bound(connection: Connection) -> None:
        connection.exec_driver_sql(statement)


def _leave_connections_after_errors(engine: Engine) -> None:
    """Replace a connection after any error of the server.

    The old connection may lead to a former primary, which is now read-only, or to a session whose state has changed.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            context.is_disconnect = True
            # The other connections of the pool stay. Each is replaced when it fails itself.
            context.invalidate_pool_on_disconnect = False
