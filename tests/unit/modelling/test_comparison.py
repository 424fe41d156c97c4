"""The comparison of two models: their answers, and what is summed up of them."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from tests.support.convolutional import write_convolutional
from tests.support.models import write_tiny
from tests.support.recordings import cough_like
from tests.support.sounds import wav
from tussis.shared.errors import InferenceFailed
from tussis.shared.settings import load_settings
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest, write_manifest
from tussis.worker.evaluation.flips import MostFlips
from tussis.worker.modelling import comparison, timing
from tussis.worker.modelling.comparison import (
    AnswerPair,
    ComparedModel,
    ModelAnswer,
    Refusal,
    answers_of,
    summarise,
    worst_first,
)
from tussis.worker.pipeline.analysis import Analyzer
from tussis.worker.pipeline.prepare import limits_of, read_recording

torch.set_num_threads(1)

THRESHOLD = 0.5
REFUSED = Refusal("inference_failed", "no")


def answer(probability: float, *segments: float) -> ModelAnswer:
    return ModelAnswer(probability, probability > THRESHOLD, np.array(segments or (probability,)))


def described(path: Path, **changes: Any) -> Path:
    """The model with another manifest."""
    write_manifest(path, replace(read_manifest(path), **changes))
    return path


def loaded(path: Path) -> ComparedModel:
    return ComparedModel.of(Detector.load(path, intra_op_threads=1))


@pytest.mark.parametrize("profiles", [("training", "training"), ("training", "legacy")], ids=" and ".join)
def test_each_model_answers_as_tussis_analyze_does(tmp_path: Path, profiles: tuple[str, str]) -> None:
    """Given a recording of two bags, and coverages that differ."""
    paths = (
        described(write_tiny(tmp_path), profile=profiles[0], coverage="full"),
        described(write_convolutional(tmp_path), profile=profiles[1], coverage="head", threshold=0.4),
    )
    out = io.BytesIO()
    sf.write(out, 0.1 * cough_like(20, 16_000).T, 16_000, format="WAV")
    (tmp_path / "a.wav").write_bytes(out.getvalue())
    settings = load_settings()

    found = answers_of(out.getvalue(), [loaded(path) for path in paths], limits_of(settings))

    for path, each in zip(paths, found, strict=True):
        assert isinstance(each, ModelAnswer)
        expected = Analyzer.of(Detector.load(path, intra_op_threads=1), None, None, settings, None).analyze(
            str(tmp_path / "a.wav")
        )
        assert (each.probability, each.decision) == (expected["bag_probability"], expected["decision"])
        assert each.segments.tolist() == [segment["probability"] for segment in expected["segments"]]
    assert isinstance(found[0], ModelAnswer)
    assert found[0].segments.size > 32


def test_models_of_one_profile_share_the_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(data: bytes, profile: Any, limits: Any) -> Any:
        read.append(profile.name)
        return read_recording(data, profile, limits)

    monkeypatch.setattr(comparison, "read_recording", counting)
    models = [loaded(write_tiny(tmp_path)), loaded(write_convolutional(tmp_path))]

    answers_of(wav(1), models, limits_of(load_settings()))
    assert read == ["documented"]


def test_a_recording_that_cannot_be_decoded_has_no_answer(tmp_path: Path) -> None:
    models = [loaded(write_tiny(tmp_path)), loaded(write_convolutional(tmp_path))]

    a, b = answers_of(b"no audio", models, limits_of(load_settings()))

    assert isinstance(a, Refusal)
    assert a == b


def test_a_model_that_fails_leaves_the_other_s_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [loaded(write_tiny(tmp_path)), loaded(write_convolutional(tmp_path))]

    def fails(*_: object) -> None:
        raise InferenceFailed("NaN")

    monkeypatch.setattr(models[1].detector, "score", fails)

    a, b = answers_of(wav(1), models, limits_of(load_settings()))

    assert isinstance(a, ModelAnswer)
    assert b == Refusal("inference_failed", "NaN")


def test_the_summary_counts_and_measures() -> None:
    pairs = [
        AnswerPair("same", answer(0.6, 0.1, 0.2), answer(0.6, 0.1, 0.2)),
        AnswerPair("to cough", answer(0.4, 0.1), answer(0.7, 0.3, 0.9)),  # another tail rule: one segment more
        AnswerPair("to no cough", answer(0.9), answer(0.1)),
        AnswerPair("only a", answer(0.9), REFUSED),
    ]

    found = summarise(pairs)

    assert (found.recordings, found.coughs) == (4, (3, 2))
    assert (found.to_cough, found.to_no_cough, found.only, found.flips) == (1, 1, (1, 0), 3)
    assert found.bags is not None
    assert found.bags.mean == pytest.approx((0 + 0.3 + 0.8) / 3)
    assert found.bags.largest == pytest.approx(0.8)
    assert found.segments is not None
    assert found.segments.mean == pytest.approx((0 + 0 + 0.2 + 0.8) / 4)
    assert 3 / 4 < found.flips_limit < 1


def test_at_most_5_percent_of_the_shifts_are_above_p95() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 19, 20, 21, 100, 333):
        shifts = rng.uniform(-0.4, 0.4, count)
        pairs = [AnswerPair(str(index), answer(0.5), answer(0.5 + shift)) for index, shift in enumerate(shifts)]

        found = summarise(pairs).bags

        assert found is not None
        assert sum(np.abs(shifts) > found.p95 + 1e-12) <= 0.05 * count
        assert np.isclose(np.abs(shifts), found.p95).any()


def test_without_two_answers_there_are_no_shifts() -> None:
    found = summarise([AnswerPair("a", REFUSED, answer(0.9))])

    assert (found.bags, found.segments, found.only, found.flips) == (None, None, (0, 1), 1)
    assert found.flips_limit == 1


def test_the_worst_recordings_are_first() -> None:
    pairs = [
        AnswerPair("b", answer(0.1), answer(0.2)),
        AnswerPair("large shift", answer(0.6), answer(0.99)),
        AnswerPair("small flip", answer(0.49), answer(0.51)),
        AnswerPair("large flip", answer(0.9), answer(0.1)),
        AnswerPair("failed", REFUSED, answer(0.1)),
        AnswerPair("a", answer(0.2), answer(0.1)),
    ]

    assert [pair.source for pair in worst_first(pairs)] == [
        "failed",
        "large flip",
        "small flip",
        "large shift",
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("text", "flips", "recordings", "admitted"),
    [
        ("0", 0, 10, True),
        ("0", 1, 10, False),
        ("3", 3, 10, True),
        ("3", 4, 10_000, False),
        ("0.5%", 1, 200, True),
        ("0.5%", 1, 199, False),
        ("0.5 %", 5, 1000, True),
        ("0.57%", 57, 10_000, True),  # 0.57 * 10_000 is below 5700 in floating point
        ("100%", 7, 7, True),
    ],
)
def test_the_limit_is_a_number_or_a_share(text: str, flips: int, recordings: int, admitted: bool) -> None:
    assert MostFlips.parse(text).admits(flips, recordings) is admitted


@pytest.mark.parametrize("text", ["", "few", "-1", "0.5", "101%", "1e3", "nan"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"5 or 0\.5%"):
        MostFlips.parse(text)


class Timed:
    """A model whose run takes a known time of the test's clock."""

    def __init__(self, name: str, takes_s: float, clock: list[float], calls: list[str]) -> None:
        self.name, self.takes_s, self.clock, self.calls = name, takes_s, clock, calls

    def score(self, *_: object) -> None:
        self.clock[0] += self.takes_s
        self.calls.append(self.name)


def test_the_speed_is_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], list[str]()
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    a, b = (Timed(name, takes, clock, calls) for name, takes in (("a", 0.8), ("b", 0.2)))

    found = timing.speed_of(a, b)  # type: ignore[arg-type]

    assert list(found.segment_ms) == pytest.approx([200, 50])
    assert found.ratio == pytest.approx(4)
    # Two runs before the rounds, then the order changes from round to round.
    assert "".join(calls) == "abab" + "abba" * 2 + "ab"


def test_a_fast_model_runs_often_enough_to_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], list[str]()
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    a, b = (Timed(name, takes, clock, calls) for name, takes in (("a", 0.01), ("b", 0.03)))

    found = timing.speed_of(a, b)  # type: ignore[arg-type]

    assert calls.count("a") == 2 + timing.ROUNDS * 10
    assert found.ratio == pytest.approx(1 / 3)
