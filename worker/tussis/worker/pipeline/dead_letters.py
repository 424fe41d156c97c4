"""Messages that cannot be read: each is stored as a dead letter and, if possible, as the failure of its job."""

from __future__ import annotations

import json
import time
from typing import Any

from tussis.shared.errors import InvalidJob, InvalidUri, TussisError
from tussis.shared.messages import Job, is_shadow, normalise_etag
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.store.records import Held, NotActive, NotItsId, RefusalRequest, Settled
from tussis.worker import logs
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.failure_policy import retry_while_unavailable

_log = logs.get("task")


def dead_letter(context: WorkerContext, raw: Any, error: TussisError) -> None:
    """Store a message that cannot be read as a dead letter.

    ``raw`` is the task's arguments. If the ledger holds exactly this unreadable message for the job that it names, the
    job ends too, and its outcome is told: with a failure, if the message names at least the object. A message that only
    contains the id of a job does not end that job. Nothing is told of a job of the shadow model, and it gets no
    failure. Raises :class:`Stopping`.
    """
    message = raw.get("message") if isinstance(raw, dict) else None
    job_id = _job_id(message)
    _log.error("dead_letter", error_class=error.error_class, reason=str(error), message_job_id=job_id)
    ended_job = job_id is not None and retry_while_unavailable(
        context, lambda: context.ledger.holds_unreadable(job_id, message)
    )
    shadow = is_shadow(message)
    job = _recognised(message) if ended_job and not shadow else None
    failed = None if job is None else _fail(context, job, error)
    if isinstance(failed, Held | NotActive | Settled):
        ended_job = False
    retry_while_unavailable(
        context,
        lambda: context.store.dead_letter(
            _text(raw), job_id, error.error_class, str(error), ended_job=ended_job and not shadow
        ),
    )
    context.meter.dead_lettered(error.error_class)
    if job_id is not None and ended_job:
        outcome = JobOutcome(
            job_id=job_id,
            uri=None if job is None else job.uri,
            state=OutcomeState.FAILED,
            enqueued_at=None if job is None else job.enqueued_at,
            finished_at=time.time(),
            analysis_id=failed if isinstance(failed, int) else None,
            error_class=error.error_class,
            error_message=str(error),
        )
        told = None if shadow else outcome
        retry_while_unavailable(context, lambda: context.ledger.discard(job_id, message, told))


def _fail(context: WorkerContext, job: Job, error: TussisError) -> int | Held | NotActive | Settled:
    """Store the failure, separate from other analyses of the object.

    The view ``current`` does not show it, because the requested model and profile are not known.
    """
    refusal = RefusalRequest(
        job=job,
        etag=job.etag or "",
        version_id=job.version_id,
        profile="",
        profile_overridden=True,
        error_class=error.error_class,
        message=str(error),
        worker=context.worker,
        device=context.device.value,
    )
    answer = retry_while_unavailable(context, lambda: context.store.refuse(refusal))
    return answer.analysis_id if isinstance(answer, NotItsId) else answer


def _job_id(message: object) -> str | None:
    job_id = message.get("job_id") if isinstance(message, dict) else None
    # A lone surrogate is not printable, and a key of the broker cannot contain it.
    return job_id if isinstance(job_id, str) and job_id.isprintable() else None


def _recognised(message: Any) -> Job | None:
    """The well-formed part of the job. None without an id, a bucket or a key."""
    etag, enqueued_at = message.get("etag"), message.get("enqueued_at")
    essential = {"job_id": message.get("job_id"), "bucket": message.get("bucket"), "key": message.get("key")}
    candidates: list[dict[str, Any]] = [
        {"etag": normalise_etag(etag) if isinstance(etag, str) else None, "enqueued_at": enqueued_at},
        {"etag": None, "enqueued_at": enqueued_at},
        {"etag": None, "enqueued_at": time.time()},
    ]
    for candidate in candidates:
        try:
            return Job(**essential, **candidate, again=True)
        except (InvalidJob, InvalidUri):
            continue
    return None


def _text(raw: Any) -> str:
    unreadable = raw.get("unreadable") if isinstance(raw, dict) else None
    kept = unreadable.get("raw") if isinstance(unreadable, dict) else None
    return kept if isinstance(kept, str) else json.dumps(raw)
