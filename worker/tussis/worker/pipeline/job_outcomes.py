"""The outcome of a job, as upstream is told it when the job is closed."""

from __future__ import annotations

import time

from tussis.shared.errors import DatabaseFault, Forgotten
from tussis.shared.messages import Job
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.store.job_outcomes import state_of
from tussis.worker import logs
from tussis.worker.outcome import Failed, Settled, Succeeded
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.failure_policy import retry_while_unavailable

_log = logs.get("job_outcomes")


def job_outcome(
    outcome: Succeeded | Settled | Failed, job: Job, context: WorkerContext, started_at: float | None
) -> JobOutcome:
    """The outcome of a job that ends with this attempt.

    An answer that this attempt has not made itself is read from the store. ``started_at`` is the start of the attempt,
    seconds since the epoch. Raises :class:`Stopping` while the store is not available.
    """
    known = isinstance(outcome, Succeeded) and outcome.answer is not None
    known = known or (isinstance(outcome, Failed) and outcome.message != "")
    if not known and outcome.analysis_id is not None:
        stored = _stored(job, context, outcome.analysis_id)
        if stored is not None:
            return stored
    return JobOutcome(
        job_id=job.job_id,
        uri=None if _is_forgotten(outcome) else job.uri,
        state=_state(outcome),
        enqueued_at=job.enqueued_at,
        started_at=started_at,
        finished_at=time.time(),
        analysis_id=outcome.analysis_id,
        answer=outcome.answer if isinstance(outcome, Succeeded) else None,
        error_class=outcome.error_class if isinstance(outcome, Failed) else None,
        error_message=outcome.message if isinstance(outcome, Failed) else None,
    )


def _is_forgotten(outcome: Succeeded | Settled | Failed) -> bool:
    return isinstance(outcome, Failed) and outcome.error_class == Forgotten.error_class


def _state(outcome: Succeeded | Settled | Failed) -> OutcomeState:
    if isinstance(outcome, Settled):
        return state_of(outcome.state)
    return OutcomeState.SUCCEEDED if isinstance(outcome, Succeeded) else OutcomeState.FAILED


def _stored(job: Job, context: WorkerContext, analysis_id: int) -> JobOutcome | None:
    """The outcome from the store. None if the store has no answer or refuses: the job ends all the same."""
    try:
        return retry_while_unavailable(
            context, lambda: context.store.outcome_of(job.job_id, job.enqueued_at, analysis_id)
        )
    except DatabaseFault as error:
        _log.warning("outcome_without_answer", analysis_id=analysis_id, reason=str(error))
        return None
