"""Changes that the owner of the tables makes while workers run: partitions and retention.

Such a change waits for the locks of tables, and every later statement of a worker waits behind it. So each wait is
short, and the change is repeated until no lock is in its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
import sqlalchemy.exc
from sqlalchemy import Connection, Engine, text

T = TypeVar("T")

#: The advisory lock of migrations and of the changes here. An arbitrary number: "tussis" in ASCII.
OWNER_LOCK = 0x747573736973
#: Wait for another change of the owner. A large migration takes minutes.
WAIT_FOR_OTHERS = "10min"
#: Wait for the locks of tables and rows. It is shorter than PostgreSQL's ``deadlock_timeout`` (1 s): in a deadlock with
#: a worker, the worker's statement continues.
LOCK_TIMEOUT = "300ms"
#: Seconds between two tries. Workers run meanwhile.
PAUSE_S = 1.0
#: Seconds after which a change is not tried again.
PATIENCE_S = 120.0


def owner_change(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction that excludes every other change of the owner; returns what it returns.

    While a lock is in its way, the transaction is repeated for :data:`PATIENCE_S` seconds. Then the error of
    PostgreSQL is raised, and nothing was changed.
    """
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT_FOR_OTHERS}'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": OWNER_LOCK})
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                return work(connection)
        except sqlalchemy.exc.DBAPIError as error:
            if not _in_the_way(error) or time.monotonic() >= ends:
                raise
        time.sleep(PAUSE_S)


def _in_the_way(error: sqlalchemy.exc.DBAPIError) -> bool:
    return isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
