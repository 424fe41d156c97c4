"""Cancel jobs: one transaction for many jobs decides against the claims of workers, and stores the cancelled ones.

A job whose analysis has an attempt leaves that analysis cancelled. Any other job gets an analysis of its own, which no
claim finds. Locks are taken in the order of a claim: recordings, analyses, jobs; of each kind in one order, so that
neither claims nor other cancellations deadlock.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

from tussis.shared.coverage import Coverage
from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState, AttemptOutcome, from_states
from tussis.shared.store.identities import Mapped
from tussis.shared.store.job_ids import id_problem
from tussis.shared.store.transitions import moment, storable

#: ``analyses.forced_by`` of an analysis that only stores the cancellation of a job, before the id of the job. It
#: differs from that of every other analysis.
_OF_JOB: Final = "cancelled:"

_CANCELLED = f"'{AnalysisState.CANCELLED.value}'"
_BEFORE_CANCELLED = ", ".join(f"'{state.value}'" for state in from_states(AnalysisState.CANCELLED))

_STANDING: Final = """
SELECT
    jobs.job_id::text,
    jobs.analysis_id,
    jobs.enqueued_at,
    analyses.state,
    analyses.error_class,
    analyses.attempt_token,
    recordings.bucket,
    recordings.key,
    analyses.job_id::text AS claimed_by,
    analyses.finished_at,
    CASE WHEN analyses.attempts > 0 THEN analyses.started_at END AS started_at,
    EXISTS (
        SELECT
        FROM attempts
        WHERE attempts.analysis_id = analyses.id
            AND attempts.outcome IS NULL
            AND attempts.lease_expires_at > clock_timestamp()
    ) AS held
FROM jobs
JOIN analyses ON analyses.id = jobs.analysis_id
JOIN recordings ON recordings.id = analyses.recording_id
WHERE jobs.job_id = ANY(%(job_ids)s::uuid[])
"""

_MODELS: Final = """
SELECT
    models.id,
    models.name,
    models.version,
    models.profile,
    models.id = (SELECT active_model.model_id FROM active_model) AS active
FROM models
ORDER BY models.last_served_at DESC NULLS LAST, models.id DESC
"""

_RECORDINGS: Final = """
INSERT INTO recordings (bucket, key, etag, version_id, metadata)
SELECT named.bucket, named.key, named.etag, named.version_id, named.metadata::jsonb
FROM unnest(
    %(buckets)s::text[], %(keys)s::text[], %(etags)s::text[], %(version_ids)s::text[], %(metadata)s::text[]
) AS named (bucket, key, etag, version_id, metadata)
ORDER BY named.bucket COLLATE "C", named.key COLLATE "C", named.etag COLLATE "C"
ON CONFLICT (bucket, key, etag) DO UPDATE SET
    version_id = coalesce(excluded.version_id, recordings.version_id),
    metadata = CASE WHEN excluded.metadata = '{}' THEN recordings.metadata ELSE excluded.metadata END,
    updated_at = now()
RETURNING bucket, key, etag, id
"""

_LOCK: Final = "SELECT id, state, job_id::text FROM analyses WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"

#: The attempts that still hold one of the analyses. Their leases cannot be renewed before the transaction ends.
_HELD: Final = """
SELECT open.analysis_id
FROM (
    SELECT analysis_id, lease_expires_at
    FROM attempts
    WHERE analysis_id = ANY(%(ids)s) AND outcome IS NULL
    ORDER BY analysis_id, number
    FOR UPDATE
) AS open
WHERE open.lease_expires_at > clock_timestamp()
"""

_TO_CANCELLED: Final = f"""
UPDATE analyses SET
    state = {_CANCELLED},
    finished_at = now(),
    enqueued_at = named.enqueued_at,
    error_class = NULL,
    error_message = NULL
