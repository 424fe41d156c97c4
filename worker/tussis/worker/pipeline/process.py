"""One message's way, from the job to the committed result."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import torch

from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import (
    DatabaseFault,
    DatabaseRefused,
    Expired,
    InternalFault,
    ModelNotServed,
    NeedsMemory,
    OperatorError,
    OutOfMemory,
    PermanentError,
    TransientError,
    TussisError,
    WorkerCrashed,
)
from tussis.shared.messages import Job
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import records
from tussis.shared.store.records import Claimed
from tussis.worker import logs
from tussis.worker.audio.decode import decode
from tussis.worker.audio.samples import Audio
from tussis.worker.detector.detector import Scores
from tussis.worker.outcome import (
    Deferred,
    Failed,
    HandedBack,
    HeldElsewhere,
    Outcome,
    Settled,
    Stopping,
    Succeeded,
    Superseded,
)
from tussis.worker.pipeline import backoff, objects
from tussis.worker.pipeline.context import OPERATOR_PAUSE_S, Parts, Plan
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.prepare import cut_audio
from tussis.worker.pipeline.watchdog import Stages
from tussis.worker.shortage import is_shortage

_log = logs.get("pipeline")

#: Seconds that the process's own deadline leaves the download, which has a milder one of its own.
_DOWNLOAD_SLACK_S = 30.0
#: Sum of the delays, seconds, after which a recording that never finds enough memory fails; by default 12 attempts.
_SHORT_TOTAL_S = 1800.0
#: Seconds after another attempt's lease at which its question is asked again.
_AFTER_LEASE_S = 0.5


def process(job: Job, parts: Parts, handed_back: uuid.UUID | None = None) -> Outcome:
    """Analyse one job: claim, fetch, decode, segments, images, scores, one transaction.

    Every error becomes an outcome, a fault of our own making the failure ``internal``. ``handed_back`` is the token of
    the attempt before, where that one gave the message back and could not tell the store.
    """
    settings = parts.settings
    stages = Stages(parts.meter.stage)
    claim: Claimed | None = None
    try:
        plan = parts.plan(job)
        version = objects.resolve(parts.s3, job)
        request = replace(_claim_request(job, parts, plan, version), handed_back=handed_back)
        parts.run_dir.note_attempt(request.token, job.job_id)
        answer = parts.patiently(lambda: parts.store.claim(request))
        if not isinstance(answer, Claimed):
            return _no_claim(answer)
        claim = answer
        with stages.stage("fetch", settings.download_timeout_s + _DOWNLOAD_SLACK_S):
            data = objects.fetch(
                parts.s3,
                version,
                max_bytes=settings.max_bytes,
                deadline_s=settings.download_timeout_s,
                between_reads=parts.check_stop,
                verify_md5=settings.verify_md5,
            )
        parts.note_access(job, None)
        with stages.stage("decode", settings.decode_timeout_s):
            audio = decode(data, parts.limits, plan.profile.decoder)
        parts.check_stop()
        with stages.stage("preprocess", settings.decode_timeout_s), torch.inference_mode():
            cut = cut_audio(audio, plan.profile)
            inputs = parts.scorer.inputs(cut, plan.profile)
        parts.check_stop()
        with stages.stage("inference", None if parts.scorer.apart else settings.inference_timeout_s):
            scores = parts.scorer.score(inputs, alone=claim.vanished > 0)
        result = _result(parts, len(data), audio, cut, scores, stages)
        with stages.stage("commit", None):
            committed = parts.patiently(lambda: parts.store.complete(answer, result))
        return Succeeded(claim.analysis_id, cut.analyzed_s) if committed else Superseded(claim.analysis_id)
    except TussisError as error:
        # A decoder's or a model's error may come from a shortage of memory.
        reason = _shortage(error) if is_shortage(error) else error
        return _ended(job, parts, claim, lambda: _conclude(job, parts, claim, stages, reason))
    except Exception as error:
        if is_shortage(error):
            shortage = _shortage(error)
            return _ended(job, parts, claim, lambda: _conclude(job, parts, claim, stages, shortage))
        # A fault of this program: the recording fails, and does not come round for ever.
        _log.exception("internal_fault")
        fault = _internal(error)
        return _ended(job, parts, claim, lambda: _fail(job, parts, claim, stages, fault))
    finally:
        parts.run_dir.end_attempt()


def _internal(error: Exception) -> InternalFault:
    return InternalFault(f"{type(error).__name__}: {error}")


def _shortage(error: Exception) -> OutOfMemory:
    if isinstance(error, OutOfMemory):
        return error
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return OutOfMemory(f"the worker's process ran out of memory ({said[:300]})")


def _ended(job: Job, parts: Parts, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The outcome of ``end``. An end that cannot be stored does not bring the message round for ever."""
    try:
        return _unless_stopped(parts, claim, end)
    except Exception as error:
        reason = error
        _log.error("end_not_stored", error_class=_class_of(reason), exc_info=reason)
        return _unless_stopped(parts, claim, lambda: _put_aside(job, parts, claim, reason))


