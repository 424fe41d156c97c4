"""What happens after an error: wait, defer, hand back, or fail. This file decides it for every error, and nothing else
does.

* A server that is away or refuses is waited out, and the message is kept: :func:`retry_while_unavailable`.
* Every other error of an attempt ends it, by :func:`end_attempt`: a transient one is deferred with growing delays, one
  that only an operator can mend pauses the process, a permanent one is the recording's failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DatabaseFault,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    Expired,
    InternalFault,
    ModelNotServed,
    NeedsMemory,
    OperatorError,
    OutOfMemory,
    PermanentError,
    SchemaMismatch,
    TransientError,
    TussisError,
)
from tussis.shared.messages import Job
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import records
from tussis.shared.store.records import Claimed
from tussis.worker import logs
from tussis.worker.outcome import Deferred, Failed, HandedBack, HeldElsewhere, Outcome, Stopping, Superseded
from tussis.worker.pipeline import backoff
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.watchdog import Stages
from tussis.worker.shortage import is_shortage

T = TypeVar("T")
_log = logs.get("failure_policy")

#: Seconds between two looks at something that is away, and the longest such pause.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
#: Seconds for which a process takes no message after an error that only an operator can mend.
OPERATOR_PAUSE_S = 15.0
#: What :func:`retry_while_unavailable` waits out: what passes, and what the operator of database or broker has to mend.
_AWAY = (DatabaseUnavailable, BrokerUnavailable, BrokerRefused)
_TO_MEND = (DatabaseRefused, DiskFull, SchemaMismatch)
#: Sum of the delays, seconds, after which a recording that never finds enough memory fails; by default 12 attempts.
_SHORT_TOTAL_S = 1800.0
#: Seconds after another attempt's lease at which its question is asked again.
_AFTER_LEASE_S = 0.5


def retry_while_unavailable(context: WorkerContext, call: Callable[[], T]) -> T:
    """Call until neither the database nor the broker is away or refuses: that time counts towards nothing.

    The process keeps its message and its work meanwhile, so that it takes no other one. Raises :class:`Stopping`
    when the worker is told to stop first; every other error passes through.
    """
    pause = _FIRST_PAUSE_S
    held = ""
    try:
        while True:
            try:
                return call()
            except (*_AWAY, *_TO_MEND) as error:
                if held != error.error_class:
                    held = error.error_class
                    context.run_dir.hold(str(error))
                    if isinstance(error, _TO_MEND):
                        _log.error("paused", error_class=held, reason=str(error), seconds=_LONGEST_PAUSE_S)
                    else:
                        _log.warning("holding", error_class=held, reason=str(error))
                context.pause(random.uniform(pause / 2, pause))
                pause = min(_LONGEST_PAUSE_S, pause * 2)
    finally:
        if held:
            context.run_dir.resume()
            _log.info("holding_over")


def end_attempt(job: Job, context: WorkerContext, claim: Claimed | None, stages: Stages, error: Exception) -> Outcome:
    """Turn the error that ended an attempt into its outcome, written into the store where there is something to write.

    ``claim`` is None for an error before the claim. Raises what not even a dead letter can be written for.
    """
    if is_shortage(error):
        # A decoder's or a model's error may come from a shortage of memory.
        error = _shortage(error)
    elif not isinstance(error, TussisError):
        # A fault of this program: the recording fails, and does not come round for ever.
        _log.error("internal_fault", exc_info=error)
        error = _internal(error)
    reason = error
    return _stored(job, context, claim, lambda: _conclude(job, context, claim, stages, reason))


def held_elsewhere(held: records.Held) -> HeldElsewhere:
    """The outcome while another attempt holds the analysis."""
    return HeldElsewhere(held.analysis_id, held.remaining_s + _AFTER_LEASE_S)


def _stored(job: Job, context: WorkerContext, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The outcome of ``end``. An end that cannot be stored does not bring the message round for ever."""
    try:
        return _unless_stopped(context, claim, end)
    except Exception as error:
        reason = error
        _log.error("end_not_stored", error_class=_class_of(reason), exc_info=reason)
        return _unless_stopped(context, claim, lambda: _put_aside(job, context, claim, reason))


