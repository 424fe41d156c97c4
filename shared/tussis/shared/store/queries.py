"""Queries that change no row."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)

from tussis.shared.events import CoughEvent
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import (
    Analysis,
    Attempt,
    DeadLetter,
    JobAnswer,
    ResultFilter,
    Segment,
    StateCounts,
)
from tussis.shared.store.result_filters import conditions
from tussis.shared.store.software import NAMES, Software
from tussis.shared.store.tables.analyses import analyses, attempts, jobs
from tussis.shared.store.tables.answers import events, segments
from tussis.shared.store.tables.dead_letters import dead_letters
from tussis.shared.store.tables.models import models, software
from tussis.shared.store.tables.recordings import recordings
from tussis.shared.uris import ObjectAddress

#: Rows of one page. A listing needs memory for one page, whatever its length.
PAGE = 500
_PAGE_KEY = "page_key"

_RECORDING_COLUMNS = (
    "bucket",
    "key",
    "etag",
    "version_id",
    "duration_s",
    "size_bytes",
    "rate_hz",
    "channels",
    "codec",
    "container",
    "metadata",
)
_ANALYSIS_COLUMNS = (
    "id",
    "state",
    "decision",
    "bag_probability",
    "bag_logit",
    "threshold",
    "model_requested",
    "profile",
    "profile_overridden",
    "coverage",
    "coverage_overridden",
    "forced_by",
    "segments",
    "segments_total",
    "analyzed_s",
    "truncated",
    "events",
    "cough_seconds",
    "peak_dbfs",
    "rms_dbfs",
    "clipped_share",
    "dc_offset",
    "warnings",
    "decoder",
    "attempts",
    "error_class",
    "error_message",
    "timings_ms",
    "worker",
    "device",
    "job_id",
    "created_at",
    "enqueued_at",
    "started_at",
    "finished_at",
)


def flat_analyses() -> Select[Any]:
    """The query of analyses with recording and model, with the columns that :func:`analysis_of` needs."""
    return (
        select(
            *(recordings.c[name] for name in _RECORDING_COLUMNS),
            *(analyses.c[name] for name in _ANALYSIS_COLUMNS),
            func.coalesce(models.c.name + "@" + models.c.version, analyses.c.model_requested).label("model"),
            models.c.sha256.label("model_sha256"),
            *(software.c[name] for name in NAMES),
        )
        .join_from(analyses, recordings, recordings.c.id == analyses.c.recording_id)
        .outerjoin(models, models.c.id == analyses.c.model_id)
        .outerjoin(software, software.c.id == analyses.c.software_id)
    )


def analysis_of(row: Row[Any]) -> Analysis:
    """A row of :func:`flat_analyses` as a record."""
    fields = {name: value for name, value in row._mapping.items() if name != _PAGE_KEY}
    fields["state"] = AnalysisState(fields["state"])
    used = {name: fields.pop(name) for name in NAMES}
    fields["software"] = None if used[NAMES[0]] is None else Software(**used)
    return Analysis(uri=f"s3://{fields['bucket']}/{fields['key']}", **fields)


def results(engine: Engine, wanted: ResultFilter) -> Iterator[Analysis]:
    """Analyses, newest first by ``created_at``, read in pages."""
    statement = flat_analyses().where(*conditions(wanted))
    yield from paged(engine, statement, analyses.c.created_at, wanted.limit)


def paged(
    engine: Engine, statement: Select[Any], order: ColumnElement[datetime], limit: int | None
) -> Iterator[Analysis]:
    """Analyses in pages, newest first by ``order``, then by id.

    Each page starts after the last row of the previous page, so new rows do not shift the pages.
    """
    ordered = statement.add_columns(order.label(_PAGE_KEY)).order_by(order.desc(), analyses.c.id.desc())
    behind: ColumnElement[bool] = true()
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with engine.connect() as connection:
            rows = connection.execute(ordered.where(behind).limit(size)).all()
        yield from map(analysis_of, rows)
        if len(rows) < size:
            return
        last = rows[-1]._mapping
        behind = tuple_(order, analyses.c.id) < tuple_(last[_PAGE_KEY], last["id"])
        left = None if left is None else left - size


def segments_of(connection: Connection, analysis_ids: Sequence[int]) -> dict[int, tuple[Segment, ...]]:
    """Analysis id -> its segments in order. Analyses without segments are omitted."""
    rows = connection.execute(
        select(
            segments.c.analysis_id,
            segments.c.bag_index,
            segments.c.segment_index,
            segments.c.start_s,
            segments.c.end_s,
            segments.c.probability,
            segments.c.logit,
        )
        .join_from(
            analyses,
            segments,
            # With the time, PostgreSQL reads one partition for each analysis.
            and_(segments.c.analysis_id == analyses.c.id, segments.c.analysis_created_at == analyses.c.created_at),
        )
        .where(analyses.c.id.in_(analysis_ids))
        .order_by(segments.c.analysis_id, segments.c.bag_index, segments.c.segment_index)
    )
    found: dict[int, list[Segment]] = {}
    for analysis_id, *fields in rows:
        found.setdefault(analysis_id, []).append(Segment(*fields))
    return {analysis_id: tuple(rows) for analysis_id, rows in found.items()}


def events_of(connection: Connection, analysis_id: int) -> tuple[CoughEvent, ...]:
    """The cough events of an analysis in order; empty if it has none."""
    rows = connection.execute(
        select(events.c.start_s, events.c.end_s, events.c.peak, events.c.mean, events.c.bins)
        .where(events.c.analysis_id == analysis_id)
        .order_by(events.c.event_index)
    )
    return tuple(CoughEvent(*row) for row in rows)


def analyses_of_key(connection: Connection, address: ObjectAddress, limit: int) -> tuple[Analysis, ...]:
    """The analyses of all contents of an object, newest first by ``created_at``, at most ``limit``.

    Those of the shadow model are omitted.
    """
    rows = connection.execute(
        flat_analyses()
        .where(recordings.c.bucket == address.bucket, recordings.c.key == address.key, ~analyses.c.shadow)
        .order_by(analyses.c.created_at.desc(), analyses.c.id.desc())
        .limit(limit)
    )
    return tuple(map(analysis_of, rows))


def job_answer(connection: Connection, job_id: str) -> JobAnswer | None:
    """The answer of the job; None if no worker has received it, or if ``job_id`` is not a job id."""
    try:
        known = str(uuid.UUID(job_id))
    except ValueError:
        return None
    job = connection.execute(select(jobs).where(jobs.c.job_id == known)).one_or_none()
    if job is None:
        return None
    row = connection.execute(flat_analyses().where(analyses.c.id == job.analysis_id)).one_or_none()
    if row is None:  # deleted meanwhile
        return None
    analysis = analysis_of(row)
    return JobAnswer(
        job_id=job.job_id,
        enqueued_at=job.enqueued_at,
        received_at=job.received_at,
        analysis=analysis,
        segments=segments_of(connection, [analysis.id]).get(analysis.id, ()),
    )


def dead_letter_of(connection: Connection, job_id: str) -> DeadLetter | None:
    """The dead letter that ended the job; None if there is none."""
    row = connection.execute(
        select(dead_letters.c.error_class, dead_letters.c.error_message, dead_letters.c.last_received_at)
        .where(dead_letters.c.job_id == job_id, dead_letters.c.ended_job)
        .order_by(dead_letters.c.last_received_at.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else DeadLetter(*row)


def attempts_of(connection: Connection, analysis_id: int) -> tuple[Attempt, ...]:
    """All attempts at an analysis, in order."""
    rows = connection.execute(
        select(
            attempts.c.number,
            attempts.c.worker,
            attempts.c.exclusive,
            attempts.c.started_at,
            attempts.c.ended_at,
            attempts.c.outcome,
            attempts.c.error_class,
            attempts.c.error_message,
        )
        .where(attempts.c.analysis_id == analysis_id)
        .order_by(attempts.c.number)
    )
    return tuple(
        Attempt(
            row.number,
            row.worker,
            row.exclusive,
            row.started_at,
            row.ended_at,
            None if row.outcome is None else AttemptOutcome(row.outcome),
            row.error_class,
            row.error_message,
        )
        for row in rows
    )


_COUNTED = select(analyses.c.state, analyses.c.decision, analyses.c.error_class, func.count()).group_by(
    analyses.c.state, analyses.c.decision, analyses.c.error_class
)
#: All analyses, then those of the shadow model: each is a scan of one index, and of no row of the table.
_COUNTS = union_all(
    _COUNTED.add_columns(literal(False)),
    _COUNTED.where(analyses.c.shadow).add_columns(literal(True)),
)


def counts(connection: Connection) -> StateCounts:
    """The number of analyses in each state, without those of the shadow model, and the number of dead letters."""
    by_state: dict[str, int] = {}
    decisions: dict[bool, int] = {}
    failures: dict[str, int] = {}
    found: dict[tuple[str, bool, str], int] = {}
    for state, decision, error_class, number, hidden in connection.execute(_COUNTS):
        key = (state, decision, error_class)
        found[key] = found.get(key, 0) + (-number if hidden else number)
    for (state, decision, error_class), number in found.items():
        if not number:
            continue
        by_state[state] = by_state.get(state, 0) + number
        if state == AnalysisState.SUCCEEDED.value:
            decisions[decision] = number
        elif state == AnalysisState.FAILED.value:
            failures[error_class] = number
    return StateCounts(
        cough=decisions.get(True, 0),
        no_cough=decisions.get(False, 0),
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        discarded=by_state.get(AnalysisState.DISCARDED.value, 0),
        cancelled=by_state.get(AnalysisState.CANCELLED.value, 0),
        running=by_state.get(AnalysisState.RUNNING.value, 0),
        waiting=by_state.get(AnalysisState.WAITING.value, 0),
        dead_letters=connection.execute(select(func.count()).select_from(dead_letters)).scalar_one(),
    )
