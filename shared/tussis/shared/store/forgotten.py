"""Erase recordings, and keep the tombstones that prevent their return. Workers run meanwhile.

A tombstone is a keyed hash. It is written first, under the lock of the checks
(:mod:`tussis.shared.store.forget_functions`), so that no statement that did not see it is still running. The rows are
deleted afterwards, all rows of an object in one transaction. So a run that is killed can be repeated at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from tussis.shared.forgetting import Named, Target, TargetKind, mentions, named_in_text
from tussis.shared.store.forget_functions import FORGET_LOCK
from tussis.shared.store.owner import owner_change
from tussis.shared.store.trail import digests_of, note

#: Recordings of one transaction.
BATCH: Final = 200
_PAGE: Final = 2000

#: The places of a recording: table -> the condition of its rows. ``ids`` are those of recordings.
_OF_ANALYSIS: Final = "analysis_id IN (SELECT id FROM analyses WHERE recording_id = ANY(:ids))"
_PLACES: Final = {
    "analyses": "recording_id = ANY(:ids)",
    **dict.fromkeys(("jobs", "attempts", "bags", "segments", "events", "bag_progress"), _OF_ANALYSIS),
}
_COUNTS: Final = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {table} WHERE {condition}) AS {table}" for table, condition in _PLACES.items()
)
_UNDER_PREFIX: Final = "bucket = :bucket AND key LIKE :pattern"
_PAIRS: Final = "(bucket, key) IN (SELECT * FROM unnest(CAST(:buckets AS text[]), CAST(:keys AS text[])))"

#: The tables with texts of a recording -> what inserts a row without any.
_FILLERS: Final = {
    "recordings": "(bucket, key, etag) VALUES ('-', '-', '-')",
    "analyses": (
        "(recording_id, profile, profile_overridden, coverage, job_id, state, attempt_token, attempts, worker, device, "
        "enqueued_at, started_at, finished_at) SELECT id, '-', false, '-', gen_random_uuid(), 'cancelled', "
        "gen_random_uuid(), 0, '-', '-', now(), now(), now() FROM recordings LIMIT 1"
    ),
    "attempts": (
        "(analysis_id, number, token, worker, exclusive) SELECT id, 1, gen_random_uuid(), '-', false "
        "FROM analyses LIMIT 1"
    ),
    "dead_letters": "(raw_sha256, raw, error_class, error_message) VALUES ('-', '-', '-', '-')",
    "tombstones": (
        "(bucket, key, etag, model_id, profile, coverage, profile_overridden, coverage_overridden) "
        "SELECT '-', '-', '-', id, '-', '-', false, false FROM models LIMIT 1"
    ),
}


@dataclass(frozen=True)
class Tombstone:
    """A row of ``forgotten``."""

    digest: bytes
    kind: TargetKind
    length: int | None
    forgotten_at: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Some recordings that are to be erased: (bucket, key), each once."""

    objects: tuple[tuple[str, str], ...]


def tombstones_of(engine: Engine, targets: Sequence[Target]) -> list[Tombstone]:
    """The tombstones that :func:`bury` writes."""
    with engine.connect() as connection:
        digests = digests_of(connection, targets)
    return [Tombstone(digest, one.kind, one.length) for one, digest in zip(targets, digests, strict=True)]


def write(engine: Engine, tombstones: Sequence[Tombstone], *, actor: str, action: str = "forget") -> int:
    """Write the tombstones and a row of the trail, in one transaction; returns the number of new ones."""

    def work(connection: Connection) -> int:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": FORGET_LOCK})
        new = connection.execute(
            text(
                "INSERT INTO forgotten (digest, kind, length) SELECT * FROM unnest(CAST(:digests AS bytea[]), "
                "CAST(:kinds AS text[]), CAST(:lengths AS integer[])) ON CONFLICT DO NOTHING"
            ),
            {
                "digests": [one.digest for one in tombstones],
                "kinds": [one.kind.value for one in tombstones],
                "lengths": [one.length for one in tombstones],
            },
        ).rowcount
        note(connection, action, actor, [one.digest for one in tombstones], {"tombstones": new})
        return new

    return owner_change(engine, work)


def lift(engine: Engine, tombstones: Sequence[Tombstone], *, actor: str) -> int:
    """Delete the tombstones; returns the number of those that there were."""

    def work(connection: Connection) -> int:
        digests = [one.digest for one in tombstones]
        gone = connection.execute(text("DELETE FROM forgotten WHERE digest = ANY(:digests)"), {"digests": digests})
        note(connection, "lift", actor, digests, {"tombstones": gone.rowcount})
        return gone.rowcount

    return owner_change(engine, work)


