"""One engine for a process, with timeouts that end every wait."""

from __future__ import annotations

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from tussis.shared.errors import SettingsInvalid
from tussis.shared.store.patience import use_live_connections, use_patient_connections

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


def database_url(url: str) -> URL:
    """The URL with psycopg 3 as its driver. Raises :class:`SettingsInvalid` when it is none of PostgreSQL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsInvalid(
            "TUSSIS_DATABASE_URL is not a PostgreSQL URL: write postgresql://user:password@host:port/database"
        )
    return parsed.set(drivername="postgresql+psycopg")


def place(url: URL) -> str:
    """``host:port/database``, for messages: neither user nor password."""
    return f"{url.host or 'local socket'}:{url.port or 5432}/{url.database or ''}"


def connect_engine(url: str, *, pool_size: int = 1, statement_timeout_s: int = STATEMENT_TIMEOUT_S) -> Engine:
    """An engine that connects on first use and holds at most ``pool_size`` connections, with UTC sessions.

    ``statement_timeout_s`` 0 is none. To be made in the process that uses it: a connection does not survive a fork.
    Raises :class:`SettingsInvalid`.
    """
    parsed = database_url(url)
    options = (
        "-c timezone=UTC"
        f" -c statement_timeout={statement_timeout_s}s"
        f" -c lock_timeout={LOCK_TIMEOUT_S}s"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_S}s"
    )
    given = parsed.query.get("options")
    engine = create_engine(
        parsed.difference_update_query(["options"]),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "tussis",
            "options": f"{options} {given}" if isinstance(given, str) else options,
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Milliseconds that sent bytes may stay unacknowledged: a half-open connection ends here.
            "tcp_user_timeout": 15_000,
        },
    )
    use_live_connections(engine)
    if statement_timeout_s:
        use_patient_connections(engine, statement_timeout_s + ANSWER_SLACK_S)
    return engine
