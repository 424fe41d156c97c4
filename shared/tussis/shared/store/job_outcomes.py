"""Outcomes of jobs, from the store: of one analysis that has its answer, and of all jobs that ended since a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Row,
    Text,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    union_all,
)

from tussis.shared import outcomes
from tussis.shared.dsp.constants import MAX_SEGMENTS as BAG_SEGMENTS
from tussis.shared.events import CoughEvent
from tussis.shared.messages import shadow_id
from tussis.shared.outcomes import EventSpan, JobOutcome, OutcomeAnswer, OutcomeState, first_segments
from tussis.shared.states import TERMINAL, AnalysisState
from tussis.shared.store.queries import PAGE, analysis_of, flat_analyses
from tussis.shared.store.records import Analysis, Result
from tussis.shared.store.tables.analyses import analyses, jobs
from tussis.shared.store.tables.answers import events, segments
from tussis.shared.store.tables.dead_letters import dead_letters


@dataclass(frozen=True)
class JobEnd:
    """When a job ended, and its outcome."""

    ended_at: datetime
    outcome: JobOutcome


def answer_of_result(result: Result, model: str, profile: str, coverage: str) -> OutcomeAnswer:
    """The part of a result that an outcome has. ``model`` is name@version."""
    return OutcomeAnswer(
        decision=bool(result.decision),
        bag_probability=float(result.bag_probability),
        threshold=float(result.threshold),
        model=model,
        profile=profile,
        coverage=str(coverage),
        duration_s=float(result.duration_s),
        analyzed_s=float(result.analyzed_s),
        truncated=bool(result.truncated),
        cough_seconds=math.fsum(event.end_s - event.start_s for event in result.events),
        warnings=tuple(result.warnings),
        events_found=len(result.events),
        events=_spans(result.events),
        segments_scored=len(result.segments),
        segments=first_segments(result.segments.start_s, result.segments.probability),
    )


def state_of(state: AnalysisState) -> OutcomeState:
    """The state of a job whose analysis ended in this state."""
    match state:
        case AnalysisState.SUCCEEDED:
            return OutcomeState.SUCCEEDED
        case AnalysisState.CANCELLED:
            return OutcomeState.CANCELLED
        case _:
            return OutcomeState.FAILED


def outcome_of(connection: Connection, job_id: str, enqueued_at: float, analysis_id: int) -> JobOutcome | None:
    """The outcome of a job whose answer is this analysis. None if the analysis is deleted, or runs again."""
    found = _read(connection, [analysis_id]).get(analysis_id)
    return None if found is None else found.of_job(job_id, enqueued_at)


def ended_since(connection: Connection, since: datetime, limit: int) -> list[JobEnd]:
    """The outcomes of the first ``limit`` jobs that ended since then, in the order of their ends.

    A job ended when its answer was stored; or when a worker first received the job, if the answer was stored before. A
    job that was enqueued again after its end ended at its first end. Jobs of the shadow model have no outcome, also
    after their model became the active one.
    """
    ended_at = func.greatest(analyses.c.finished_at, jobs.c.received_at)
    answered = (
        select(
            cast(jobs.c.job_id, Text).label("job_id"),
            jobs.c.enqueued_at,
            jobs.c.analysis_id,
            ended_at.label("ended_at"),
            cast(null(), Text).label("error_class"),
            cast(null(), Text).label("error_message"),
        )
        .join_from(jobs, analyses, analyses.c.id == jobs.c.analysis_id)
        .where(
            analyses.c.state.in_(state.value for state in TERMINAL),
            ~analyses.c.shadow,
            or_(analyses.c.finished_at >= since, jobs.c.received_at >= since),
        )
    )
    has_answer = exists(select(literal(1)).where(cast(jobs.c.job_id, Text) == dead_letters.c.job_id))
    unreadable = select(
        dead_letters.c.job_id,
        cast(null(), DateTime(timezone=True)),
        cast(null(), BigInteger),
        dead_letters.c.last_received_at,
        dead_letters.c.error_class,
        dead_letters.c.error_message,
    ).where(dead_letters.c.ended_job, dead_letters.c.last_received_at >= since, ~has_answer)
    both = union_all(answered, unreadable).subquery()
    following = select(both).order_by(both.c.ended_at, both.c.job_id)
    ends: list[JobEnd] = []
    query = following
    while len(ends) < limit and (rows := connection.execute(query.limit(limit - len(ends))).all()):
        ends += _ends_of(connection, rows)
        last = rows[-1]
        query = following.where(tuple_(both.c.ended_at, both.c.job_id) > tuple_(last.ended_at, last.job_id))
    return ends


def _ends_of(connection: Connection, rows: Sequence[Row[Any]]) -> list[JobEnd]:
    """The outcomes of rows of :func:`ended_since`, without jobs that run again and jobs of the shadow model."""
    answered_by = [row.analysis_id for row in rows if row.analysis_id is not None]
    found: dict[int, _Ended] = {}
    for first in range(0, len(answered_by), PAGE):
        found |= _read(connection, answered_by[first : first + PAGE])
    ends = []
    for row in rows:
        if row.analysis_id is None:
            outcome = JobOutcome(
                job_id=row.job_id,
                uri=None,
                state=OutcomeState.FAILED,
                finished_at=row.ended_at.timestamp(),
                error_class=row.error_class,
                error_message=row.error_message,
            )
        elif row.analysis_id in found and not found[row.analysis_id].is_of_shadow(row.job_id):
            outcome = found[row.analysis_id].of_job(row.job_id, row.enqueued_at.timestamp())
        else:
            continue
        ends.append(JobEnd(row.ended_at, outcome))
    return ends


@dataclass(frozen=True)
class _Ended:
    """An analysis with its answer."""

    analysis: Analysis
    segments: Sequence[tuple[float, float]]
    events: Sequence[CoughEvent]

    def is_of_shadow(self, job_id: str) -> bool:
        """Whether the shadow model had the job with this id. Its analysis may have become an ordinary one since."""
        analysis = self.analysis
        bucket, _, key = analysis.uri.removeprefix("s3://").partition("/")
        return any(
            job_id == shadow_id(bucket, key, version_id, analysis.etag, analysis.model or analysis.model_requested)
            for version_id in {analysis.version_id, None}
        )

    def of_job(self, job_id: str, enqueued_at: float) -> JobOutcome:
        analysis = self.analysis
        succeeded = analysis.state is AnalysisState.SUCCEEDED
        return JobOutcome(
            job_id=job_id,
            uri=analysis.uri,
            state=state_of(analysis.state),
            enqueued_at=enqueued_at,
            # A job that was cancelled before a worker had it never started.
            started_at=analysis.started_at.timestamp() if analysis.attempts else None,
            finished_at=None if analysis.finished_at is None else analysis.finished_at.timestamp(),
            analysis_id=analysis.id,
            answer=self._answer() if succeeded else None,
            error_class=analysis.error_class,
            error_message=analysis.error_message,
        )

    def _answer(self) -> OutcomeAnswer:
        analysis = self.analysis
        return OutcomeAnswer(
            decision=bool(analysis.decision),
            bag_probability=analysis.bag_probability or 0.0,
            threshold=analysis.threshold or 0.0,
            model=analysis.model or "",
            profile=analysis.profile,
            coverage=analysis.coverage,
            duration_s=analysis.duration_s or 0.0,
            analyzed_s=analysis.analyzed_s or 0.0,
            truncated=bool(analysis.truncated),
            cough_seconds=analysis.cough_seconds or 0.0,
            warnings=tuple(analysis.warnings or ()),
            events_found=analysis.events or 0,
            events=_spans(self.events),
            segments_scored=analysis.segments or 0,
            segments=first_segments(*zip(*self.segments, strict=True)) if self.segments else (),
        )


def _read(connection: Connection, analysis_ids: Sequence[int]) -> dict[int, _Ended]:
    """Those of the analyses that have their answer, with the segments and events that an outcome has."""
    rows = connection.execute(flat_analyses().where(analyses.c.id.in_(set(analysis_ids)))).all()
    ended = {analysis.id: analysis for analysis in map(analysis_of, rows) if analysis.state in TERMINAL}
    succeeded = [analysis.id for analysis in ended.values() if analysis.state is AnalysisState.SUCCEEDED]
    scores: dict[int, list[tuple[float, float]]] = {}
    spans: dict[int, list[CoughEvent]] = {}
    if succeeded:
        first = segments.c.bag_index * BAG_SEGMENTS + segments.c.segment_index
        for analysis_id, start_s, probability in connection.execute(
            select(segments.c.analysis_id, segments.c.start_s, segments.c.probability)
            .join_from(
                analyses,
                segments,
                # With the time, PostgreSQL reads one partition for each analysis.
                (segments.c.analysis_id == analyses.c.id) & (segments.c.analysis_created_at == analyses.c.created_at),
            )
            .where(analyses.c.id.in_(succeeded), first < outcomes.MAX_SEGMENTS)
            .order_by(segments.c.analysis_id, segments.c.bag_index, segments.c.segment_index)
        ):
            scores.setdefault(analysis_id, []).append((start_s, probability))
    with_events = [analysis_id for analysis_id in succeeded if ended[analysis_id].events]
    if with_events:
        for analysis_id, *fields in connection.execute(
            select(events.c.analysis_id, events.c.start_s, events.c.end_s, events.c.peak, events.c.mean, events.c.bins)
            .where(events.c.analysis_id.in_(with_events), events.c.event_index < outcomes.MAX_EVENTS)
            .order_by(events.c.analysis_id, events.c.event_index)
        ):
            spans.setdefault(analysis_id, []).append(CoughEvent(*fields))
    return {
        analysis_id: _Ended(analysis, scores.get(analysis_id, ()), spans.get(analysis_id, ()))
        for analysis_id, analysis in ended.items()
    }


def _spans(found: Sequence[CoughEvent]) -> tuple[EventSpan, ...]:
    return tuple(EventSpan(event.start_s, event.end_s, event.peak) for event in found[: outcomes.MAX_EVENTS])
