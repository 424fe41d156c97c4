"""The answers under variants: against the plain reference, and each different stack of images scored once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import reference as plain
from tests.support.audits import RATE, bursts, wav_of, wav_of_integers
from tests.support.encoding import encoded
from tests.support.recordings import Floats, cough_like, quantised
from tests.support.reference import Rules, from_integers, legacy_from_pydub, reference
from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import DOCUMENTED, LEGACY, TRAINING, Profile
from tussis.worker.audio.limits import Limits
from tussis.worker.audit.answers import RecordingAnswers, VariantAnswer
from tussis.worker.audit.variants import Factor, changed
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.modelling.comparison import Refusal

#: Factor changed in `documented` -> the rules of the reference.
SINGLE = {
    Factor.NORMALISE: (LEGACY, Rules(peak=False, highpass=True, pad_tail=True, float16=False)),
    Factor.HIGHPASS: (LEGACY, Rules(peak=True, highpass=False, pad_tail=True, float16=False)),
    Factor.TAIL: (TRAINING, Rules(peak=True, highpass=True, pad_tail=False, float16=False)),
    Factor.PRECISION: (TRAINING, Rules(peak=True, highpass=True, pad_tail=True, float16=True)),
}


class Counting(Detector):
    """Counts its runs."""

    runs = 0

    def score(self, spectrograms: Floats, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Scores:
        self.runs += 1
        return super().score(spectrograms, mask)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def detector(tiny_model: Path) -> Counting:
    found = Counting.load(tiny_model, intra_op_threads=1)
    assert isinstance(found, Counting)
    return found


def only(answers: list[VariantAnswer | Refusal]) -> list[VariantAnswer]:
    assert not [answer for answer in answers if isinstance(answer, Refusal)]
    return [answer for answer in answers if isinstance(answer, VariantAnswer)]


def answers_of(
    data: bytes, detector: Detector, *variants: Profile, coverage: Coverage = Coverage.HEAD
) -> list[VariantAnswer]:
    return only(RecordingAnswers(data, DOCUMENTED, detector, Limits()).under(variants, coverage))


@pytest.mark.parametrize("factor", SINGLE)
@pytest.mark.parametrize("seconds", [0.7, 2.0, 3.3])
def test_one_factor_gives_the_images_and_the_answer_of_the_reference(
    factor: Factor, seconds: float, detector: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 22_050
    integers = quantised(cough_like(seconds, rate, channels=2), 2)
    samples = from_integers(integers, 16)
    other, rules = SINGLE[factor]
    monkeypatch.setitem(plain.RULES, factor, rules)
    own, expected = reference(samples, rate, "documented"), reference(samples, rate, factor)
    rounded = expected.plain.astype(np.float16).astype(np.float32) if rules.float16 else expected.plain
    common = min(len(own.plain), len(rounded))
    gaps = np.abs(rounded[:common].astype(np.float64) - own.plain[:common])
    scores = detector.score(expected.spectrograms, expected.segment_mask)

    _, answer = answers_of(
        wav_of_integers(integers, 2, rate), detector, DOCUMENTED, changed(DOCUMENTED, other, [factor])
    )

    assert answer.distance.mean == pytest.approx(gaps.mean(), abs=1e-5)
    assert answer.distance.largest == pytest.approx(gaps.max(), abs=1e-3)
    assert answer.distance.segments == common
    assert answer.probability == pytest.approx(float(scores.bag_probability[0]), abs=1e-4)
    assert answer.segments == pytest.approx(scores.segment_probabilities[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("width", [1, 2])
def test_legacy_gives_the_answer_of_the_old_backend(width: int, detector: Counting) -> None:
    integers = quantised(bursts(2.6, peak=0.3), width)
    centred = integers[0].astype(np.int32) - (128 if width == 1 else 0)
    expected = reference(legacy_from_pydub(centred, width)[np.newaxis], RATE, "legacy")
    scores = detector.score(expected.spectrograms, expected.segment_mask)

    own, legacy = answers_of(wav_of_integers(integers, width), detector, DOCUMENTED, LEGACY)

    assert legacy.probability == pytest.approx(float(scores.bag_probability[0]), abs=1e-5)
    assert legacy.segments == pytest.approx(scores.segment_probabilities[0].tolist(), abs=1e-5)
    assert legacy.distance.largest > 0.1
    assert own.distance.mean == own.distance.largest == 0.0


def test_equal_images_are_scored_once(detector: Counting) -> None:
    """A 16-bit file in one channel has the same samples from both decoders, and this one has full scale as its peak."""
    samples = bursts(2.4)
    samples[0, np.abs(samples[0]).argmax()] = -1.0
    recording = RecordingAnswers(wav_of(samples), DOCUMENTED, detector, Limits())

    variants = [changed(DOCUMENTED, LEGACY, [factor]) for factor in (Factor.DECODER, Factor.NORMALISE)]
    own, *others = only(recording.under([DOCUMENTED, *variants], Coverage.HEAD))
    (again,) = only(recording.under([DOCUMENTED], Coverage.HEAD))

    assert detector.runs == recording.scored_variants == 1
    assert [other.probability for other in others] == [own.probability] * 2
    assert [other.distance.largest for other in others] == [0.0, 0.0]
    assert again == own
    recording.under([changed(DOCUMENTED, LEGACY, [Factor.HIGHPASS])], Coverage.HEAD)
    assert detector.runs == recording.scored_variants == 2


def test_silence_is_scored_once_for_each_number_of_segments(detector: Counting) -> None:
    recording = RecordingAnswers(wav_of(np.zeros((1, 40_000), np.float32)), DOCUMENTED, detector, Limits())

    _, training, legacy = only(recording.under([DOCUMENTED, TRAINING, LEGACY], Coverage.HEAD))

    assert detector.runs == 2  # 5 segments, and 2 of them complete
    assert training.distance.largest == legacy.distance.largest == 0.0
    assert (len(training.segments), len(legacy.segments)) == (2, 5)


def test_full_coverage_scores_every_bag_and_contains_the_head(detector: Counting) -> None:
    data = wav_of(bursts(40.0, seed=3))

    whole = answers_of(data, detector, DOCUMENTED, TRAINING, coverage=Coverage.FULL)
    head = answers_of(data, detector, DOCUMENTED, TRAINING)

    assert [len(answer.bags) for answer in whole] == [3, 3]
    assert [len(answer.segments) for answer in whole] == [80, 77]
    for full, first in zip(whole, head, strict=True):
        assert full.probability == max(full.bags)
        assert full.covering(Coverage.HEAD).probability == first.probability == full.bags[0]
        assert full.covering(Coverage.HEAD).segments == first.segments
    assert whole[1].distance.segments == 77


def test_a_variant_that_cannot_read_a_recording_leaves_the_others(detector: Counting) -> None:
    """pydub cannot mix three channels at full scale."""
    loud = np.full((3, 36_000), -32_768, np.int16)
    answers = RecordingAnswers(wav_of_integers(loud, 2), DOCUMENTED, detector, Limits()).under(
        [DOCUMENTED, LEGACY, TRAINING], Coverage.HEAD
    )

    assert isinstance(answers[0], VariantAnswer)
    assert isinstance(answers[1], Refusal)
    assert answers[1].error_class == "codec_unsupported"
    assert isinstance(answers[2], VariantAnswer)


def test_a_lossy_recording_differs_between_the_decoders(detector: Counting) -> None:
    data = encoded(bursts(2.0, peak=0.5), RATE, "mp3", "libmp3lame")

    _, other = answers_of(data, detector, DOCUMENTED, changed(DOCUMENTED, LEGACY, [Factor.DECODER]))

    assert 0 < other.distance.mean < 0.2


def test_a_streamed_recording_keeps_its_level_without_the_division_by_the_peak(detector: Counting) -> None:
    """A recording that is too long to be held decoded has the answers of one that is held."""
    data = wav_of(bursts(21.0, peak=0.1, rumble=0.05))
    held, streamed = Limits(), Limits(whole_bytes=100_000)
    variants = [DOCUMENTED, *(changed(DOCUMENTED, LEGACY, [factor]) for factor in (Factor.NORMALISE, Factor.HIGHPASS))]

    for whole, part in zip(
        only(RecordingAnswers(data, DOCUMENTED, detector, held).under(variants, Coverage.FULL)),
        only(RecordingAnswers(data, DOCUMENTED, detector, streamed).under(variants, Coverage.FULL)),
        strict=True,
    ):
        assert part.bags == pytest.approx(whole.bags, abs=1e-3)
        assert part.distance.mean == pytest.approx(whole.distance.mean, abs=1e-4)
