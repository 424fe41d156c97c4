"""Claims: one transaction decides, under the lock of the recording, whether a worker may analyse it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from tussis.shared.errors import JobMoved, WorkerCrashed
from tussis.shared.messages import Job, is_own_id
from tussis.shared.states import TERMINAL, AnalysisState, AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.active_models import active_model
from tussis.shared.store.cancellations import forget_cancelled, keep_cancelled
from tussis.shared.store.hot_sql import CLAIM_FIRST
from tussis.shared.store.identities import (
    Identity,
    Mapped,
    Standing,
    find_identity,
    lock_analysis,
    lock_both,
    map_job,
    mapped,
    touch_recording,
)
from tussis.shared.store.job_ids import id_problem
from tussis.shared.store.leases import held_s, remaining_s
from tussis.shared.store.one_statement import run_statement, whole
from tussis.shared.store.records import (
    Claimed,
    ClaimRequest,
    Exhausted,
    Held,
    NotActive,
    RefusalRequest,
    Settled,
)
from tussis.shared.store.served_models import model_id_of
from tussis.shared.store.shadow_sql import SHADOW_MODEL
from tussis.shared.store.tables.analyses import analyses, attempts
from tussis.shared.store.transitions import moment


def claim_first(engine: Engine, request: ClaimRequest) -> Claimed | None:
    """Claim a new analysis for a new job, in one statement.

    Returns None if the store has the analysis or the job already, or does not have the model, or if the job names no
    model and another one is active. :func:`claim` must then decide. In that case at most the row of the recording was
    updated, and :func:`claim` updates it again. Otherwise the statement has written the same rows as :func:`claim`, in
    the same order. It looks up the id of the model: the worker must not cache it, because a restored database can give
    the id to another model.
    """
    job = request.job
    if request.handed_back is not None or not is_own_id(job):
        return None
    try:
        found = run_statement(
            engine,
            CLAIM_FIRST,
            {
                **_shadow_parameters(request),
                "etag": request.etag,
                "version_id": request.version_id,
                "size_bytes": whole(request.size_bytes),
                "metadata": json.dumps(dict(job.metadata)),
                "model_name": request.model.name,
                "model_version": request.model.version,
                "profile": request.profile,
                "profile_overridden": request.profile_overridden,
                "coverage": request.coverage,
                "coverage_overridden": request.coverage_overridden,
                "forced_by": _forced_by(job),
                "job_id": job.job_id,
                "token": request.token,
                "threshold": request.threshold,
                "worker": request.worker,
                "device": request.device,
                "enqueued_at": moment(job.enqueued_at),
                "exclusive": request.exclusive,
                "lease_s": request.lease_s,
                "names_model": job.model is not None,
                "shadow": job.shadow,
            },
        )
    except psycopg.errors.UniqueViolation:
        # Another worker has claimed the job since the statement began.
        return None
    return None if found is None else Claimed(found[0], found[1], request.token, 1, shadow=found[2])


def _shadow_parameters(request: ClaimRequest) -> dict[str, Any]:
    """The parameters of :data:`SHADOW_MODEL`."""
    job = request.job
    overridden = request.profile_overridden or request.coverage_overridden
    return {
        "bucket": job.bucket,
        "key": job.key,
        "model_sha256": request.model.sha256,
        "may_shadow": job.model is None and not job.again and not overridden,
    }


def _shadow_model(connection: Connection, request: ClaimRequest) -> str | None:
    """The model that analyses the same content after this request, or None."""
    parameters = _shadow_parameters(request)
    if not parameters["may_shadow"]:
        return None
    found = connection.exec_driver_sql(SHADOW_MODEL, parameters).scalar_one_or_none()
    return None if found is None else str(found)


def _forced_by(job: Job) -> str:
    return job.job_id if job.again else ""


def claim(connection: Connection, request: ClaimRequest) -> Claimed | Settled | Exhausted | Held | NotActive:
    """Decide a claim, in the transaction of the caller.

    Raises :class:`ModelConflict`, :class:`JobTaken`, :class:`JobIdMismatch` and :class:`JobIdTaken`.
    """
    job = request.job
    before = mapped(connection, job)
    if (problem := id_problem(job, before)) is not None:
        raise problem
    if before is not None and before.answers:
        # A redelivery after the commit. Nothing is written or locked, even if the object has changed. The process may
        # have ended before it closed the job and opened that of the shadow model.
        succeeded = before.state is AnalysisState.SUCCEEDED
        return Settled(before.analysis_id, before.state, _shadow_model(connection, request) if succeeded else None)
    model_id = model_id_of(connection, request.model)
    if (refused := left_to_another(connection, request, before)) is not None:
        return refused
    identity = Identity(
        recording_id=touch_recording(
            connection, job, etag=request.etag, version_id=request.version_id, size_bytes=request.size_bytes
        ),
        model_id=model_id,
        model_requested=None,
        profile=request.profile,
        coverage=request.coverage,
        forced_by=_forced_by(job),
    )
    if before is not None and (before.is_open or before.state is AnalysisState.CANCELLED):
        lock_both(connection, identity, before.analysis_id)
        # The attempt may have ended, or the job may have been cancelled, while this transaction waited.
        before = mapped(connection, job)
        if before is not None and before.answers:
            return Settled(before.analysis_id, before.state)
    standing = find_identity(connection, identity)
    if standing is not None and standing.shadow != job.shadow:
        if job.shadow:
            # Another job requested the same analysis. It answers it, and this one is not needed.
            return Settled(standing.id, standing.state)
        transitions.show_shadow(connection, standing.id)
    answer = _begin(connection, request, identity) if standing is None else _decide(connection, request, standing)
    map_job(connection, job, answer.analysis_id, before)
    if before is not None and before.is_open and before.analysis_id != answer.analysis_id:
        _leave(connection, before, answer.analysis_id)
    if before is not None and before.state is AnalysisState.CANCELLED and before.analysis_id != answer.analysis_id:
        forget_cancelled(connection, before.analysis_id)
    if isinstance(answer, Claimed):
        return replace(answer, shadow=_shadow_model(connection, request))
    return answer


def left_to_another(
    connection: Connection, request: ClaimRequest | RefusalRequest, before: Mapped | None
) -> Held | NotActive | None:
    """Why the worker must not answer a job that names no model: it runs elsewhere, or another model is active.

    None: the worker may answer it. An attempt that began while another model was active goes on and answers the job.
    Reads without locks: of two claims that pass at once, :func:`map_job` lets one through.
    """
    if request.job.model is not None:
        return None
    token, handed_back = None, None
    if isinstance(request, ClaimRequest):
        token, handed_back = request.token, request.handed_back
    if before is not None and before.is_open:
        if before.attempt_token == token:
            return None  # the same claim again, after the reply to the first one was lost
        if (left_s := held_s(connection, before.analysis_id, handed_back)) > 0:
            return Held(before.analysis_id, left_s)
    active = active_model(connection)
    model = request.model
    if active is None or model is None or active.model == f"{model.name}@{model.version}":
        return None
    if handed_back is not None:
        transitions.attempt_handed_back(connection, handed_back)
    return NotActive(active.model)


def may_reopen(standing: Standing, job: Job) -> bool:
    """Whether this message reopens a failed, discarded or cancelled analysis."""
    if standing.state is AnalysisState.CANCELLED:
        # The job that was cancelled has its answer already. This is another one, or the same one enqueued again.
        return True
    if standing.state is AnalysisState.DISCARDED:
        return job.reopen
    if standing.state is not AnalysisState.FAILED:
        return False
    if standing.error_class == JobMoved.error_class:
        # The analysis was left without an answer because its job moved to another one. This job can complete it.
        return True
    # The message is not the one that failed. Both times are from the producer's clock, not from the database's.
    another = moment(job.enqueued_at) != standing.enqueued_at
    return another and (job.reopen or standing.error_class in transitions.REOPENING)


_INSERT_ANALYSIS = insert(analyses).values(started_at=transitions.NOW).returning(analyses.c.id, analyses.c.created_at)


def _begin(connection: Connection, request: ClaimRequest, identity: Identity) -> Claimed:
    row = connection.execute(
        _INSERT_ANALYSIS,
        {
            **asdict(identity),
            "profile_overridden": request.profile_overridden,
            "coverage_overridden": request.coverage_overridden,
            "job_id": request.job.job_id,
            "state": AnalysisState.RUNNING.value,
            "attempt_token": request.token,
            "threshold": request.threshold,
            "attempts": 1,
            "worker": request.worker,
            "device": request.device,
            "enqueued_at": moment(request.job.enqueued_at),
            "shadow": request.job.shadow,
        },
    ).one()
    _attempt_begins(connection, request, row.id, 1, exclusive=request.exclusive)
    return Claimed(row.id, row.created_at, request.token, 1)


def _attempt_begins(
    connection: Connection, request: ClaimRequest, analysis_id: int, number: int, *, exclusive: bool
) -> None:
    transitions.attempt_begins(
        connection, analysis_id, number, request.token, request.worker, exclusive=exclusive, lease_s=request.lease_s
    )


def _decide(connection: Connection, request: ClaimRequest, standing: Standing) -> Claimed | Settled | Exhausted | Held:
    match standing.state:
        case AnalysisState.RUNNING if standing.attempt_token == request.token:
            return Claimed(standing.id, standing.created_at, request.token, standing.attempts)
        case AnalysisState.RUNNING | AnalysisState.WAITING:
            return _next_attempt(connection, request, standing)
        case _ if may_reopen(standing, request.job):
            if standing.state is AnalysisState.CANCELLED:
                keep_cancelled(connection, standing.id, request.job.job_id)
            return _attempt(connection, request, standing, first_attempt=standing.attempts + 1, vanished=0)
        case _:
            return Settled(standing.id, standing.state)


def _next_attempt(connection: Connection, request: ClaimRequest, standing: Standing) -> Claimed | Exhausted | Held:
    """Start the next attempt, unless another attempt holds the analysis or too many attempts crashed."""
    if request.handed_back is not None:
        transitions.attempt_handed_back(connection, request.handed_back)
    if (left_s := remaining_s(connection, standing.id)) > 0:
        return Held(standing.id, left_s)
    transitions.open_attempts_end(connection, standing.id)
    vanished = connection.execute(
        select(attempts.c.number, attempts.c.worker, attempts.c.exclusive, attempts.c.started_at)
        .where(
            attempts.c.analysis_id == standing.id,
            attempts.c.number >= standing.first_attempt,
            attempts.c.outcome == AttemptOutcome.VANISHED.value,
        )
        .order_by(attempts.c.number)
    ).all()
    crashes = [row for row in vanished if row.exclusive]
    if standing.state is AnalysisState.RUNNING and len(crashes) >= request.max_attempts:
        history = ", ".join(f"{row.number} on {row.worker} at {row.started_at:%Y-%m-%dT%H:%M:%SZ}" for row in crashes)
        message = (
            f"{len(crashes)} of {standing.attempts} attempts crashed (no outcome was reported) while the recording had "
            f"a process of its own (attempt {history}): the file crashes or hangs the worker"
        )
        transitions.to_failed(connection, standing.id, error_class=WorkerCrashed.error_class, message=message)
        return Exhausted(standing.id)
    return _attempt(connection, request, standing, first_attempt=standing.first_attempt, vanished=len(vanished))


def _attempt(
    connection: Connection, request: ClaimRequest, standing: Standing, *, first_attempt: int, vanished: int
) -> Claimed:
    number = standing.attempts + 1
    transitions.to_running(
        connection,
        standing.id,
        token=request.token,
        number=number,
        first_attempt=first_attempt,
        job_id=request.job.job_id,
        enqueued_at=moment(request.job.enqueued_at),
        worker=request.worker,
        device=request.device,
    )
    # After vanished attempts, the worker makes an exclusive run for this recording.
    exclusive = request.exclusive or vanished > 0
    _attempt_begins(connection, request, standing.id, number, exclusive=exclusive)
    return Claimed(standing.id, standing.created_at, request.token, number, vanished)


def _leave(connection: Connection, before: Mapped, analysis_id: int) -> None:
    """Fail the previous analysis of a job that moved to another analysis. It would otherwise stay open for ever."""
    standing = lock_analysis(connection, before.analysis_id)
    if standing is None or standing.state in TERMINAL:
        return
    transitions.open_attempts_end(connection, standing.id)
    message = f"{JobMoved()} (analysis {analysis_id} answers it)"
    transitions.to_failed(connection, standing.id, error_class=JobMoved.error_class, message=message)
