"""The picture of one analysis."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.support.reports import a_sound, an_analysis, some_evidence
from tussis.worker.report.evidence import Evidence
from tussis.worker.report.still import WIDTH, still


def drawn(evidence: Evidence) -> np.ndarray:
    picture = Image.open(io.BytesIO(still(evidence)))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int)


def share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture - colour).sum(axis=2) == 0).mean())


def test_the_pictures_are_there() -> None:
    picture = drawn(some_evidence(sound=a_sound()))

    assert picture.shape[1] == WIDTH
    assert share(picture, (9, 105, 218)) > 0.005  # waveform and scores
    assert share(picture, (245, 183, 177)) > 0.01  # the cough event
    assert share(picture, (252, 255, 164)) > 0.001  # the loudest places of the mel image


def test_without_the_sound_it_is_lower() -> None:
    whole, without = drawn(some_evidence(sound=a_sound())), drawn(some_evidence())

    assert without.shape[0] < whole.shape[0] - 300
    assert share(without, (245, 183, 177)) > 0.01


def test_a_failure_and_long_texts_of_any_script() -> None:
    failed = an_analysis(1, None, key="咳嗽/" * 80 + "\u202e\n.wav", error_message="x" * 2_000)
    picture = drawn(some_evidence(failed, segments=(), events=()))

    assert picture.shape[0] < 1_500
