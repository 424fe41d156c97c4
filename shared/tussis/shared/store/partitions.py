"""The monthly partitions of the table ``segments``. The owner's commands make and drop them; workers need no DDL.

``segments_YYYY_MM`` has the segments of the analyses with a first claim in that month, in UTC. ``segments_default`` has
the segments of all months without a partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from tussis.shared.errors import SchemaMismatch
from tussis.shared.store.connection import connect_engine, place
from tussis.shared.store.faults import database_errors
from tussis.shared.store.owner import owner_change

#: Months after the present one for which there are partitions.
MONTHS_AHEAD = 13
#: The partition of all other rows.
DEFAULT = "segments_default"

_PARTITIONS = text(
    r"""
    SELECT
        relname,
        (regexp_match(bound, 'FROM \(''([^'']+)''\)'))[1]::timestamptz AS start,
        (regexp_match(bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz AS "end"
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid,
    pg_get_expr(relpartbound, inhrelid) AS bound
    WHERE inhparent = 'segments'::regclass AND bound <> 'DEFAULT'
    ORDER BY start
    """
)
_MONTHS = text(
    """
    SELECT
        to_char(month, 'YYYY_MM') AS name,
        to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00' AS start,
        to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00' AS "end"
    FROM generate_series(
        date_trunc('month', now() AT TIME ZONE 'UTC'),
        date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => :ahead),
        interval '1 month'
    ) AS month
    ORDER BY month
    """
)


@dataclass(frozen=True)
class Partition:
    """A partition with the rows from ``start`` (inclusive) to ``end`` (exclusive)."""

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class MadePartition:
    """A new partition, and the number of rows that it took over from ``segments_default``."""

    name: str
    rows: int


def make_partitions(url: str, *, ahead: int = MONTHS_AHEAD) -> list[MadePartition]:
    """Make the missing partitions of the present month and of the ``ahead`` months after it; returns the new ones.

    Safe to run from several processes at once, and while workers run. Each partition is one transaction, which waits a
    short time for the locks and is repeated (:mod:`tussis.shared.store.owner`). Rows of the month that are in
    ``segments_default`` move to the new partition; results wait until they have moved.

    Raises :class:`SchemaMismatch` if a table has the name of a partition and is none. Raises the errors of the store.
    """
    engine = connect_engine(url, statement_timeout_s=0)
    where = place(engine.url)
    try:
        with database_errors(where):
            with engine.connect() as connection:
                months = connection.execute(_MONTHS, {"ahead": ahead}).all()
            return [made for month in months if (made := _make(engine, where, *month)) is not None]
    finally:
        engine.dispose()


def partitions(connection: Connection) -> list[Partition]:
    """The partitions of ``segments`` except ``segments_default``, oldest first."""
    return [Partition(*row) for row in connection.execute(_PARTITIONS)]


def _make(engine: Engine, where: str, month: str, start: str, end: str) -> MadePartition | None:
    name = f"segments_{month}"
    with engine.connect() as connection:
        if _exists(connection, name):
            return None

    def make(connection: Connection) -> MadePartition | None:
        if _exists(connection, name):
            return None
        if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None:
            raise SchemaMismatch(
                f"the database at {where} has a table {name} that is no partition of segments: attach, rename or drop "
                "it, and run `tussis migrate`"
            )
        # What the new partition changes, in the order in which a result locks it.
        connection.execute(text("LOCK TABLE ONLY bags IN SHARE ROW EXCLUSIVE MODE"))
        connection.execute(text("LOCK TABLE ONLY segments IN SHARE UPDATE EXCLUSIVE MODE"))
        connection.execute(text(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE"))
        connection.execute(text(f"CREATE TABLE {name} (LIKE segments INCLUDING CONSTRAINTS)"))
        moved = connection.execute(
            text(
                f"""
                WITH moved AS (
                    DELETE FROM {DEFAULT}
                    WHERE analysis_created_at >= CAST(:start AS timestamptz)
                        AND analysis_created_at < CAST(:end AS timestamptz)
                    RETURNING *
                )
                INSERT INTO {name} SELECT * FROM moved
                """
            ),
            {"start": start, "end": end},
        ).rowcount
        # Makes the primary key and the foreign key, and checks the rows.
        connection.exec_driver_sql(
            f"ALTER TABLE segments ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"
        )
        return MadePartition(name, moved)

    return owner_change(engine, make)


def drop_partition(engine: Engine, name: str) -> None:
    """Drop a partition and its rows; nothing happens if there is none of this name.

    Results wait for the locks at most as long as this transaction does (:mod:`tussis.shared.store.owner`). PostgreSQL
    removes the files after it has released the locks. DETACH CONCURRENTLY is not possible beside ``segments_default``.
    """
    owner_change(engine, lambda connection: drop_in(connection, name))


def drop_in(connection: Connection, name: str) -> None:
    """Drop a partition, in the transaction of the caller; nothing happens if there is none of this name."""
    if _exists(connection, name):
        connection.execute(text(f"DROP TABLE {name}"))


def _exists(connection: Connection, name: str) -> bool:
    return any(partition.name == name for partition in partitions(connection))
