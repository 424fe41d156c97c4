"""Decides for every error what happens: wait, defer, hand back, or fail.

* If a server is not available or refuses, :func:`retry_while_unavailable` keeps the message and waits.
* Every other error ends the attempt, with :func:`end_attempt`. A transient error is deferred with growing delays. An
  operator's error pauses the process. A permanent error becomes the failure of the recording.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DatabaseFault,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    Expired,
    Forgotten,
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
from tussis.worker.audio.libraries import libraries_of
from tussis.worker.outcome import (
    Deferred,
    Failed,
    HandedBack,
    HeldElsewhere,
    Outcome,
    Routed,
    Settled,
    Stopping,
    Superseded,
)
from tussis.worker.pipeline import backoff
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.software import software_of
from tussis.worker.pipeline.watchdog import Stages
from tussis.worker.shortage import is_shortage

T = TypeVar("T")
_log = logs.get("failure_policy")

#: Seconds: the first and the longest pause between two tries while a server is not available.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
#: Seconds for which a process takes no message after an operator's error.
OPERATOR_PAUSE_S = 15.0
#: The errors for which :func:`retry_while_unavailable` waits: those that pass, and those that an operator must fix.
_UNAVAILABLE = (DatabaseUnavailable, BrokerUnavailable, BrokerRefused)
_OPERATOR_FIXES = (DatabaseRefused, DiskFull, SchemaMismatch)
#: Sum of the delays, in seconds, after which a recording fails for lack of memory. By default that is 12 attempts.
_SHORT_TOTAL_S = 1800.0
#: Seconds between the end of another attempt's lease and the next try at the claim.
_AFTER_LEASE_S = 0.5


def retry_while_unavailable(context: WorkerContext, call: Callable[[], T]) -> T:
    """Repeat the call while the database or the broker is not available or refuses. This time counts towards no limit.

    The process keeps its message and its work meanwhile and takes no other message. Raises :class:`Stopping` when the
    worker is told to stop first. Every other error passes through.
    """
    pause = _FIRST_PAUSE_S
    held = ""
    try:
        while True:
            try:
                return call()
            except (*_UNAVAILABLE, *_OPERATOR_FIXES) as error:
                if held != error.error_class:
                    held = error.error_class
                    context.run_dir.hold(logs.without_keys(str(error)))
                    if isinstance(error, _OPERATOR_FIXES):
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
    """Turn the error that ended an attempt into its outcome, and store it if there is something to store.

    ``claim`` is None for an error before the claim. Raises an error only if not even a dead letter can be written.
    """
    if is_shortage(error):
        # Errors of decoders and models may be caused by too little memory.
        error = _shortage(error)
    elif not isinstance(error, TussisError):
        # A bug in this program: the recording fails, so that it is not retried forever.
        _log.error("internal_fault", exc_info=error)
        error = _internal(error)
    reason = error
    return _stored(job, context, claim, lambda: _conclude(job, context, claim, stages, reason))


def refuse_model(job: Job, context: WorkerContext, served_s: float | None) -> Outcome:
    """Fail a job whose model no worker serves. ``served_s``: seconds since a worker did; None if none is known."""
    since = "no worker has served it" if served_s is None else f"no worker has served it for {served_s:.0f} s"
    error = ModelNotServed(
        f"the job names model {job.model!r}, and {since} (limit {context.settings.model_wait_s:g} s)"
    )
    return end_attempt(job, context, None, Stages(context.meter.stage), error)


def held_elsewhere(held: records.Held) -> HeldElsewhere:
    """The outcome while another attempt holds the claim."""
    return HeldElsewhere(held.analysis_id, held.remaining_s + _AFTER_LEASE_S)


def _stored(job: Job, context: WorkerContext, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The outcome of ``end``. If it cannot be stored, the message is put aside, so that it is not retried forever.

    Nothing is stored of a forgotten recording: the job ends with an outcome that names no object.
    """
    try:
        return _unless_stopped(context, claim, end)
    except Forgotten as error:
        return Failed(None, error.error_class, str(error))
    except Exception as error:
        reason = error
        _log.error("end_not_stored", error_class=_class_of(reason), exc_info=reason)
        return _unless_stopped(context, claim, lambda: _put_aside(job, context, claim, reason))