def _unless_stopped(parts: Parts, claim: Claimed | None, end: Callable[[], Outcome]) -> Outcome:
    """The worker may stop while an end waits for the database: then the message goes back."""
    try:
        return end()
    except Stopping as stop:
        return _hand_back(parts, claim, stop)


def _put_aside(job: Job, parts: Parts, claim: Claimed | None, error: Exception) -> Outcome:
    """Try again later, as after any transient fault; when those are used up, keep the message as a dead letter: a row
    that depends on no other one."""
    analysis_id = None if claim is None else claim.analysis_id
    failures = 1 + parts.patiently(lambda: parts.ledger.faults(job.job_id))
    base, cap, total = parts.settings.retry_base_s, parts.settings.retry_cap_s, parts.settings.retry_total_s
    if not backoff.exhausted(failures, base, cap, total):
        if claim is not None:
            _release_anyway(parts, claim, error)
        return Deferred(analysis_id, _class_of(error), backoff.delay_s(failures, base, cap))
    message = f"given up after {failures} faults; the failure cannot be stored either: {error}"

    def keep() -> None:
        try:
            parts.store.dead_letter(job.to_json(), job.job_id, Expired.error_class, message, ended_job=True)
        except DatabaseFault as refused:
            # Where not even this can be written, nothing can: that is no recording's fault.
            raise DatabaseRefused(str(refused)) from refused

    parts.patiently(keep)
    return Failed(analysis_id, Expired.error_class)


def _release_anyway(parts: Parts, claim: Claimed, error: Exception) -> None:
    """This attempt is over and is no crash. Where the store does not take that either, its lease expires."""
    try:
        parts.store.release(claim, AttemptOutcome.TRANSIENT, _class_of(error), "the end could not be stored")
    except (TransientError, OperatorError) as refused:
        _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(refused))


def _class_of(error: Exception) -> str:
    return error.error_class if isinstance(error, TussisError) else InternalFault.error_class


def _no_claim(answer: records.Settled | records.Exhausted | records.Held) -> Outcome:
    match answer:
        case records.Exhausted():
            return Failed(answer.analysis_id, WorkerCrashed.error_class)
        case records.Held():
            return HeldElsewhere(answer.analysis_id, answer.remaining_s + _AFTER_LEASE_S)
        case records.Settled():
            return Settled(answer.analysis_id, answer.state)


def _claim_request(job: Job, parts: Parts, plan: Plan, version: ObjectVersion) -> records.ClaimRequest:
    settings = parts.settings
    return records.ClaimRequest(
        job=job,
        etag=version.etag,
        version_id=version.version_id,
        size_bytes=version.size_bytes,
        model=parts.model,
        profile=plan.profile.name,
        profile_overridden=plan.overridden,
        threshold=parts.scorer.manifest.threshold,
        worker=parts.worker,
        device=parts.device.value,
        max_attempts=settings.max_attempts,
        lease_s=settings.lease_s,
        # A child has one recording at a time; who shares runs is told by the claim when it has to be alone.
        alone=not parts.scorer.apart,
    )


