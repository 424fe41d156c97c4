"""An outcome becomes the old backend's JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.outcomes import an_answer
from tussis.shared.errors import RequestInvalid
from tussis.shared.outcomes import OutcomeAnswer, SegmentScore
from tussis.worker.gateway.old_answers import old_answer, old_error, threshold_of

SEGMENTS = [SegmentScore(0.0, 0.25), SegmentScore(0.5, 0.75), SegmentScore(1.0, 0.125)]


@pytest.fixture
def answer() -> OutcomeAnswer:
    return replace(an_answer(3), bag_probability=0.7, threshold=0.61)


def test_a_cough(answer: OutcomeAnswer) -> None:
    assert old_answer("id", answer, SEGMENTS, None) == {
        "coughDetected": True,
        "confidence": 0.7,
        "file_probability": 0.7,
        "segment_probabilities": [0.25, 0.75, 0.125],
        "segment_timestamps": [[0.0, 2.0], [0.5, 2.5], [1.0, 3.0]],
        "num_segments": 3,
        "threshold_used": 0.61,
        "max_segment_probability": 0.75,
        "mean_segment_probability": 0.375,
        "job_id": "id",
        "message": "Cough pattern detected by model",
        "model_info": {
            "model": "tiny@1",
            "profile": "documented",
            "coverage": "head",
            "validation_auc": None,
            "epoch": None,
        },
    }


def test_no_cough(answer: OutcomeAnswer) -> None:
    told = old_answer("id", replace(answer, bag_probability=0.5, decision=False), SEGMENTS, None)
    assert told["coughDetected"] is False
    assert told["error"] == "No cough pattern detected by model"
    assert told["file_probability"] == 0.5
    assert "message" not in told
    assert "model_info" not in told


@pytest.mark.parametrize(
    ("threshold", "cough"),
    [(None, True), (0.0, True), (0.61, True), (0.69, True), (0.7, False), (0.9, False), (1.0, False)],
)
def test_the_threshold_of_the_request_changes_the_decision_only(
    answer: OutcomeAnswer, threshold: float | None, cough: bool
) -> None:
    told = old_answer("id", answer, SEGMENTS, threshold)
    assert told["coughDetected"] is cough
    assert told["threshold_used"] == (0.61 if threshold is None else threshold)
    assert ("message" in told, "error" in told) == (cough, not cough)
    assert (told["confidence"], told["max_segment_probability"]) == (0.7, 0.75)


@pytest.mark.parametrize(
    ("form", "query", "threshold"),
    [
        (None, None, None),
        ("", "", None),
        ("0.5", None, 0.5),
        (None, "0.25", 0.25),
        ("0.5", "0.25", 0.5),
        ("", "0.25", 0.25),
        (" 1 ", None, 1.0),
        ("0", None, 0.0),
    ],
)
def test_the_form_comes_before_the_query(form: str | None, query: str | None, threshold: float | None) -> None:
    assert threshold_of(form, query) == threshold


@pytest.mark.parametrize("given", ["high", "nan", "inf", "-0.1", "1.01", "0,5"])
def test_a_wrong_threshold_is_named(given: str) -> None:
    with pytest.raises(RequestInvalid, match="threshold must be a number from 0 to 1"):
        threshold_of(given, None)


def test_an_error_has_what_is_known() -> None:
    assert old_error("why") == {"error": "why"}
    assert old_error("why", "id", "corrupt") == {"error": "why", "job_id": "id", "error_class": "corrupt"}
