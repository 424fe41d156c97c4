"""The processing of one job, up to the committed result."""

from __future__ import annotations

import uuid
from dataclasses import replace

import torch

from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import (
    WorkerCrashed,
)
from tussis.shared.messages import Job
from tussis.shared.store import records
from tussis.shared.store.records import Claimed
from tussis.worker import logs
from tussis.worker.audio.decode import decode
from tussis.worker.audio.samples import Audio
from tussis.worker.detector.detector import Scores
from tussis.worker.outcome import Failed, Outcome, Settled, Succeeded, Superseded
from tussis.worker.pipeline import objects
from tussis.worker.pipeline.context import JobProfile, WorkerContext
from tussis.worker.pipeline.failure_policy import end_attempt, held_elsewhere, retry_while_unavailable
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.prepare import cut_audio
from tussis.worker.pipeline.watchdog import Stages

_log = logs.get("pipeline")

#: Seconds from the download's own deadline, which ends the attempt, to the watchdog's, which ends the process.
_DOWNLOAD_SLACK_S = 30.0


def process(job: Job, context: WorkerContext, handed_back: uuid.UUID | None = None) -> Outcome:
    """Analyse one job: claim, fetch, decode, segments, images, scores, one transaction.

    Every error becomes an outcome. A bug in Tussis becomes the failure ``internal``. ``handed_back`` is the token of
    the previous attempt if that attempt was handed back and its release could not be stored.
    """
    settings = context.settings
    stages = Stages(context.meter.stage)
    claim: Claimed | None = None
    try:
        chosen = context.profile_of(job)
        version = objects.resolve(context.s3, job)
        request = replace(_claim_request(job, context, chosen, version), handed_back=handed_back)
        context.run_dir.note_attempt(request.token, job.job_id)
        answer = retry_while_unavailable(context, lambda: context.store.claim(request))
        if not isinstance(answer, Claimed):
            return _no_claim(answer)
        claim = answer
        with stages.stage("fetch", settings.download_timeout_s + _DOWNLOAD_SLACK_S):
            data = objects.fetch(
                context.s3,
                version,
                max_bytes=settings.max_bytes,
                deadline_s=settings.download_timeout_s,
                between_reads=context.check_stop,
                verify_md5=settings.verify_md5,
            )
        context.access.granted(job)
        with stages.stage("decode", settings.decode_timeout_s):
            audio = decode(data, context.limits, chosen.profile.decoder)
        context.check_stop()
        with stages.stage("preprocess", settings.decode_timeout_s), torch.inference_mode():
            cut = cut_audio(audio, chosen.profile)
            inputs = context.scorer.inputs(cut, chosen.profile)
        context.check_stop()
        with stages.stage("inference", None if context.scorer.remote else settings.inference_timeout_s):
            scores = context.scorer.score(inputs, exclusive=claim.vanished > 0)
        result = _result(context, len(data), audio, cut, scores, stages)
        with stages.stage("commit", None):
            committed = retry_while_unavailable(context, lambda: context.store.complete(answer, result))
        return Succeeded(claim.analysis_id, cut.analyzed_s) if committed else Superseded(claim.analysis_id)
    except Exception as error:
        return end_attempt(job, context, claim, stages, error)
    finally:
        context.run_dir.end_attempt()


def _claim_request(
    job: Job, context: WorkerContext, chosen: JobProfile, version: ObjectVersion
) -> records.ClaimRequest:
    settings = context.settings
    return records.ClaimRequest(
        job=job,
        etag=version.etag,
        version_id=version.version_id,
        size_bytes=version.size_bytes,
        model=context.model,
        profile=chosen.profile.name,
        profile_overridden=chosen.overridden,
        threshold=context.scorer.manifest.threshold,
        worker=context.worker,
        device=context.device.value,
        max_attempts=settings.max_attempts,
        lease_s=settings.lease_s,
        # A child runs one recording at a time. A remote scorer shares runs, unless the claim has vanished attempts.
        exclusive=not context.scorer.remote,
    )


def _result(
    context: WorkerContext, size: int, audio: Audio, cut: Cut, scores: Scores, stages: Stages
) -> records.Result:
    threshold = context.scorer.manifest.threshold
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


def _no_claim(answer: records.Settled | records.Exhausted | records.Held) -> Outcome:
    match answer:
        case records.Exhausted():
            return Failed(answer.analysis_id, WorkerCrashed.error_class)
        case records.Held():
            return held_elsewhere(answer)
        case records.Settled():
            return Settled(answer.analysis_id, answer.state)
