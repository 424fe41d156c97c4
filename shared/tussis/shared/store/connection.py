"""One engine for a process, with timeouts that end every wait.

Nothing is set for a session: a pooler in transaction mode (PgBouncer's startup refuses ``options``) gives each
transaction another server session, and what one client sets there another one finds. Timeouts are set for each
transaction and watched on the client's side, times are turned into UTC here, and statements are prepared only where
somebody says that the connection is direct.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

from tussis.shared.store.address import parse_address
from tussis.shared.store.patience import PatientConnection, use_live_connections
from tussis.shared.store.times import use_utc

#: Seconds, for one host to answer a new connection.
CONNECT_TIMEOUT_S = 5
#: Every statement of ours takes milliseconds, but for status and results over tens of millions of rows.
STATEMENT_TIMEOUT_S = 60
#: A claim waits for another claim's transaction, which takes milliseconds.
LOCK_TIMEOUT_S = 10
#: A process that is stopped in the middle of a transaction gives its locks back after this.
IDLE_IN_TRANSACTION_TIMEOUT_S = 60
#: Beyond the statement timeout, before a server that says nothing at all is given up.
ANSWER_SLACK_S = 10
#: Seconds, for a thread to wait for a free connection of the pool.
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
    # Milliseconds that sent bytes may stay unacknowledged: a half-open connection ends here.
    "tcp_user_timeout": "15000",
}


def place(url: URL) -> str:
    """``host:port/database`` of an engine of :func:`connect_engine`, for messages: neither user nor password."""
    return f"{url.host}/{url.database}" if url.database else str(url.host)


def connect_engine(
    url: str, *, pool_size: int = 1, statement_timeout_s: int = STATEMENT_TIMEOUT_S, direct: bool = False
) -> Engine:
    """An engine that connects on first use and holds at most ``pool_size`` connections; times come in UTC.

    ``url`` is whatever libpq takes. ``statement_timeout_s`` 0 is none. ``direct`` says that no pooler is in between, so
    that statements can be prepared: behind one, the statement ``_pg3_0`` of one client is another client's. To be made
    in the process that uses it: a connection does not survive a fork. Raises :class:`SettingsInvalid`.
    """
    address = parse_address(url)
    # Text is UTF-8 whatever PGCLIENTENCODING says: keys hold every character.
    conninfo = make_conninfo(**{**_DEFAULTS, **address.parameters, "client_encoding": "utf8"})
    prepare_after = PREPARE_AFTER if direct else None

    def connect() -> PatientConnection:
        connection = PatientConnection.connect(conninfo, prepare_threshold=prepare_after)
        if statement_timeout_s:
            connection.patience_s = statement_timeout_s + ANSWER_SLACK_S
        use_utc(connection)
        return connection

    engine = create_engine(
        # The URL names the place and no more: connections are made above, as libpq makes them.
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
    """Set the timeouts of each transaction of SQLAlchemy's. A :class:`~tussis.shared.store.steps.Step` has none of the
    server's and waits as long as :class:`PatientConnection` does, unless the role has its own."""
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
    """Make a new connection after any error of the server's: the old one may lead to a former primary, which only reads
    from now on, or to a session that is not as we left it."""

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            context.is_disconnect = True
            # Of the pool's other connections each finds out by itself.
            context.invalidate_pool_on_disconnect = False