FROM unnest(%(ids)s::bigint[], %(enqueued_at)s::timestamptz[]) AS named (id, enqueued_at)
WHERE analyses.id = named.id AND analyses.state IN ({_BEFORE_CANCELLED})
"""

_ATTEMPTS_END: Final = f"""
UPDATE attempts SET ended_at = now(), outcome = '{AttemptOutcome.VANISHED.value}'
WHERE analysis_id = ANY(%(ids)s) AND outcome IS NULL
"""

_OWN: Final = f"""
INSERT INTO analyses (
    recording_id, model_id, model_requested, state, attempts, attempt_token, started_at, finished_at, profile,
    profile_overridden, coverage, coverage_overridden, forced_by, job_id, worker, device, enqueued_at
)
SELECT
    named.recording_id, named.model_id, named.model_requested, {_CANCELLED}, 0, named.token, now(), now(),
    named.profile, named.profile_overridden, named.coverage, named.coverage_overridden,
    '{_OF_JOB}' || named.job_id, named.job_id::uuid, %(cancelled_by)s::text, named.device, named.enqueued_at
FROM unnest(
    %(recordings)s::bigint[], %(models)s::bigint[], %(models_requested)s::text[], %(tokens)s::uuid[],
    %(profiles)s::text[], %(profiles_overridden)s::boolean[], %(coverages)s::text[],
    %(coverages_overridden)s::boolean[], %(job_ids)s::text[], %(devices)s::text[], %(enqueued_at)s::timestamptz[]
) AS named (
    recording_id, model_id, model_requested, token, profile, profile_overridden, coverage, coverage_overridden, job_id,
    device, enqueued_at
)
ON CONFLICT ON CONSTRAINT analyses_identity_key DO UPDATE SET
    finished_at = excluded.finished_at,
    started_at = excluded.started_at,
    enqueued_at = excluded.enqueued_at,
    worker = excluded.worker,
    device = excluded.device
RETURNING job_id::text, id
"""

_LOCK_JOBS: Final = """
SELECT job_id::text, analysis_id FROM jobs WHERE job_id = ANY(%(job_ids)s::uuid[]) ORDER BY job_id FOR UPDATE
"""

_MAP: Final = """
INSERT INTO jobs (job_id, analysis_id, enqueued_at)
SELECT named.job_id, named.analysis_id, named.enqueued_at
FROM unnest(%(job_ids)s::uuid[], %(ids)s::bigint[], %(enqueued_at)s::timestamptz[])
    AS named (job_id, analysis_id, enqueued_at)
ORDER BY named.job_id
ON CONFLICT (job_id) DO NOTHING
RETURNING job_id::text
"""

_MAP_AGAIN: Final = """
UPDATE jobs SET analysis_id = named.analysis_id, enqueued_at = named.enqueued_at
FROM unnest(%(job_ids)s::uuid[], %(ids)s::bigint[], %(enqueued_at)s::timestamptz[])
    AS named (job_id, analysis_id, enqueued_at)
WHERE jobs.job_id = named.job_id
"""

_FORGET: Final = f"""
DELETE FROM analyses
WHERE id = ANY(%(ids)s) AND state = {_CANCELLED} AND starts_with(forced_by, '{_OF_JOB}')
    AND NOT EXISTS (SELECT FROM jobs WHERE jobs.analysis_id = analyses.id)