def which_forgotten(engine: Engine, named: Sequence[Named]) -> list[bool]:
    """Whether each of the recordings is forgotten."""
    if not named:
        return []
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text(
                    "SELECT tussis_is_forgotten(named.bucket, named.key, jsonb_build_object('subject', named.subject)) "
                    "FROM unnest(CAST(:buckets AS text[]), CAST(:keys AS text[]), CAST(:subjects AS text[])) "
                    "WITH ORDINALITY AS named (bucket, key, subject, number) ORDER BY named.number"
                ),
                {
                    "buckets": [_storable(one.bucket) for one in named],
                    "keys": [_storable(one.key) for one in named],
                    "subjects": [_storable(one.subject) for one in named],
                },
            )
        )


def _storable(value: str | None) -> str | None:
    """The text as PostgreSQL takes it. A recording with another text is in no row."""
    return None if value is None else value.replace("\0", "").encode("utf-8", "replace").decode()


# --- finding and erasing ---------------------------------------------------------------------------------------------


def pages(engine: Engine, target: Target | None, before: datetime | None = None) -> Iterator[Page]:
    """The objects of the target in pages; None: of all tombstones.

    ``before``: only the objects of which no row was changed since then, by a claim or a result.
    """
    condition, parameters = _condition(target)
    if before is not None:
        condition += (
            " AND updated_at < :before AND NOT EXISTS (SELECT FROM recordings AS newer WHERE newer.bucket = "
            "recordings.bucket AND newer.key = recordings.key AND newer.updated_at >= :before)"
        )
        parameters["before"] = before
    after = 0
    while True:
        with engine.connect() as connection:
            rows = connection.execute(
                text(
                    f"SELECT id, bucket, key FROM recordings WHERE {condition} AND id > :after "
                    f"ORDER BY id LIMIT {_PAGE}"
                ),
                {**parameters, "after": after},
            ).all()
        for first in range(0, len(rows), BATCH):
            yield Page(tuple(dict.fromkeys((row.bucket, row.key) for row in rows[first : first + BATCH])))
        if len(rows) < _PAGE:
            return
        after = rows[-1].id


def _condition(target: Target | None) -> tuple[str, dict[str, Any]]:
    if target is None:
        return "tussis_is_forgotten(bucket, key, metadata)", {}
    match target.kind:
        case TargetKind.OBJECT:
            return "bucket = :bucket AND key = :key", {"bucket": target.bucket, "key": target.key}
        case TargetKind.PREFIX:
            # LIKE keeps its default escape character. With any other one PostgreSQL cannot use the index.
            pattern = target.key.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            return _UNDER_PREFIX, {"bucket": target.bucket, "pattern": pattern}
        case TargetKind.SUBJECT:
            return "metadata ->> 'subject' = :subject", {"subject": target.name}


def count(engine: Engine, page: Page) -> Counter[str]:
    """The rows of these objects, by table."""
    with engine.connect() as connection:
        return _count(connection, page, lock=False)[1]


def erase(engine: Engine, page: Page) -> Counter[str]:
    """Delete all rows of these objects in one transaction; returns their number by table."""

    def work(connection: Connection) -> Counter[str]:
        # The recording before its analyses, as a claim locks them.
        ids, counts = _count(connection, page, lock=True)
        connection.execute(text("DELETE FROM analyses WHERE recording_id = ANY(:ids)"), {"ids": ids})
        connection.execute(text("DELETE FROM recordings WHERE id = ANY(:ids)"), {"ids": ids})
        connection.execute(text(f"DELETE FROM tombstones WHERE {_PAIRS}"), _pairs(page))
        return counts

    return owner_change(engine, work)


def _count(connection: Connection, page: Page, *, lock: bool) -> tuple[list[int], Counter[str]]:
    locking = "ORDER BY id FOR UPDATE" if lock else ""
    ids = list(connection.scalars(text(f"SELECT id FROM recordings WHERE {_PAIRS} {locking}"), _pairs(page)))
    counts = Counter({"recordings": len(ids)})
    counts.update(dict(connection.execute(text(_COUNTS), {"ids": ids}).one()._mapping))
    counts["tombstones"] = connection.scalars(
        text(f"SELECT count(*) FROM tombstones WHERE {_PAIRS}"), _pairs(page)
    ).one()
    return ids, counts


def _pairs(page: Page) -> dict[str, Any]:
    return {"buckets": [bucket for bucket, _ in page.objects], "keys": [key for _, key in page.objects]}


