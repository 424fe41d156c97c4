"""Find and lock rows: the recording of an object, the analysis of an identity, the analysis of a job.

Locks are always taken in this order: recording, then analysis; of two analyses the older one first. Transactions with
different orders could deadlock.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, case, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from tussis.shared.errors import JobMoved
from tussis.shared.messages import Job
from tussis.shared.states import TERMINAL, AnalysisState
from tussis.shared.store.tables.analyses import analyses, jobs
from tussis.shared.store.tables.recordings import recordings
from tussis.shared.store.transitions import moment


@dataclass(frozen=True)
class Identity:
    """The columns that identify an analysis. Each combination is unique."""

    recording_id: int
    model_id: int | None
    model_requested: str | None
    profile: str
    coverage: str
    forced_by: str


@dataclass(frozen=True)
class Standing:
    """The columns of an analysis that a claim needs. Its row is locked until the transaction ends."""

    id: int
    created_at: datetime
    state: AnalysisState
    attempt_token: uuid.UUID
    attempts: int
    first_attempt: int
    error_class: str | None
    enqueued_at: datetime
    shadow: bool


@dataclass(frozen=True)
class Mapped:
    """The present analysis of a job.

    ``same_message``: the current message is the one that the store has for the job, so this is a redelivery and not a
    new request. ``attempt_token`` is the token of the newest attempt.
    """

    analysis_id: int
    state: AnalysisState
    error_class: str | None
    same_message: bool
    attempt_token: uuid.UUID
    bucket: str
    key: str
    """With ``bucket``, the object that the job belongs to."""
    cancelled: bool = False
    """The analysis was cancelled for this job. One that was cancelled for another job is no answer to this one."""

    @property
    def answers(self) -> bool:
        """Whether the current message already has its answer. The failure ``job_moved`` is not an answer."""
        if self.state is AnalysisState.CANCELLED:
            return self.same_message and self.cancelled
        return self.same_message and self.state in TERMINAL and self.error_class != JobMoved.error_class

    @property
    def is_open(self) -> bool:
        return self.state not in TERMINAL


_NEW_RECORDING = insert(recordings)
_TOUCH_RECORDING = _NEW_RECORDING.on_conflict_do_update(
    index_elements=["bucket", "key", "etag"],
    set_={
        "version_id": func.coalesce(_NEW_RECORDING.excluded.version_id, recordings.c.version_id),
        "size_bytes": func.coalesce(_NEW_RECORDING.excluded.size_bytes, recordings.c.size_bytes),
        "metadata": case(
            (_NEW_RECORDING.excluded["metadata"] == text("'{}'::jsonb"), recordings.c["metadata"]),
            else_=_NEW_RECORDING.excluded["metadata"],
        ),
        "updated_at": func.now(),
    },
).returning(recordings.c.id)


def touch_recording(
    connection: Connection, job: Job, *, etag: str, version_id: str | None, size_bytes: int | None
) -> int:
    """Insert or update the recording and lock its row; returns its id.

    Empty metadata does not replace stored metadata.
    """
    values = {
        "bucket": job.bucket,
        "key": job.key,
        "etag": etag,
        "version_id": version_id,
        "size_bytes": size_bytes,
        "metadata": dict(job.metadata),
    }
    return int(connection.execute(_TOUCH_RECORDING, values).scalar_one())


_STANDING = select(
    analyses.c.id,
    analyses.c.created_at,
    analyses.c.state,
    analyses.c.attempt_token,
    analyses.c.attempts,
    analyses.c.first_attempt,
    analyses.c.error_class,
    analyses.c.enqueued_at,
    analyses.c.shadow,
).with_for_update()
_STANDING_BY_ID = _STANDING.where(analyses.c.id == bindparam("analysis"))
_IS_IDENTITY = and_(
    analyses.c.recording_id == bindparam("recording_id"),
    analyses.c.model_id.is_not_distinct_from(bindparam("model_id")),
    analyses.c.model_requested.is_not_distinct_from(bindparam("model_requested")),
    analyses.c.profile == bindparam("profile"),
    analyses.c.coverage == bindparam("coverage"),
    analyses.c.forced_by == bindparam("forced_by"),
)
_STANDING_BY_IDENTITY = _STANDING.where(_IS_IDENTITY)
_LOCK_BOTH = (
    select(analyses.c.id)
    .where(or_(analyses.c.id == bindparam("analysis"), _IS_IDENTITY))
    .order_by(analyses.c.id)
    .with_for_update()
)


def find_identity(connection: Connection, identity: Identity) -> Standing | None:
    """Lock and read the analysis of this identity. The recording must be locked, so that no other claim inserts one."""
    return _standing(connection.execute(_STANDING_BY_IDENTITY, asdict(identity)).one_or_none())


def lock_both(connection: Connection, identity: Identity, analysis_id: int) -> None:
    """Lock the analysis ``analysis_id`` and the analysis of this identity, if there is one, in the order of their ids.

    Without this order, two jobs that exchange their analyses would deadlock.
    """
    connection.execute(_LOCK_BOTH, asdict(identity) | {"analysis": analysis_id})


def lock_analysis(connection: Connection, analysis_id: int) -> Standing | None:
    """Lock and read one analysis."""
    return _standing(connection.execute(_STANDING_BY_ID, {"analysis": analysis_id}).one_or_none())


def _standing(row: Sequence[Any] | None) -> Standing | None:
    if row is None:
        return None
    analysis_id, created_at, state, *rest = row
    return Standing(analysis_id, created_at, AnalysisState(state), *rest)


_MAPPED = (
    select(
        jobs.c.analysis_id,
        jobs.c.enqueued_at,
        analyses.c.state,
        analyses.c.error_class,
        analyses.c.attempt_token,
        analyses.c.job_id,
        recordings.c.bucket,
        recordings.c.key,
    )
    .join(analyses, analyses.c.id == jobs.c.analysis_id)
    .join(recordings, recordings.c.id == analyses.c.recording_id)
    .where(jobs.c.job_id == bindparam("job_id"))
)


def mapped(connection: Connection, job: Job) -> Mapped | None:
    """The analysis that the store has for this job, or None. Locks nothing."""
    row = connection.execute(_MAPPED, {"job_id": job.job_id}).one_or_none()
    if row is None:
        return None
    return Mapped(
        row.analysis_id,
        AnalysisState(row.state),
        row.error_class,
        moment(job.enqueued_at) == row.enqueued_at,
        row.attempt_token,
        row.bucket,
        row.key,
        row.state == AnalysisState.CANCELLED.value and row.job_id == job.job_id,
    )


class JobTaken(Exception):
    """Another transaction gave the job an analysis since this one looked. Repeat the transaction."""


_NEW_JOB = insert(jobs)
_MAP_JOB = _NEW_JOB.on_conflict_do_update(
    index_elements=["job_id"],
    set_={"analysis_id": _NEW_JOB.excluded.analysis_id, "enqueued_at": _NEW_JOB.excluded.enqueued_at},
    where=jobs.c.analysis_id == bindparam("before", type_=BigInteger),
).returning(jobs.c.job_id)


def map_job(connection: Connection, job: Job, analysis_id: int, before: Mapped | None) -> None:
    """Store that this analysis answers the job, instead of ``before``. Raises :class:`JobTaken`.

    Two workers with two models may have the same message at once. One analysis must answer it.
    """
    stored = connection.execute(
        _MAP_JOB,
        {
            "job_id": job.job_id,
            "analysis_id": analysis_id,
            "enqueued_at": moment(job.enqueued_at),
            "before": None if before is None else before.analysis_id,
        },
    )
    if stored.one_or_none() is None:
        raise JobTaken