"""


#: A copy of a cancelled analysis for its job, which stores that the job was cancelled.
_COPY: Final = f"""
WITH copy AS (
    INSERT INTO analyses (
        recording_id, model_id, model_requested, state, attempts, attempt_token, created_at, started_at, finished_at,
        profile, profile_overridden, coverage, coverage_overridden, forced_by, job_id, worker, device, enqueued_at
    )
    SELECT
        recording_id, model_id, model_requested, state, 0, gen_random_uuid(), created_at, finished_at, finished_at,
        profile, profile_overridden, coverage, coverage_overridden, '{_OF_JOB}' || job_id, job_id, worker, device,
        enqueued_at
    FROM analyses
    WHERE id = %(analysis)s AND state = {_CANCELLED} AND job_id <> %(job_id)s::uuid
    ON CONFLICT ON CONSTRAINT analyses_identity_key DO UPDATE SET finished_at = excluded.finished_at
    RETURNING id, job_id
)
UPDATE jobs SET analysis_id = copy.id
FROM copy
WHERE jobs.job_id = copy.job_id AND jobs.analysis_id = %(analysis)s
"""


class Verdict(StrEnum):
    """What became of a job that was to be cancelled."""

    CANCELLED = "cancelled"
    """It is stored as cancelled, now or before."""
    RUNS = "runs"
    """An attempt runs. It finishes."""
    ANSWERED = "answered"
    """It has its answer, and is closed soon."""
    SHADOW = "shadow"
    """It is a job of the shadow model, which is left."""
    UNREADABLE = "unreadable"
    """No worker can read its message, or its id is not its own. It becomes a dead letter or a failure."""
    CHANGED = "changed"
    """A worker received it meanwhile. Decide again."""


@dataclass(frozen=True)
class Cancellation:
    """The verdict on one job. ``analysis_id`` and ``cancelled_at`` are set if it is cancelled.

    ``started_at`` is the start of its newest attempt, if it had one.
    """

    verdict: Verdict
    analysis_id: int | None = None
    cancelled_at: datetime | None = None
    started_at: datetime | None = None


@dataclass(frozen=True)
class _Before:
    """The analysis that the store has for a job."""

    mapped: Mapped
    claimed_by: str
    finished_at: datetime | None
    started_at: datetime | None
    held: bool


@dataclass
class _Plan:
    """The jobs by what is to be done, each with the analysis that the store has for it."""

    decided: dict[str, Cancellation] = field(default_factory=dict)
    in_place: dict[str, int] = field(default_factory=dict)
    """Job id -> its analysis, which the job itself claimed last."""
    own: dict[str, Job] = field(default_factory=dict)
    """The jobs that get an analysis of their own."""


def verdicts(connection: Connection, jobs: Sequence[Job]) -> dict[str, Verdict]:
    """Job id -> what :func:`cancel` would decide now. Locks and writes nothing."""
    before = _read(connection, jobs)
    plan = _planned(jobs, before)
    found = {job_id: one.verdict for job_id, one in plan.decided.items()}
    for job_id in plan.in_place:
        found[job_id] = Verdict.RUNS if before[job_id].held else Verdict.CANCELLED
    return found | dict.fromkeys(plan.own, Verdict.CANCELLED)


def cancel(connection: Connection, jobs: Sequence[Job], cancelled_by: str) -> dict[str, Cancellation]:
    """Store the jobs as cancelled that no attempt runs, in the transaction of the caller. Job id -> the verdict.

    No job may be one of the shadow model. ``cancelled_by`` is stored as the worker of an analysis without an attempt.
    """
    before = _read(connection, jobs)
    plan = _planned(jobs, before)
    recordings = _touch_recordings(connection, plan.own.values())
    reused = {one.mapped.analysis_id for job_id in plan.own if (one := before.get(job_id)) and _is_cancelled(one)}
    standing = _lock(connection, {*plan.in_place.values(), *reused})
    target = _cancel_in_place(connection, jobs, plan, standing)
    target |= _insert_own(connection, plan.own, recordings, cancelled_by)
    taken = _map(connection, jobs, target, before)
    for job_id in taken:
        plan.decided[job_id] = Cancellation(Verdict.CHANGED)
    left = {*(target[job_id] for job_id in taken), *reused}
    if left:
        _run(connection, _FORGET, ids=list(left))
    now = connection.exec_driver_sql("SELECT now()").scalar_one()
    for job_id, analysis_id in target.items():
        started_at = before[job_id].started_at if job_id in plan.in_place else None
        plan.decided.setdefault(job_id, Cancellation(Verdict.CANCELLED, analysis_id, now, started_at))
    return plan.decided


def keep_cancelled(connection: Connection, analysis_id: int, job_id: str) -> None:
    """Before the job ``job_id`` reopens an analysis that was cancelled for another job: keep that one cancelled."""
    _run(connection, _COPY, analysis=analysis_id, job_id=job_id)


def forget_cancelled(connection: Connection, analysis_id: int) -> None:
    """Delete an analysis that only stored the cancellation of a job, after the job got another analysis."""
    _run(connection, _FORGET, ids=[analysis_id])


def _read(connection: Connection, jobs: Iterable[Job]) -> dict[str, _Before]:
    enqueued = {job.job_id: moment(job.enqueued_at) for job in jobs}
    found = {}
    for row in _run(connection, _STANDING, job_ids=list(enqueued)):
        cancelled = row.state == AnalysisState.CANCELLED.value and row.claimed_by == row.job_id
        same = row.enqueued_at == enqueued[row.job_id]
        state = AnalysisState(row.state)
        mapped = Mapped(
            row.analysis_id, state, row.error_class, same, row.attempt_token, row.bucket, row.key, cancelled
        )
        found[row.job_id] = _Before(mapped, row.claimed_by, row.finished_at, row.started_at, row.held)
    return found


def _planned(jobs: Iterable[Job], before: Mapping[str, _Before]) -> _Plan:
    plan = _Plan()
    for job in jobs:
        one = before.get(job.job_id)
        if id_problem(job, None if one is None else one.mapped) is not None:
            plan.decided[job.job_id] = Cancellation(Verdict.UNREADABLE)
        elif one is not None and one.mapped.answers:
            verdict = Verdict.CANCELLED if one.mapped.cancelled else Verdict.ANSWERED
            plan.decided[job.job_id] = Cancellation(verdict, one.mapped.analysis_id, one.finished_at, one.started_at)
        elif one is not None and one.mapped.is_open and one.claimed_by == job.job_id:
            plan.in_place[job.job_id] = one.mapped.analysis_id
        else:
            plan.own[job.job_id] = job
    return plan


def _is_cancelled(one: _Before) -> bool:
    return one.mapped.state is AnalysisState.CANCELLED


def _touch_recordings(connection: Connection, jobs: Iterable[Job]) -> dict[tuple[str, str, str], int]:
    """Insert or update the recordings of the jobs, and lock them: (bucket, key, entity tag) -> id."""
    named: dict[tuple[str, str, str], tuple[str | None, str]] = {}
    for job in jobs:
        which = (job.bucket, job.key, job.etag or "")
        version_id, metadata = named.get(which, (None, "{}"))
        named[which] = (job.version_id or version_id, json.dumps(dict(job.metadata)) if job.metadata else metadata)
    if not named:
        return {}
    rows = _run(
        connection,
        _RECORDINGS,
        buckets=[bucket for bucket, _, _ in named],
        keys=[key for _, key, _ in named],
        etags=[etag for _, _, etag in named],
        version_ids=[version_id for version_id, _ in named.values()],
        metadata=[metadata for _, metadata in named.values()],
    )
    return {(bucket, key, etag): number for bucket, key, etag, number in rows}


def _lock(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[AnalysisState, str]]:
    """Lock analyses: id -> state, and the job that claimed it last."""
    rows = _run(connection, _LOCK, ids=list(ids))
    return {number: (AnalysisState(state), job_id) for number, state, job_id in rows}


def _cancel_in_place(
    connection: Connection, jobs: Iterable[Job], plan: _Plan, standing: Mapping[int, tuple[AnalysisState, str]]
) -> dict[str, int]:
    """Cancel the analyses that no attempt holds: job id -> analysis. The other jobs are decided in the plan."""
    if not plan.in_place:
        return {}
    held = {number for (number,) in _run(connection, _HELD, ids=list(plan.in_place.values()))}
    target = {}
    for job_id, number in plan.in_place.items():
        state, claimed_by = standing.get(number, (None, ""))
        if claimed_by != job_id or state not in (AnalysisState.RUNNING, AnalysisState.WAITING):
            plan.decided[job_id] = Cancellation(Verdict.CHANGED)
        elif number in held:
            plan.decided[job_id] = Cancellation(Verdict.RUNS)
        else:
            target[job_id] = number
    enqueued = [moment(job.enqueued_at) for job in jobs if job.job_id in target]
    ids = [target[job.job_id] for job in jobs if job.job_id in target]
    _run(connection, _TO_CANCELLED, ids=ids, enqueued_at=enqueued)
    _run(connection, _ATTEMPTS_END, ids=ids)
    return target


def _insert_own(
    connection: Connection, own: Mapping[str, Job], recordings: Mapping[tuple[str, str, str], int], cancelled_by: str
) -> dict[str, int]:
    """Insert a cancelled analysis for each of the jobs: job id -> analysis."""
    if not own:
        return {}
    models = _run(connection, _MODELS)
    active = next((model for model in models if model.active), None)
    by_name: dict[str, Any] = {}
    for model in models:
        by_name.setdefault(model.name, model)
        by_name[f"{model.name}@{model.version}"] = model
    jobs = list(own.values())
    answering = [active if job.model is None else by_name.get(job.model) for job in jobs]
    profiles = [None if model is None else model.profile for model in answering]
    rows = _run(
        connection,
        _OWN,
        recordings=[recordings[job.bucket, job.key, job.etag or ""] for job in jobs],
        models=[None if model is None else model.id for model in answering],
        models_requested=[job.model if model is None else None for job, model in zip(jobs, answering, strict=True)],
        tokens=[uuid.uuid4() for _ in jobs],
        profiles=[job.profile or profile or "" for job, profile in zip(jobs, profiles, strict=True)],
        profiles_overridden=[
            job.profile is not None and job.profile != profile for job, profile in zip(jobs, profiles, strict=True)
        ],
        coverages=[(job.coverage or Coverage.HEAD).value for job in jobs],
        coverages_overridden=[job.coverage is not None for job in jobs],
        job_ids=[job.job_id for job in jobs],
        devices=[job.device.value for job in jobs],
        enqueued_at=[moment(job.enqueued_at) for job in jobs],
        cancelled_by=storable(cancelled_by),
    )
    return dict(map(tuple, rows))


def _map(
    connection: Connection, jobs: Iterable[Job], target: Mapping[str, int], before: Mapping[str, _Before]
) -> list[str]:
    """Store which analysis ends each job. Returns the jobs to which a claim gave another analysis meanwhile."""
    if not target:
        return []
    mapped: dict[str, int] = dict(map(tuple, _run(connection, _LOCK_JOBS, job_ids=list(target))))
    expected = {job_id: one.mapped.analysis_id for job_id, one in before.items()}
    enqueued = {job.job_id: moment(job.enqueued_at) for job in jobs}

    def parameters(job_ids: Sequence[str]) -> dict[str, Any]:
        return {
            "job_ids": job_ids,
            "ids": [target[job_id] for job_id in job_ids],
            "enqueued_at": [enqueued[job_id] for job_id in job_ids],
        }

    again = [job_id for job_id in target if job_id in mapped and mapped[job_id] == expected.get(job_id)]
    new = [job_id for job_id in target if job_id not in mapped and job_id not in expected]
    if again:
        _run(connection, _MAP_AGAIN, **parameters(again))
    inserted = {job_id for (job_id,) in _run(connection, _MAP, **parameters(new))} if new else set()
    return [job_id for job_id in target if job_id not in inserted and job_id not in again]


def _run(connection: Connection, sql: str, **parameters: Any) -> Sequence[Any]:
    result = connection.exec_driver_sql(sql, parameters)
    return result.all() if result.returns_rows else []