def erase_rest(engine: Engine, target: Target | None, *, really: bool) -> Counter[str]:
    """Delete what belongs to no recording: dead letters, and tombstones of `tussis retain` that have no recording."""
    condition, parameters = _condition(target)
    counts: Counter[str] = Counter()
    if target is None or target.kind is not TargetKind.SUBJECT:  # a tombstone of `tussis retain` has no subject
        condition = condition.replace("metadata", "NULL")
        # The others are counted with their recording.
        alone = "NOT EXISTS (SELECT FROM recordings AS r WHERE r.bucket = tombstones.bucket AND r.key = tombstones.key)"
        verb = "DELETE" if really else "SELECT count(*)"

        def tombstones(connection: Connection) -> int:
            found = connection.execute(
                text(f"{verb} FROM tombstones WHERE {condition}{'' if really else ' AND ' + alone}"), parameters
            )
            return found.rowcount if really else int(found.scalar_one())

        counts["tombstones"] += owner_change(engine, tombstones)
    counts["dead_letters"] += dead_letters(engine, target, really=really)
    return +counts


def dead_letters(engine: Engine, target: Target | None, *, really: bool) -> int:
    """Delete, or count, the dead letters of a target; None: of all tombstones."""
    removed, after = 0, 0
    while True:
        with engine.connect() as connection:
            rows = connection.execute(
                text(f"SELECT id, raw FROM dead_letters WHERE id > :after ORDER BY id LIMIT {_PAGE}"),
                {"after": after},
            ).all()
        named = [named_in_text(row.raw) for row in rows]
        if target is None:
            flat = [one for each in named for one in each]
            answers = iter(which_forgotten(engine, flat))
            chosen = [row.id for row, each in zip(rows, named, strict=True) if True in [next(answers) for _ in each]]
        else:
            chosen = [
                row.id
                for row, each in zip(rows, named, strict=True)
                if any(target.names(one) for one in each)
                or (not any(one.name for one in each) and mentions(row.raw, target))
            ]
        if really and chosen:
            statement = text("DELETE FROM dead_letters WHERE id = ANY(:ids)")
            owner_change(engine, _deletion(statement, chosen))
        removed += len(chosen)
        if len(rows) < _PAGE:
            return removed
        after = rows[-1].id


def _deletion(statement: Any, ids: list[int]) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(statement, {"ids": ids})


def vacuum(engine: Engine) -> None:
    """Free the deleted rows, and make the planner's statistics again: they quote frequent and bounding values."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(_FILLERS)}")
    owner_change(engine, _replace_statistics)


def _replace_statistics(connection: Connection) -> None:
    """ANALYZE keeps the old statistics of a table that is empty now: analyse it with a row, which is deleted again."""
    empty = [
        table
        for table in _FILLERS
        if connection.exec_driver_sql(f"SELECT NOT EXISTS (SELECT FROM {table})").scalar_one()
    ]
    for table in empty:
        connection.exec_driver_sql(f"INSERT INTO {table} {_FILLERS[table]}")
    for table in empty:
        connection.exec_driver_sql(f"ANALYZE {table}")
    for table in reversed(empty):
        # The row of this transaction, and none that a worker has inserted since.
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE xmin = pg_current_xact_id()::xid")


def note_end(engine: Engine, action: str, actor: str, targets: Sequence[bytes], counts: dict[str, int]) -> datetime:
    """Write what a run erased into the trail; returns the time."""

    def work(connection: Connection) -> datetime:
        note(connection, f"{action}_done", actor, targets, {"erased": counts})
        at: datetime = connection.scalars(text("SELECT now()")).one()
        return at

    return owner_change(engine, work)


# --- the journal -----------------------------------------------------------------------------------------------------


def keys(engine: Engine) -> list[bytes]:
    """The keys of the hashes, 64 bytes each, the one of new hashes first."""
    with engine.connect() as connection:
        pads = connection.scalars(text("SELECT inner_pad FROM forget_keys ORDER BY id")).all()
    return [bytes(byte ^ 0x36 for byte in pad) for pad in pads]


def add_key(engine: Engine, key: bytes) -> None:
    """Add a key of a journal, unless the database has it."""
    pads = {"inner": bytes(byte ^ 0x36 for byte in key), "outer": bytes(byte ^ 0x5C for byte in key)}
    statement = text(
        "INSERT INTO forget_keys (inner_pad, outer_pad) VALUES (:inner, :outer) ON CONFLICT (inner_pad) DO NOTHING"
    )
    owner_change(engine, lambda connection: connection.execute(statement, pads))