def _unless_stopped(context: WorkerContext, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The outcome of ``end``. The message is handed back if the worker stops while ``end`` waits for the database."""
    try:
        return end()
    except Stopping as stop:
        return _hand_back(context, claim, stop)


def _conclude(job: Job, context: WorkerContext, claim: Claimed | None, stages: Stages, error: TussisError) -> Outcome:
    """Turn an error into its outcome, and store it if there is something to store. Raises :class:`Forgotten`."""
    if isinstance(error, Forgotten):
        raise error
    if isinstance(error, Stopping) or context.access.concerns_all(job, error, context.s3):
        return _hand_back(context, claim, error)
    if isinstance(error, TransientError | OperatorError):  # an operator's error of one recording is deferred
        # Each attempt without enough memory costs a process, and time of the other processes.
        short = isinstance(error, OutOfMemory)
        failures, delay_s = _next_retry(job, context, _SHORT_TOTAL_S if short else math.inf)
        if delay_s is not None:
            return _defer(context, claim, error, delay_s)
        message = f"{failures} attempts failed; the last error: {error}"
        error = NeedsMemory(message) if short else Expired(message)
    if not isinstance(error, PermanentError):
        # An unexpected class of error. If it were raised, the message would be retried forever.
        _log.error("internal_fault", exc_info=error)
        error = _internal(error)
    return _fail(job, context, claim, stages, error)


def _next_retry(job: Job, context: WorkerContext, total_s: float = math.inf) -> tuple[int, float | None]:
    """The number of failed attempts so far, and the delay before the next one in seconds.

    The delay is None if the delays already sum up to the smaller of ``total_s`` and the setting.
    """
    failures = 1 + retry_while_unavailable(context, lambda: context.ledger.faults(job.job_id))
    base, cap, total = context.settings.retry_base_s, context.settings.retry_cap_s, context.settings.retry_total_s
    if backoff.exhausted(failures, base, cap, min(total, total_s)):
        return failures, None
    return failures, backoff.delay_s(failures, base, cap)


def _defer(context: WorkerContext, claim: Claimed | None, error: TussisError, delay_s: float) -> Outcome:
    if claim is not None:
        released = retry_while_unavailable(
            context, lambda: context.store.release(claim, AttemptOutcome.TRANSIENT, error.error_class, str(error))
        )
        if not released:
            return Superseded(claim.analysis_id)
    return Deferred(claim.analysis_id if claim else None, error.error_class, delay_s)


def _hand_back(context: WorkerContext, claim: Claimed | None, error: TussisError) -> Outcome:
    """Hand the message back without counting a failed attempt. After an operator's error, pause first."""
    unreleased = None
    if claim is not None:
        try:
            context.store.release(claim, AttemptOutcome.HANDED_BACK, error.error_class, str(error))
        except (TransientError, OperatorError) as away:
            # The message carries the token to the next claim, so that this attempt does not count as vanished.
            unreleased = str(claim.token)
            _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(away))
    if isinstance(error, OperatorError):
        _log.error("paused", error_class=error.error_class, reason=str(error), seconds=OPERATOR_PAUSE_S)
        context.run_dir.hold(logs.without_keys(str(error)))
        try:
            context.pause(OPERATOR_PAUSE_S)
        except Stopping:
            return HandedBack(unreleased)
        finally:
            context.run_dir.resume()
    return HandedBack(unreleased)


def _fail(job: Job, context: WorkerContext, claim: Claimed | None, stages: Stages, error: PermanentError) -> Outcome:
    if claim is not None:
        libraries = libraries_of(context.rules_of(job).profile.decoder)
        software = software_of(context.scorer.arithmetic, libraries)
        written = retry_while_unavailable(
            context, lambda: context.store.fail(claim, error.error_class, str(error), stages.timings_ms, software)
        )
        return Failed(claim.analysis_id, error.error_class, str(error)) if written else Superseded(claim.analysis_id)
    # Only ModelNotServed leaves the failure without a model.
    served = not isinstance(error, ModelNotServed)
    manifest = context.scorer.manifest
    profile, coverage = job.profile or manifest.profile, job.coverage or manifest.coverage
    refusal = records.RefusalRequest(
        job=job,
        etag=job.etag or "",
        version_id=job.version_id,
        profile=profile,
        profile_overridden=profile != manifest.profile,
        coverage=coverage,
        coverage_overridden=coverage != manifest.coverage,
        model=context.model if served else None,
        model_requested=None if served else job.model,
        error_class=error.error_class,
        message=str(error),
        worker=context.worker,
        device=context.device.value,
    )
    answer = retry_while_unavailable(context, lambda: context.store.refuse(refusal))
    match answer:
        case records.Held():
            return held_elsewhere(answer)
        case records.NotActive():
            return Routed(answer.active)
        case records.Settled():
            return Settled(answer.analysis_id, answer.state)
        case records.NotItsId():
            return Failed(answer.analysis_id, answer.error_class, answer.message)
        case analysis_id:
            return Failed(analysis_id, error.error_class)


def _put_aside(job: Job, context: WorkerContext, claim: Claimed | None, error: Exception) -> Outcome:
    """Try again later, as after a transient error. After the last retry, store the message as a dead letter.

    The row of a dead letter depends on no other row. A job of the shadow model gets none.
    """
    analysis_id = None if claim is None else claim.analysis_id
    failures, delay_s = _next_retry(job, context)
    if delay_s is not None:
        if claim is not None:
            _release_anyway(context, claim, error)
        return Deferred(analysis_id, _class_of(error), delay_s)
    message = f"{failures} attempts failed, and the failure could not be stored: {error}"

    def keep() -> None:
        try:
            context.store.dead_letter(job.to_json(), job.job_id, Expired.error_class, message, ended_job=True)
        except DatabaseFault as refused:
            # If this row cannot be written, no row can: the operator must fix the database.
            raise DatabaseRefused(str(refused)) from refused

    if not job.shadow:
        retry_while_unavailable(context, keep)
    return Failed(analysis_id, Expired.error_class, message)


def _release_anyway(context: WorkerContext, claim: Claimed, error: Exception) -> None:
    """Release the claim, so that the attempt does not count as a crash. If that fails too, the lease expires."""
    try:
        context.store.release(claim, AttemptOutcome.TRANSIENT, _class_of(error), "the outcome could not be stored")
    except (TransientError, OperatorError) as refused:
        _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(refused))


def _shortage(error: Exception) -> OutOfMemory:
    if isinstance(error, OutOfMemory):
        return error
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return OutOfMemory(f"the worker's process ran out of memory ({cause[:300]})")


def _internal(error: Exception) -> InternalFault:
    """Not the text of the error: it may quote bytes of a recording. The log has it, with the trace."""
    trace = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(trace[-1].filename).name}:{trace[-1].lineno}" if trace else ""
    return InternalFault(f"{type(error).__name__}{where}: see the log of the worker")


def _class_of(error: Exception) -> str:
    return error.error_class if isinstance(error, TussisError) else InternalFault.error_class