def _unless_stopped(context: WorkerContext, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The worker may stop while an end waits for the database: then the message goes back."""
    try:
        return end()
    except Stopping as stop:
        return _hand_back(context, claim, stop)


def _conclude(job: Job, context: WorkerContext, claim: Claimed | None, stages: Stages, error: TussisError) -> Outcome:
    """Turn an error into its outcome, written down where there is something to write."""
    if isinstance(error, Stopping) or context.access.concerns_all(job, error, context.s3):
        return _hand_back(context, claim, error)
    if isinstance(error, TransientError | OperatorError):  # an operator's that concerns this recording alone passes too
        failures = 1 + retry_while_unavailable(context, lambda: context.ledger.faults(job.job_id))
        base, cap, total = context.settings.retry_base_s, context.settings.retry_cap_s, context.settings.retry_total_s
        # Each attempt without memory costs a process, and its neighbours' time.
        short = isinstance(error, OutOfMemory)
        if not backoff.exhausted(failures, base, cap, min(total, _SHORT_TOTAL_S) if short else total):
            return _defer(context, claim, error, backoff.delay_s(failures, base, cap))
        given_up = f"given up after {failures} faults, the last one: {error}"
        error = NeedsMemory(given_up) if short else Expired(given_up)
    if not isinstance(error, PermanentError):
        # Of no kind that belongs here. Raised on, it would come round for ever.
        _log.error("internal_fault", exc_info=error)
        error = _internal(error)
    return _fail(job, context, claim, stages, error)


def _defer(context: WorkerContext, claim: Claimed | None, error: TussisError, delay_s: float) -> Outcome:
    if claim is not None:
        released = retry_while_unavailable(
            context, lambda: context.store.release(claim, AttemptOutcome.TRANSIENT, error.error_class, str(error))
        )
        if not released:
            return Superseded(claim.analysis_id)
    return Deferred(claim.analysis_id if claim else None, error.error_class, delay_s)


def _hand_back(context: WorkerContext, claim: Claimed | None, error: TussisError) -> Outcome:
    """Give the message back uncounted; after an operator's error, take no other one for a while."""
    unreleased = None
    if claim is not None:
        try:
            context.store.release(claim, AttemptOutcome.HANDED_BACK, error.error_class, str(error))
        except (TransientError, OperatorError) as away:
            # The message carries the word to the next attempt: this one must not count as ended without one.
            unreleased = str(claim.token)
            _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(away))
    if isinstance(error, OperatorError):
        _log.error("paused", error_class=error.error_class, reason=str(error), seconds=OPERATOR_PAUSE_S)
        context.run_dir.hold(str(error))
        try:
            context.pause(OPERATOR_PAUSE_S)
        except Stopping:
            return HandedBack(unreleased)
        finally:
            context.run_dir.resume()
    return HandedBack(unreleased)


def _fail(job: Job, context: WorkerContext, claim: Claimed | None, stages: Stages, error: PermanentError) -> Outcome:
    if claim is not None:
        written = retry_while_unavailable(
            context, lambda: context.store.fail(claim, error.error_class, str(error), stages.timings_ms)
        )
        return Failed(claim.analysis_id, error.error_class) if written else Superseded(claim.analysis_id)
    # Only a model that is not served leaves the failure without one.
    served = not isinstance(error, ModelNotServed)
    profile = job.profile or context.scorer.manifest.profile
    refusal = records.RefusalRequest(
        job=job,
        etag=job.etag or "",
        version_id=job.version_id,
        profile=profile,
        profile_overridden=profile != context.scorer.manifest.profile,
        model=context.model if served else None,
        model_requested=None if served else job.model,
        error_class=error.error_class,
        message=str(error),
        worker=context.worker,
        device=context.device.value,
    )
    answer = retry_while_unavailable(context, lambda: context.store.refuse(refusal))
    return held_elsewhere(answer) if isinstance(answer, records.Held) else Failed(answer, error.error_class)


def _put_aside(job: Job, context: WorkerContext, claim: Claimed | None, error: Exception) -> Outcome:
    """Try again later, as after any transient fault; when those are used up, keep the message as a dead letter: a row
    that depends on no other one."""
    analysis_id = None if claim is None else claim.analysis_id
    failures = 1 + retry_while_unavailable(context, lambda: context.ledger.faults(job.job_id))
    base, cap, total = context.settings.retry_base_s, context.settings.retry_cap_s, context.settings.retry_total_s
    if not backoff.exhausted(failures, base, cap, total):
        if claim is not None:
            _release_anyway(context, claim, error)
        return Deferred(analysis_id, _class_of(error), backoff.delay_s(failures, base, cap))
    message = f"given up after {failures} faults; the failure cannot be stored either: {error}"

    def keep() -> None:
        try:
            context.store.dead_letter(job.to_json(), job.job_id, Expired.error_class, message, ended_job=True)
        except DatabaseFault as refused:
            # Where not even this can be written, nothing can: that is no recording's fault.
            raise DatabaseRefused(str(refused)) from refused

    retry_while_unavailable(context, keep)
    return Failed(analysis_id, Expired.error_class)


def _release_anyway(context: WorkerContext, claim: Claimed, error: Exception) -> None:
    """This attempt is over and is no crash. Where the store does not take that either, its lease expires."""
    try:
        context.store.release(claim, AttemptOutcome.TRANSIENT, _class_of(error), "the end could not be stored")
    except (TransientError, OperatorError) as refused:
        _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(refused))


def _shortage(error: Exception) -> OutOfMemory:
    if isinstance(error, OutOfMemory):
        return error
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return OutOfMemory(f"the worker's process ran out of memory ({said[:300]})")


def _internal(error: Exception) -> InternalFault:
    return InternalFault(f"{type(error).__name__}: {error}")


def _class_of(error: Exception) -> str:
    return error.error_class if isinstance(error, TussisError) else InternalFault.error_class
