"""The JSON of the old backend's answers, from the outcome of a job. ``docs/old-backend.md`` describes the fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from tussis.shared.dsp.constants import SEGMENT_SECONDS
from tussis.shared.errors import RequestInvalid
from tussis.shared.outcomes import OutcomeAnswer, SegmentScore
from tussis.shared.uris import shown

NO_FILE: Final = "No audio file provided"
NO_COUGH: Final = "No cough pattern detected by model"
COUGH: Final = "Cough pattern detected by model"
FAILED: Final = "Failed to process audio"
CANCELLED: Final = "The recording is stored, and its analysis was cancelled by an operator"
UNANSWERED: Final = "No answer yet: the recording is stored and will be analysed. Do not send it again"
UNAVAILABLE: Final = "The service is not available: try again later"
GONE: Final = "This service detects coughs and not tuberculosis: send recordings to POST /api/detect-cough"


def old_answer(
    job_id: str, answer: OutcomeAnswer, segments: Sequence[SegmentScore], threshold: float | None
) -> dict[str, Any]:
    """The answer about a recording that was analysed.

    ``segments`` are all scored segments, at least one, in the order of their starts. ``threshold`` is that of the
    request; None means that of the model. It changes the fields ``coughDetected`` and ``threshold_used``, and what
    depends on the first. No score depends on it.
    """
    used = answer.threshold if threshold is None else threshold
    cough = answer.bag_probability > used
    probabilities = [segment.probability for segment in segments]
    fields: dict[str, Any] = {
        "coughDetected": cough,
        "confidence": answer.bag_probability,
        "file_probability": answer.bag_probability,
        "segment_probabilities": probabilities,
        "segment_timestamps": [[segment.start_s, segment.start_s + SEGMENT_SECONDS] for segment in segments],
        "num_segments": len(segments),
        "threshold_used": used,
        "max_segment_probability": max(probabilities),
        "mean_segment_probability": math.fsum(probabilities) / len(probabilities),
        "job_id": job_id,
    }
    if cough:
        about = {"model": answer.model, "profile": answer.profile, "coverage": answer.coverage}
        return fields | {"message": COUGH, "model_info": about | {"validation_auc": None, "epoch": None}}
    return fields | {"error": NO_COUGH}


def old_error(text: str, job_id: str | None = None, error_class: str | None = None) -> dict[str, Any]:
    """The body of an answer whose status is not 200."""
    known = {"error": text, "job_id": job_id, "error_class": error_class}
    return {name: value for name, value in known.items() if value is not None}


def threshold_of(form: str | None, query: str | None) -> float | None:
    """The threshold of a request: the field of the form, else the value of the query. Empty is not given.

    Raises :class:`RequestInvalid` unless it is a number from 0 to 1.
    """
    given = form or query
    if not given:
        return None
    try:
        threshold = float(given)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise RequestInvalid(f"threshold must be a number from 0 to 1, not {shown(given)}")
    return threshold
