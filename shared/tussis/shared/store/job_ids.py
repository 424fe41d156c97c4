"""A job id stays with its object: which messages may use an id."""

from __future__ import annotations

from tussis.shared.errors import JobIdMismatch, JobIdTaken
from tussis.shared.messages import Job, is_own_id
from tussis.shared.store.identities import Mapped


def id_problem(job: Job, before: Mapped | None) -> JobIdMismatch | JobIdTaken | None:
    """Why the message must not use its job id; None if it may. ``before``: the analysis that the store has for the id.

    An id that the store has for the same object is accepted in every version: ``tussis failures retry`` and a sweep
    send a job again under its id, and the new message may name less than the first one.
    """
    if before is not None:
        if (before.bucket, before.key) == (job.bucket, job.key):
            return None
        return JobIdTaken(
            f"the job id {job.job_id} belongs to s3://{before.bucket}/{before.key}, and the message names {job.uri}: "
            "enqueue it again under an id of its own"
        )
    if is_own_id(job):
        return None
    return JobIdMismatch(
        f"the job id {job.job_id} is of version 5, and not the id of the content that the message names ({job.uri}): "
        "compute it as docs/wire-format.md says, or use a random UUID"
    )
