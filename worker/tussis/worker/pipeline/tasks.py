"""The Celery task. It reads the message, runs the pipeline, and acts on the outcome."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import Any

import structlog
from celery.exceptions import Reject

from tussis.shared.errors import MalformedMessage, OutOfMemory, PermanentError
from tussis.shared.messages import HANDED_BACK, Job, parse_message
from tussis.worker import logs
from tussis.worker.outcome import (
    Deferred,
    Failed,
    HandedBack,
    HeldElsewhere,
    Outcome,
    Routed,
    Settled,
    Stopping,
    Succeeded,
    Superseded,
)
from tussis.worker.pipeline import child
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.dead_letters import dead_letter
from tussis.worker.pipeline.failure_policy import OPERATOR_PAUSE_S, refuse_model, retry_while_unavailable
from tussis.worker.pipeline.job_outcomes import job_outcome
from tussis.worker.pipeline.process import process
from tussis.worker.shortage import is_shortage
from tussis.worker.status.metrics import outcome_name

_log = logs.get("task")


def analyze(*args: Any, **kwargs: Any) -> None:
    """Analyse the job in ``kwargs["message"]``. Returns when the message may be acknowledged.

    Raises Celery's Reject otherwise: the message is given back to the broker.
    """
    context = child.context()
    try:
        _analyze(context, args, kwargs)
    except Stopping as stop:
        raise Reject(str(stop), requeue=True) from None
    except Exception as error:
        _log.exception("message_kept")
        if is_shortage(error):
            child.end_after_task()
        with suppress(Stopping):
            context.pause(OPERATOR_PAUSE_S)
        raise Reject(type(error).__name__, requeue=True) from None


def _analyze(context: WorkerContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        job = _job(args, kwargs)
        handed_back = _handed_back(kwargs)
    except PermanentError as error:
        dead_letter(context, kwargs or list(args), error)
        return
    shadow = {"shadow": True} if job.shadow else {}
    with structlog.contextvars.bound_contextvars(job_id=job.job_id, uri=job.uri, **shadow):
        started, started_at = time.monotonic(), time.time()
        context.meter.began(job)
        outcome = process(job, context, handed_back)
        if isinstance(outcome, Routed):
            outcome = _routed(outcome, job, context, handed_back)
        context.meter.ended(outcome, shadow=job.shadow)
        act(outcome, job, context, started_at)
        if isinstance(outcome, Deferred) and outcome.error_class == OutOfMemory.error_class:
            child.end_after_task()
        _log.info(
            "job_done",
            outcome=outcome_name(outcome),
            error_class=getattr(outcome, "error_class", None),
            analysis_id=getattr(outcome, "analysis_id", None),
            ms=round((time.monotonic() - started) * 1000, 1),
        )


def act(outcome: Outcome, job: Job, context: WorkerContext, started_at: float | None = None) -> None:
    """Update the ledger for the outcome: close the job, defer it, or send it again. Only this function does it.

    Closing the job tells its outcome to upstream. ``started_at``: the start of the attempt, seconds since the epoch.
    """
    try:
        match outcome:
            case Succeeded() | Settled() | Failed():
                told = None if job.shadow else job_outcome(outcome, job, context, started_at)
                then = None if isinstance(outcome, Failed) else outcome.shadow
                retry_while_unavailable(context, lambda: context.ledger.close(job, told, then))
            case Deferred(delay_s=delay_s):
                retry_while_unavailable(context, lambda: context.ledger.defer(job, delay_s))
            case HeldElsewhere(delay_s=delay_s):
                retry_while_unavailable(context, lambda: context.ledger.defer(job, delay_s, fault=False))
            case HandedBack(unreleased=unreleased):
                retry_while_unavailable(context, lambda: context.ledger.send_again(job, unreleased))
            case Superseded() | Routed():
                pass  # The attempt that took over the claim closes the job; a routed message is in another queue.
    except Stopping:
        # The broker is not available and the worker stops. The message is not acknowledged and comes back.
        _log.warning("ledger_not_updated", outcome=outcome_name(outcome))
        raise


def _routed(outcome: Routed, job: Job, context: WorkerContext, handed_back: uuid.UUID | None) -> Outcome:
    """Send the message to the queue of the model. If the job must fail instead, this returns the refusal.

    When the process dies before the message is acknowledged, there are two messages. The claim settles the second.
    """
    token = None if handed_back is None else str(handed_back)
    wait_s = context.settings.model_wait_s
    try:
        unserved = retry_while_unavailable(context, lambda: context.ledger.route(job, outcome.model, wait_s, token))
    except Stopping:
        _log.warning("ledger_not_updated", outcome=outcome_name(outcome))
        raise
    return outcome if unserved is None else refuse_model(job, context, unserved.served_s)


def _job(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    unreadable = kwargs.get("unreadable")
    if isinstance(unreadable, dict) and set(kwargs) == {"unreadable"} and not args:
        raise MalformedMessage(f"not a message of Tussis: {unreadable.get('problem')}")
    if args or set(kwargs) - {HANDED_BACK} != {"message"}:
        raise MalformedMessage(f"the task takes one keyword argument, message; got {len(args)} and {sorted(kwargs)}")
    return parse_message(kwargs["message"])


def _handed_back(kwargs: dict[str, Any]) -> uuid.UUID | None:
    token = kwargs.get(HANDED_BACK)
    try:
        return None if token is None else uuid.UUID(str(token))
    except ValueError:
        raise MalformedMessage(f"{HANDED_BACK} is not a UUID") from None
