"""Labels stay within what Tussis knows: a metric never gets a series for what a message or a file says."""

from __future__ import annotations

import pytest

from tussis.shared.states import AnalysisState
from tussis.worker.outcome import Deferred, Failed, HandedBack, Outcome, Settled, Succeeded, Superseded
from tussis.worker.status.metrics import known_class, outcome_name


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (Succeeded(1, 2.0), "succeeded"),
        (Settled(1, AnalysisState.SUCCEEDED), "settled"),
        (Failed(1, "empty"), "failed"),
        (Superseded(1), "superseded"),
        (Deferred(None, "download_cut", 2.0), "deferred"),
        (HandedBack(), "handed_back"),
    ],
)
def test_every_outcome_has_its_name(outcome: Outcome, name: str) -> None:
    assert outcome_name(outcome) == name


def test_classes_are_those_of_our_errors_or_other() -> None:
    assert known_class(None) == ""
    assert known_class("not_audio") == "not_audio"
    assert known_class("worker_crashed") == "worker_crashed"
    assert known_class("s3://clinic/patient-1.wav") == "other"