def _result(parts: Parts, size: int, audio: Audio, cut: Cut, scores: Scores, stages: Stages) -> records.Result:
    threshold = parts.scorer.manifest.threshold
    bag_probability = float(scores.bag_probability[0])
    return records.Result(
        size_bytes=size,
        duration_s=audio.duration_s,
        rate_hz=audio.rate_hz,
        channels=audio.channels,
        codec=audio.codec,
        container=audio.container,
        decoder=audio.decoder,
        bag_probability=bag_probability,
        bag_logit=float(scores.bag_logit[0]),
        decision=bag_probability > threshold,
        threshold=threshold,
        segments=records.SegmentScores(
            start_s=cut.start_s,
            end_s=cut.end_s,
            probability=scores.segment_probabilities[0].tolist(),
            logit=scores.segment_logits[0].tolist(),
        ),
        segments_total=cut.num_segments_total,
        analyzed_s=cut.analyzed_s,
        truncated=cut.truncated,
        timings_ms=stages.timings_ms,
    )


def _conclude(job: Job, parts: Parts, claim: Claimed | None, stages: Stages, error: TussisError) -> Outcome:
    """Turn an error into its outcome, written down where there is something to write."""
    operators = parts.note_access(job, error)
    if isinstance(error, Stopping) or operators:
        return _hand_back(parts, claim, error)
    if isinstance(error, TransientError | OperatorError):  # an operator's that concerns this recording alone passes too
        failures = 1 + parts.patiently(lambda: parts.ledger.faults(job.job_id))
        base, cap, total = parts.settings.retry_base_s, parts.settings.retry_cap_s, parts.settings.retry_total_s
        # Each attempt without memory costs a process, and its neighbours' time.
        short = isinstance(error, OutOfMemory)
        if not backoff.exhausted(failures, base, cap, min(total, _SHORT_TOTAL_S) if short else total):
            return _defer(parts, claim, error, backoff.delay_s(failures, base, cap))
        given_up = f"given up after {failures} faults, the last one: {error}"
        error = NeedsMemory(given_up) if short else Expired(given_up)
    if not isinstance(error, PermanentError):
        # Of no kind that belongs here. Raised on, it would come round for ever.
        _log.error("internal_fault", exc_info=error)
        error = _internal(error)
    return _fail(job, parts, claim, stages, error)


def _defer(parts: Parts, claim: Claimed | None, error: TussisError, delay_s: float) -> Outcome:
    if claim is not None:
        released = parts.patiently(
            lambda: parts.store.release(claim, AttemptOutcome.TRANSIENT, error.error_class, str(error))
        )
        if not released:
            return Superseded(claim.analysis_id)
    return Deferred(claim.analysis_id if claim else None, error.error_class, delay_s)


def _hand_back(parts: Parts, claim: Claimed | None, error: TussisError) -> Outcome:
    """Give the message back uncounted; after an operator's error, take no other one for a while."""
    unreleased = None
    if claim is not None:
        try:
            parts.store.release(claim, AttemptOutcome.HANDED_BACK, error.error_class, str(error))
        except (TransientError, OperatorError) as away:
            # The message carries the word to the next attempt: this one must not count as ended without one.
            unreleased = str(claim.token)
            _log.warning("release_failed", analysis_id=claim.analysis_id, reason=str(away))
    if isinstance(error, OperatorError):
        _log.error("paused", error_class=error.error_class, reason=str(error), seconds=OPERATOR_PAUSE_S)
        parts.run_dir.hold(str(error))
        try:
            parts.pause(OPERATOR_PAUSE_S)
        except Stopping:
            return HandedBack(unreleased)
        finally:
            parts.run_dir.resume()
    return HandedBack(unreleased)


def _fail(job: Job, parts: Parts, claim: Claimed | None, stages: Stages, error: PermanentError) -> Outcome:
    if claim is not None:
        written = parts.patiently(lambda: parts.store.fail(claim, error.error_class, str(error), stages.timings_ms))
        return Failed(claim.analysis_id, error.error_class) if written else Superseded(claim.analysis_id)
    # Only a model that is not served leaves the failure without one.
    served = not isinstance(error, ModelNotServed)
    profile = job.profile or parts.scorer.manifest.profile
    refusal = records.RefusalRequest(
        job=job,
        etag=job.etag or "",
        version_id=job.version_id,
        profile=profile,
        profile_overridden=profile != parts.scorer.manifest.profile,
        model=parts.model if served else None,
        model_requested=None if served else job.model,
        error_class=error.error_class,
        message=str(error),
        worker=parts.worker,
        device=parts.device.value,
    )
    answer = parts.patiently(lambda: parts.store.refuse(refusal))
    return _no_claim(answer) if isinstance(answer, records.Held) else Failed(answer, error.error_class)
