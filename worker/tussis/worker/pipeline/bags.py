"""Scores the bags of a recording in order, and keeps the finished bags of a long one until its result is stored."""

from __future__ import annotations

import time
from typing import Final

import torch

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.recording import Waveform
from tussis.shared.errors import OperatorError, TransientError
from tussis.shared.store.records import Claimed
from tussis.worker import logs
from tussis.worker.outcome import Stopping
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.scored import ScoredBags
from tussis.worker.pipeline.watchdog import Stages

_log = logs.get("pipeline")

SAVE_EVERY_S: Final = 5.0
"""Seconds between two savings of the finished bags: the most work on them that a crash can lose."""


def score_bags(
    waveform: Waveform, coverage: Coverage, claim: Claimed, context: WorkerContext, stages: Stages
) -> ScoredBags:
    """Score the first bag (coverage ``head``) or all bags, one after the other.

    The finished bags are saved every :data:`SAVE_EVERY_S` seconds and when the worker stops, and the next attempt
    continues after them. Raises what the scorer raises, and :class:`Stopping`.
    """
    scored = ScoredBags.of(waveform, coverage)
    if scored.num_bags > 1 and claim.number > 1:
        scored.resume(context.store.bag_progress(claim.analysis_id))
    saved_at = time.monotonic()
    try:
        while not scored.complete:
            _score_next(scored, waveform, claim, context, stages)
            if not scored.complete and time.monotonic() - saved_at > SAVE_EVERY_S:
                _save(scored, claim, context)
                saved_at = time.monotonic()
    except Stopping:
        if len(scored) > 0:
            _save(scored, claim, context)
        raise
    return scored


def _score_next(scored: ScoredBags, waveform: Waveform, claim: Claimed, context: WorkerContext, stages: Stages) -> None:
    settings, scorer = context.settings, context.scorer
    context.check_stop()
    with stages.stage("preprocess", settings.decode_timeout_s), torch.inference_mode():
        inputs = scorer.inputs(waveform.bag(len(scored)), waveform.profile)
    context.check_stop()
    with stages.stage("inference", None if scorer.remote else settings.inference_timeout_s):
        scored.add(scorer.score(inputs, exclusive=claim.vanished > 0))


def _save(scored: ScoredBags, claim: Claimed, context: WorkerContext) -> None:
    """Save the finished bags. Without the database they are only in memory, which is no reason to end the attempt."""
    try:
        context.store.save_bag_progress(claim, scored.to_progress())
    except (TransientError, OperatorError) as error:
        _log.warning("progress_not_saved", error_class=error.error_class, reason=str(error))
