"""The processing of one job, up to the committed result."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from tussis.shared.errors import InvalidJob, WorkerCrashed
from tussis.shared.messages import Job, shadow_job
from tussis.shared.store import records
from tussis.shared.store.job_outcomes import answer_of_result
from tussis.shared.store.records import Claimed
from tussis.worker import logs
from tussis.worker.outcome import Failed, Outcome, Routed, Settled, Succeeded, Superseded
from tussis.worker.pipeline import objects
from tussis.worker.pipeline.bags import score_bags
from tussis.worker.pipeline.context import JobRules, WorkerContext
from tussis.worker.pipeline.failure_policy import end_attempt, held_elsewhere, retry_while_unavailable
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.prepare import read_recording
from tussis.worker.pipeline.result import result_of
from tussis.worker.pipeline.watchdog import Stages

_log = logs.get("pipeline")

#: Seconds from the download's own deadline, which ends the attempt, to the watchdog's, which ends the process.
_DOWNLOAD_SLACK_S = 30.0
#: The same for the decoder process: it may have to be started and ended.
JAIL_SLACK_S = 15.0


def process(job: Job, context: WorkerContext, handed_back: uuid.UUID | None = None) -> Outcome:
    """Analyse one job: claim, fetch, decode, images and scores of each bag, one transaction.

    Every error becomes an outcome. A bug in Tussis becomes the failure ``internal``. ``handed_back`` is the token of
    the previous attempt if that attempt was handed back and its release could not be stored.
    """
    settings = context.settings
    stages = Stages(context.meter.stage)
    claim: Claimed | None = None
    try:
        if job.model is not None and not context.serves(job.model):
            return Routed(job.model)
        rules = context.rules_of(job)
        version = objects.resolve(context.s3, job)
        request = replace(_claim_request(job, context, rules, version), handed_back=handed_back)
        context.run_dir.note_attempt(request.token, job.job_id)
        answer = retry_while_unavailable(context, lambda: context.store.claim(request))
        if not isinstance(answer, Claimed):
            return _no_claim(answer, job, version)
        claim = answer
        with stages.stage("fetch", settings.download_timeout_s + _DOWNLOAD_SLACK_S) as set_deadline:
            data = objects.fetch(
                context.s3,
                version,
                max_bytes=settings.max_bytes,
                deadline_s=settings.download_timeout_s,
                between_reads=lambda: _goes_on(context, set_deadline),
                verify_md5=settings.verify_md5,
            )
        context.access.granted(job)
        size = len(data)
        # The jail has the same deadline and ends before this process has to.
        decode_s = settings.decode_timeout_s + (0.0 if context.jail is None else JAIL_SLACK_S)
        with stages.stage("decode", decode_s) as set_deadline, torch.inference_mode():
            tick = partial(_goes_on, context, set_deadline)
            audio, waveform = read_recording(data, rules.profile, context.limits, tick, context.jail)
        del data  # the bytes of a long recording
        scored = score_bags(waveform, rules.coverage, claim, context, stages)
        result = result_of(
            size,
            audio,
            waveform,
            scored,
            threshold=context.scorer.manifest.threshold,
            arithmetic=context.scorer.arithmetic,
            timings_ms=stages.timings_ms,
        )
        with stages.stage("commit", None):
            committed = retry_while_unavailable(context, lambda: context.store.complete(answer, result))
        if not committed:
            return Superseded(claim.analysis_id)
        told = answer_of_result(
            result, f"{context.model.name}@{context.model.version}", rules.profile.name, rules.coverage
        )
        return Succeeded(claim.analysis_id, result.analyzed_s, told, _shadow_job(job, claim.shadow, version))
    except Exception as error:
        return end_attempt(job, context, claim, stages, error)
    finally:
        context.run_dir.end_attempt()


def _goes_on(context: WorkerContext, set_deadline: Callable[[], None]) -> None:
    """A part of a stage is done. Raises :class:`Stopping`."""
    context.check_stop()
    set_deadline()


def _claim_request(job: Job, context: WorkerContext, rules: JobRules, version: ObjectVersion) -> records.ClaimRequest:
    settings = context.settings
    return records.ClaimRequest(
        job=job,
        etag=version.etag,
        version_id=version.version_id,
        size_bytes=version.size_bytes,
        model=context.model,
        profile=rules.profile.name,
        profile_overridden=rules.profile_overridden,
        coverage=rules.coverage,
        coverage_overridden=rules.coverage_overridden,
        threshold=context.scorer.manifest.threshold,
        worker=context.worker,
        device=context.device.value,
        max_attempts=settings.max_attempts,
        lease_s=settings.lease_s,
        # A child runs one recording at a time. A remote scorer shares runs, unless the claim has vanished attempts.
        exclusive=not context.scorer.remote,
    )


def _shadow_job(job: Job, model: str | None, version: ObjectVersion) -> Job | None:
    """The job of the shadow model for the analysed content; None without a shadow model.

    None also if the storage names the content in a form that no message can have.
    """
    if model is None:
        return None
    try:
        return shadow_job(job, model, etag=version.etag, version_id=version.version_id)
    except InvalidJob:
        return None


def _no_claim(
    answer: records.Settled | records.Exhausted | records.Held | records.NotActive, job: Job, version: ObjectVersion
) -> Outcome:
    match answer:
        case records.NotActive():
            return Routed(answer.active)
        case records.Exhausted():
            return Failed(answer.analysis_id, WorkerCrashed.error_class)
        case records.Held():
            return held_elsewhere(answer)
        case records.Settled():
            return Settled(answer.analysis_id, answer.state, _shadow_job(job, answer.shadow, version))
