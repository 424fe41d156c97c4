"""Retention: delete old segments, and on request old analyses. Workers may run meanwhile.

The age of segments is the time since the first claim of their analysis, by which ``segments`` is partitioned. Rows that
no partition holds, and analyses, are deleted only if the analysis also ended before the time: the answer of an old
failure that was retried yesterday stays. An analysis without an answer is never deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from tussis.shared.states import TERMINAL
from tussis.shared.store.owner import owner_change
from tussis.shared.store.partitions import DEFAULT, drop_in, partitions
from tussis.shared.store.trail import note

#: Analyses of one transaction: their rows are locked for some milliseconds.
BATCH = 500

_OLD = (
    "analyses.created_at < :before AND analyses.finished_at < :before AND analyses.state IN ("
    + ", ".join(f"'{state.value}'" for state in sorted(TERMINAL))
    + ")"
)


@dataclass(frozen=True)
class OldPartition:
    """A partition of ``segments`` in which every row is old."""

    name: str
    rows: int
    size_bytes: int


@dataclass(frozen=True)
class OldAnalyses:
    """Old analyses, and the recordings that have no other analysis."""

    analyses: int
    recordings: int


def old_partitions(engine: Engine, before: datetime) -> list[OldPartition]:
    """The partitions that have only segments of analyses with a first claim before the time, oldest first."""
    with engine.connect() as connection:
        found = []
        for partition in partitions(connection):
            if partition.end <= before:
                rows, size = connection.execute(
                    text(f"SELECT count(*), pg_total_relation_size('{partition.name}') FROM {partition.name}")
                ).one()
                found.append(OldPartition(partition.name, rows, size))
        return found


def old_default_rows(engine: Engine, before: datetime) -> int:
    """The number of old rows in ``segments_default``."""
    with engine.connect() as connection:
        return int(
            connection.scalars(
                text(
                    f"SELECT count(*) FROM {DEFAULT} JOIN analyses ON analyses.id = {DEFAULT}.analysis_id WHERE {_OLD}"
                ),
                {"before": before},
            ).one()
        )


def delete_default_rows(engine: Engine, before: datetime, *, actor: str) -> Iterator[int]:
    """Delete the old rows of ``segments_default`` in batches; yields the number of deleted rows of each."""
    after: int | None = 0

    def batch(connection: Connection) -> tuple[int | None, int]:
        row = connection.execute(
            text(
                f"""
                WITH old AS (
                    SELECT analyses.id
                    FROM analyses
                    WHERE {_OLD} AND analyses.id > :after
                        AND EXISTS (SELECT FROM {DEFAULT} WHERE {DEFAULT}.analysis_id = analyses.id)
                    ORDER BY analyses.id
                    LIMIT {BATCH}
                ), gone AS (
                    DELETE FROM {DEFAULT} USING old WHERE {DEFAULT}.analysis_id = old.id RETURNING 1
                )
                SELECT (SELECT max(id) FROM old), (SELECT count(*) FROM gone)
                """
            ),
            {"before": before, "after": after},
        ).one()
        if row[1]:
            _note(connection, actor, before, {"segments": row[1]})
        return row[0], row[1]

    while after is not None:
        after, rows = owner_change(engine, batch)
        if rows:
            yield rows


def old_analyses(engine: Engine, before: datetime) -> OldAnalyses:
    """The number of old analyses, and of recordings that have only old ones."""
    with engine.connect() as connection:
        row = connection.execute(
            text(
                f"""
                SELECT coalesce(sum(old), 0)::bigint, count(*) FILTER (WHERE old = total)
                FROM (
                    SELECT count(*) FILTER (WHERE {_OLD}) AS old, count(*) AS total FROM analyses GROUP BY recording_id
                ) AS each
                """
            ),
            {"before": before},
        ).one()
        return OldAnalyses(*row)


def delete_analyses(engine: Engine, before: datetime, *, actor: str) -> Iterator[OldAnalyses]:
    """Delete the old analyses in batches, and the recordings that then have none; yields the numbers of each batch.

    Bags, segments, events, attempts and jobs of an analysis are deleted with it. A tombstone stays. An analysis whose
    recording is being claimed at that moment stays until the next time.
    """
    after: tuple[datetime | None, int] = (None, 0)

    def batch(connection: Connection) -> tuple[tuple[datetime | None, int] | None, OldAnalyses]:
        since = "AND (analyses.created_at, analyses.id) > (:created_at, :after)" if after[0] is not None else ""
        old = connection.execute(
            text(
                f"SELECT id, created_at, recording_id FROM analyses WHERE {_OLD} {since} "
                f"ORDER BY created_at, id LIMIT {BATCH}"
            ),
            {"before": before, "created_at": after[0], "after": after[1]},
        ).all()
        if not old:
            return None, OldAnalyses(0, 0)
        last = (old[-1].created_at, old[-1].id)
        # The recording before its analyses, as a claim locks them.
        locked = list(
            connection.scalars(
                text("SELECT id FROM recordings WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED"),
                {"ids": [row.recording_id for row in old]},
            )
        )
        deleted = connection.scalars(
            _DELETE, {"ids": [row.id for row in old], "recordings": locked, "before": before}
        ).one()
        gone = OldAnalyses(deleted, connection.execute(_DELETE_RECORDINGS, {"ids": locked}).rowcount)
        if deleted:
            _note(connection, actor, before, {"analyses": gone.analyses, "recordings": gone.recordings})
        return last, gone

    while True:
        last, deleted = owner_change(engine, batch)
        if last is None:
            return
        after = last
        yield deleted


#: A cancelled analysis, one of the shadow model, or one without a known model or entity tag leaves no tombstone: it is
#: no answer.
_DELETE = text(
    f"""
    WITH gone AS (
        DELETE FROM analyses
        WHERE id = ANY(:ids) AND recording_id = ANY(:recordings) AND {_OLD}
        RETURNING recording_id, model_id, profile, coverage, profile_overridden, coverage_overridden, shadow, state
    ), left_behind AS (
        INSERT INTO tombstones (
            bucket, key, etag, model_id, profile, coverage, profile_overridden, coverage_overridden
        )
        SELECT
            recordings.bucket,
            recordings.key,
            recordings.etag,
            gone.model_id,
            gone.profile,
            gone.coverage,
            bool_and(gone.profile_overridden),
            bool_and(gone.coverage_overridden)
        FROM gone
        JOIN recordings ON recordings.id = gone.recording_id
        WHERE gone.model_id IS NOT NULL AND NOT gone.shadow AND gone.state <> 'cancelled'
            AND recordings.etag <> ''
        GROUP BY recordings.id, gone.model_id, gone.profile, gone.coverage
        ON CONFLICT (bucket, key, etag, model_id, profile, coverage) DO UPDATE SET
            profile_overridden = tombstones.profile_overridden AND excluded.profile_overridden,
            coverage_overridden = tombstones.coverage_overridden AND excluded.coverage_overridden,
            deleted_at = excluded.deleted_at
    )
    SELECT count(*) FROM gone
    """
)
_DELETE_RECORDINGS = text(
    """
    DELETE FROM recordings
    WHERE id = ANY(:ids) AND NOT EXISTS (SELECT FROM analyses WHERE analyses.recording_id = recordings.id)
    """
)


def old_tombstones(engine: Engine, before: datetime) -> int:
    """The number of tombstones from before the time."""
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM tombstones WHERE deleted_at < :before")
        return int(connection.scalars(statement, {"before": before}).one())


def delete_tombstones(engine: Engine, before: datetime, *, actor: str) -> int:
    """Delete the tombstones from before the time; returns their number. No worker reads them."""

    def work(connection: Connection) -> int:
        statement = text("DELETE FROM tombstones WHERE deleted_at < :before")
        deleted = connection.execute(statement, {"before": before}).rowcount
        _note(connection, actor, before, {"tombstones": deleted})
        return deleted

    return owner_change(engine, work)


def drop_old_partition(engine: Engine, name: str, before: datetime, *, actor: str) -> None:
    """Drop a partition of ``segments``, as :func:`tussis.shared.store.partitions.drop_partition`."""

    def work(connection: Connection) -> None:
        drop_in(connection, name)
        _note(connection, actor, before, {"partition": name})

    owner_change(engine, work)


def _note(connection: Connection, actor: str, before: datetime, details: dict[str, Any]) -> None:
    note(connection, "retain", actor, details={"before": before.isoformat(), **details})
