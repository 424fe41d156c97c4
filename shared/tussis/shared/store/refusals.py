"""Failures without a claim: the object is missing, the model is not served, or the message cannot be read."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, replace

from sqlalchemy import Connection, insert
from sqlalchemy.dialects.postgresql import insert as upsert

from tussis.shared.coverage import Coverage
from tussis.shared.errors import PermanentError
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.cancellations import forget_cancelled, keep_cancelled
from tussis.shared.store.claims import left_to_another, may_reopen
from tussis.shared.store.identities import (
    Identity,
    Mapped,
    Standing,
    find_identity,
    lock_analysis,
    map_job,
    mapped,
    touch_recording,
)
from tussis.shared.store.job_ids import id_problem
from tussis.shared.store.leases import remaining_s
from tussis.shared.store.records import Held, NotActive, NotItsId, RefusalRequest, Settled
from tussis.shared.store.served_models import model_id_of
from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.tables.dead_letters import dead_letters
from tussis.shared.store.transitions import moment

#: Maximum stored length of an unreadable message in characters. Equals the maximum size of a valid message in bytes.
MAX_RAW = 65_536


def refuse(connection: Connection, request: RefusalRequest) -> int | Held | NotActive | Settled | NotItsId:
    """Fail a job; returns the id of its analysis, or :class:`Held` while another attempt holds that analysis.

    Returns :class:`NotItsId` if the job id is not that of the message, which then fails apart from the job of the id.
    Returns :class:`NotActive` if the job names no model, and another one than that of the request is active, and
    :class:`Settled` if the job was cancelled. Raises :class:`ModelConflict` and :class:`JobTaken`.
    """
    job = request.job
    before = mapped(connection, job)
    if (problem := id_problem(job, before)) is not None:
        return _fail_apart(connection, request, problem)
    if before is not None and before.answers:
        return _answered(before)
    model_id = None if request.model is None else model_id_of(connection, request.model)
    if (left := left_to_another(connection, request, before)) is not None:
        return left
    if before is not None and before.is_open:
        # An earlier attempt at this job left an analysis open. That analysis fails, and no second one is created.
        open_one = lock_analysis(connection, before.analysis_id)
        # The job may have been cancelled while this transaction waited.
        before = mapped(connection, job)
        if before is not None and before.answers:
            return _answered(before)
        if open_one is not None and open_one.state in (AnalysisState.RUNNING, AnalysisState.WAITING):
            if (left_s := remaining_s(connection, open_one.id)) > 0:
                return Held(open_one.id, left_s)
            _fail_standing(connection, request, open_one)
            map_job(connection, job, open_one.id, before)
            return open_one.id
    identity = Identity(
        recording_id=touch_recording(
            connection, job, etag=request.etag, version_id=request.version_id, size_bytes=None
        ),
        model_id=model_id,
        model_requested=request.model_requested,
        profile=request.profile,
        coverage=request.coverage,
        forced_by=job.job_id if job.again else "",
    )
    if before is not None and before.state is AnalysisState.CANCELLED:
        # The recording is locked now. Its job may have been cancelled again before.
        before = mapped(connection, job)
        if before is not None and before.answers:
            return _answered(before)
    standing = find_identity(connection, identity)
    if standing is not None and standing.shadow != job.shadow:
        if job.shadow:
            return standing.id
        transitions.show_shadow(connection, standing.id)
    if standing is None:
        analysis_id = _refused(connection, request, identity)
    else:
        analysis_id = standing.id
        # An analysis that another job has open does not change. That job may still find the bytes.
        if may_reopen(standing, job):
            if standing.state is AnalysisState.CANCELLED:
                keep_cancelled(connection, standing.id, job.job_id)
            _fail_standing(connection, request, standing)
    map_job(connection, job, analysis_id, before)
    if before is not None and before.state is AnalysisState.CANCELLED and before.analysis_id != analysis_id:
        forget_cancelled(connection, before.analysis_id)
    return analysis_id


def _fail_apart(connection: Connection, request: RefusalRequest, problem: PermanentError) -> NotItsId:
    """Store the failure of a message whose job id is not its own.

    It is separate from all other analyses of the object, and the id is not mapped to it. A repeated message makes one
    row.
    """
    job = request.job
    unreadable = request.profile == ""
    told = request if unreadable else replace(request, error_class=problem.error_class, message=str(problem))
    told = replace(told, profile_overridden=True, coverage_overridden=False)
    recording = touch_recording(connection, job, etag=request.etag, version_id=request.version_id, size_bytes=None)
    identity = Identity(recording, None, None, profile="", coverage=Coverage.HEAD.value, forced_by=job.job_id)
    standing = find_identity(connection, identity)
    if standing is None:
        analysis_id = _refused(connection, told, identity)
    else:
        analysis_id = standing.id
        if moment(job.enqueued_at) != standing.enqueued_at and standing.state is AnalysisState.FAILED:
            _fail_standing(connection, told, standing)
    return NotItsId(analysis_id, told.error_class, told.message)


def _answered(before: Mapped) -> int | Settled:
    return Settled(before.analysis_id, before.state) if before.cancelled else before.analysis_id


def _refused(connection: Connection, request: RefusalRequest, identity: Identity) -> int:
    token = uuid.uuid4()
    analysis_id: int = connection.execute(
        insert(analyses)
        .values(
            **asdict(identity),
            profile_overridden=request.profile_overridden,
            coverage_overridden=request.coverage_overridden,
            job_id=request.job.job_id,
            state=AnalysisState.FAILED.value,
            attempt_token=token,
            attempts=1,
            error_class=request.error_class,
            error_message=transitions.clean(request.message),
            worker=request.worker,
            device=request.device,
            enqueued_at=moment(request.job.enqueued_at),
            started_at=transitions.NOW,
            finished_at=transitions.NOW,
            shadow=request.job.shadow,
        )
        .returning(analyses.c.id)
    ).scalar_one()
    transitions.attempt_begins(connection, analysis_id, 1, token, request.worker, exclusive=False)
    _end_attempt(connection, request, token)
    return analysis_id


def _fail_standing(connection: Connection, request: RefusalRequest, standing: Standing) -> None:
    """Add an attempt that fails at once, with the usual transitions to RUNNING and then FAILED."""
    token = uuid.uuid4()
    number = standing.attempts + 1
    reopened = standing.state not in (AnalysisState.RUNNING, AnalysisState.WAITING)
    transitions.open_attempts_end(connection, standing.id)
    transitions.to_running(
        connection,
        standing.id,
        token=token,
        number=number,
        first_attempt=number if reopened else standing.first_attempt,
        job_id=request.job.job_id,
        enqueued_at=moment(request.job.enqueued_at),
        worker=request.worker,
        device=request.device,
    )
    transitions.attempt_begins(connection, standing.id, number, token, request.worker, exclusive=False)
    transitions.to_failed(
        connection, standing.id, error_class=request.error_class, message=request.message, token=token
    )
    _end_attempt(connection, request, token)


def _end_attempt(connection: Connection, request: RefusalRequest, token: uuid.UUID) -> None:
    transitions.attempt_ended(
        connection, token, AttemptOutcome.FAILED, error_class=request.error_class, message=request.message
    )


def dead_letter(
    connection: Connection, raw: str, job_id: str | None, error_class: str, message: str, *, ended_job: bool = False
) -> None:
    """Store a dead letter, or count it again if it is stored. ``ended_job``: the ledger held it for ``job_id``."""
    text = transitions.storable(raw)
    statement = upsert(dead_letters).values(
        raw_sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        raw=text[:MAX_RAW],
        job_id=None if job_id is None else transitions.storable(job_id)[:200],
        error_class=error_class,
        error_message=transitions.clean(message),
        ended_job=ended_job,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["raw_sha256"],
            set_={
                "deliveries": dead_letters.c.deliveries + 1,
                "last_received_at": transitions.NOW,
                "ended_job": dead_letters.c.ended_job | statement.excluded.ended_job,
            },
        )
    )
