"""Failures: list, discard and retry them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from tussis.shared.coverage import Coverage
from tussis.shared.errors import FailureUnknown
from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState
from tussis.shared.store import transitions
from tussis.shared.store.known import TICK
from tussis.shared.store.queries import analysis_of, flat_analyses, paged
from tussis.shared.store.records import Analysis, FailureFilter
from tussis.shared.store.result_filters import under_prefix
from tussis.shared.store.tables.analyses import analyses, jobs
from tussis.shared.store.tables.recordings import recordings


def failures(engine: Engine, wanted: FailureFilter) -> Iterator[Analysis]:
    """Failed analyses, and discarded ones on request, newest first by ``finished_at``."""
    conditions = _conditions(wanted)
    yield from paged(engine, flat_analyses().where(*conditions), analyses.c.finished_at, wanted.limit)


def find(connection: Connection, analysis_id: int) -> Analysis | None:
    """One analysis, failed or not."""
    row = connection.execute(flat_analyses().where(analyses.c.id == analysis_id)).one_or_none()
    return None if row is None else analysis_of(row)


def by_class(connection: Connection, wanted: FailureFilter) -> dict[str, int]:
    """Error class -> number of failures, the most frequent class first."""
    rows = connection.execute(
        select(analyses.c.error_class, func.count())
        .join_from(analyses, recordings, recordings.c.id == analyses.c.recording_id)
        .where(*_conditions(wanted))
        .group_by(analyses.c.error_class)
        .order_by(func.count().desc(), analyses.c.error_class)
    )
    return {error_class: int(number) for error_class, number in rows}


def discard(connection: Connection, analysis_ids: Sequence[int]) -> int:
    """Discard failures and return their number. Analyses in another state do not change."""
    return transitions.to_discarded(connection, analysis_ids)


def retry_job(connection: Connection, analysis: Analysis) -> Job:
    """The message that reopens this failure. The caller enqueues it.

    It has the id of the failed job. It names bytes, profile and model only if the failed job named them, so it does not
    request a model that the deployment has replaced. Raises :class:`FailureUnknown` if it was deleted meanwhile.
    """
    newest = connection.execute(
        select(
            func.greatest(func.clock_timestamp(), func.max(jobs.c.enqueued_at) + TICK, analyses.c.finished_at + TICK)
        )
        .select_from(analyses)
        .outerjoin(jobs, jobs.c.analysis_id == analyses.c.id)
        .where(analyses.c.id == analysis.id)
        .group_by(analyses.c.id)
    ).scalar_one_or_none()
    if newest is None:
        raise FailureUnknown(f"analysis {analysis.id} of {analysis.uri} was deleted: enqueue the object again")
    return Job(
        job_id=analysis.forced_by or analysis.job_id,
        bucket=analysis.bucket,
        key=analysis.key,
        enqueued_at=newest.timestamp(),
        version_id=analysis.version_id,
        etag=analysis.etag or None,
        model=analysis.model_requested,
        profile=analysis.profile if analysis.profile_overridden and analysis.profile else None,
        again=bool(analysis.forced_by),
        coverage=Coverage(analysis.coverage) if analysis.coverage_overridden else None,
        reopen=True,
    )


def objects_of(connection: Connection, analysis_ids: Sequence[int]) -> list[str]:
    """``bucket/key`` of the analyses, each once."""
    found = select(recordings.c.bucket + "/" + recordings.c.key).join(
        analyses, analyses.c.recording_id == recordings.c.id
    )
    return list(connection.scalars(found.where(analyses.c.id.in_(analysis_ids)).distinct()))


def _conditions(wanted: FailureFilter) -> list[ColumnElement[bool]]:
    states = [AnalysisState.FAILED.value]
    if wanted.include_discarded:
        states.append(AnalysisState.DISCARDED.value)
    conditions: list[ColumnElement[bool]] = [analyses.c.state.in_(states), ~analyses.c.shadow]
    if wanted.error_class is not None:
        conditions.append(analyses.c.error_class == wanted.error_class)
    if wanted.since is not None:
        conditions.append(analyses.c.finished_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(analyses.c.finished_at < wanted.until)
    if wanted.prefix is not None:
        conditions.append(under_prefix(wanted.prefix))
    if wanted.ids is not None:
        conditions.append(analyses.c.id.in_(wanted.ids))
    return conditions
