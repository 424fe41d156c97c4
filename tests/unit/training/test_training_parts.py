"""The parts of the training that a wrong model would not betray: labels, alignment, leaks, measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training import batches, fit, scenes, sounds, speech, trials
from training.cache import COUGH, NO_COUGH, UNCERTAIN, Scenes, plain_images, segment_labels
from training.codecs import CODECS, Codec, round_trip
from training.events import spans
from training.heads import long_bags
from training.network import stretched
from training.pack import Wave
from training.probes import loudest
from tussis.shared.dsp.constants import CONTENT_ROWS, MARGIN_ROWS
from tussis.shared.dsp.images import letterboxed
from tussis.worker.evaluation import measures

RATE = 16_000


def burst(rng: np.random.Generator, length_s: float = 0.3) -> Wave:
    """Noise below 2 kHz that rises at once and decays."""
    length = int(length_s * RATE)
    noise = np.convolve(rng.normal(size=length), np.ones(8) / 8, mode="same")
    shaped: Wave = (noise / np.abs(noise).max() * np.exp(-np.arange(length) / length * 3)).astype(np.float32)
    return shaped


def recording(rng: np.random.Generator, at_s: float = 1.0, length_s: float = 3.0) -> Wave:
    """One burst over a noise floor at -60 dB."""
    wave = rng.normal(0, 0.0003, int(length_s * RATE)).astype(np.float32)
    part = burst(rng)
    start = int(at_s * RATE)
    wave[start : start + part.shape[0]] += part
    return wave


def test_an_event_is_found_where_it_is() -> None:
    found = spans(recording(np.random.default_rng(0)))
    assert len(found.events) == 1
    start, end = found.events[0]
    assert start == pytest.approx(1.0, abs=0.03)
    assert 1.1 < end <= 1.33
    assert any(begin < 0.2 and finish > 0.6 for begin, finish in found.quiet)


def test_silence_has_no_event() -> None:
    assert spans(np.zeros(RATE, np.float32)).events == ()


def test_the_cropped_probe_holds_the_event() -> None:
    wave = recording(np.random.default_rng(0))
    probe = loudest(wave)
    assert probe.shape[0] == int(0.46 * RATE)
    assert np.square(probe).sum() > 0.95 * np.square(wave).sum()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.rate_hz}-{codec.bit_rate}")
def test_a_codec_keeps_length_and_time(codec: Codec) -> None:
    wave = recording(np.random.default_rng(1), at_s=0.7, length_s=2.0)
    coded = round_trip(wave, codec)
    assert coded.shape == wave.shape
    assert coded.dtype == np.float32
    # Speech codecs keep no waveform; the place of the energy is what the labels rest on.
    blocks = np.square(coded).reshape(-1, 800).sum(axis=1)
    assert 13 <= int(blocks.argmax()) <= 15


def test_a_segment_is_labelled_by_what_of_the_cough_it_holds() -> None:
    labels = segment_labels(6, coughs=((2.1, 2.5),), uncertain=((0.0, 0.1),))
    # Segments begin 0.5 s apart: the first one ends at 2.0, before the cough; it holds the uncertain part.
    assert labels.tolist() == [UNCERTAIN, COUGH, COUGH, COUGH, COUGH, UNCERTAIN]
    assert segment_labels(2, (), ()).tolist() == [NO_COUGH, NO_COUGH]


def test_a_cough_is_labelled_in_some_segment_however_short() -> None:
    assert COUGH in segment_labels(1, coughs=((0.0, 0.03),), uncertain=())


def toy_material(rng: np.random.Generator) -> scenes.Material:
    def sound(kind: str) -> scenes.Sound:
        wave = recording(rng, at_s=rng.uniform(0.2, 2.0))
        return scenes.Sound(wave, spans(wave), kind)

    return scenes.Material(
        coughs=tuple(sound("cough") for _ in range(4)),
        backgrounds=tuple(sound("dog_bark") for _ in range(4)),
        speech=tuple(sound("speech") for _ in range(2)),
    )


def test_the_class_does_not_show_in_length_level_or_silence() -> None:
    """With the same sounds as coughs and as others, nothing that a leak could use tells the classes apart."""
    material = toy_material(np.random.default_rng(2))
    drawn = [scenes.draw(material, np.random.default_rng([3, index])) for index in range(400)]
    truth = np.array([scene.is_cough for scene in drawn])
    assert 0.4 < truth.mean() < 0.6
    features = {
        "length": [scene.wave.shape[0] for scene in drawn],
        "peak": [float(np.abs(scene.wave).max()) for scene in drawn],
        "silence": [float((scene.wave == 0).mean()) for scene in drawn],
        "lead": [int(np.argmax(scene.wave != 0)) for scene in drawn],
    }
    for name, values in features.items():
        # 0.08 is 2.7 standard deviations of this AUROC at 400 scenes.
        assert abs(measures.auroc(truth, np.array(values, np.float64)) - 0.5) < 0.08, name


def test_scenes_repeat_with_their_seed() -> None:
    material = toy_material(np.random.default_rng(2))
    one, two = (scenes.draw(material, np.random.default_rng(11)) for _ in range(2))
    np.testing.assert_array_equal(one.wave, two.wave)
    assert one.coughs == two.coughs


def test_training_sees_the_contracts_image() -> None:
    plain = plain_images(recording(np.random.default_rng(4)))
    assert plain.shape == (6, 160, 201)
    inside = letterboxed(plain)[:, MARGIN_ROWS : MARGIN_ROWS + CONTENT_ROWS]
    torch.testing.assert_close(stretched(plain), inside, rtol=0, atol=1e-6)


def test_a_mixture_has_its_ratio_and_its_place() -> None:
    rng = np.random.default_rng(5)
    cough = recording(rng)
    background = rng.normal(0, 0.1, 5 * RATE).astype(np.float32)
    wave, (start, end) = trials.mixture(cough, background, 10.0, np.random.default_rng(6))
    assert wave.shape[0] == 8 * RATE
    inside = wave[int(start * RATE) : int(end * RATE)]
    outside = np.concatenate([wave[: int(start * RATE)], wave[int(end * RATE) :]])
    # The background is in both; its joins are faded, so the ratio is not exact.
    assert 10 * np.log10(np.square(inside).mean() / np.square(outside).mean()) == pytest.approx(10.4, abs=0.7)


def test_neighbouring_alarms_are_one() -> None:
    assert trials.merged([True, True, False, True, False, False, True]) == 3
    assert trials.merged([False]) == 0


def test_auroc_of_known_scores() -> None:
    truth = np.array([True, True, False, False])
    assert measures.auroc(truth, np.array([4.0, 3.0, 2.0, 1.0])) == 1.0
    assert measures.auroc(truth, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5
    assert measures.auroc(truth, np.array([4.0, 1.5, 2.0, 1.0])) == 0.75
    interval = measures.auroc_interval(truth, np.array([4.0, 1.5, 2.0, 1.0]), draws=200)
    assert interval.low <= interval.value <= interval.high


def test_poisson_interval_of_known_counts() -> None:
    # Garwood's exact limits as tables give them: 0: 3.689; 10: 4.795 to 18.390.
    none, ten = measures.rate(0, 1.0), measures.rate(10, 2.0)
    assert none.low == 0.0
    assert none.high == pytest.approx(3.689, abs=1e-3)
    assert ten.value == 5.0
    assert ten.low == pytest.approx(2.398, abs=1e-3)
    assert ten.high == pytest.approx(9.195, abs=1e-3)


def test_wilsons_interval() -> None:
    half = measures.share(np.array([True] * 5 + [False] * 5))
    assert half.low == pytest.approx(0.2366, abs=1e-3)
    assert half.high == pytest.approx(0.7634, abs=1e-3)


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    assert measures.temperature(truth, 3 * logits) == pytest.approx(3.0, rel=0.08)
    honest = measures.calibration_error(truth, 1 / (1 + np.exp(-logits)))
    assert honest < 0.02 < measures.calibration_error(truth, 1 / (1 + np.exp(-3 * logits)))


def test_average_precision_of_known_scores() -> None:
    truth = np.array([True, False, True, False])
    assert measures.average_precision(truth, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("formula", list(dict.fromkeys([*sounds.SHORT, *sounds.KINDS])))
def test_a_formula_gives_sound(formula: sounds.Formula) -> None:
    for seed in range(5):
        wave = formula(np.random.default_rng(seed))
        assert wave.dtype == np.float32
        assert np.abs(wave).max() == pytest.approx(1.0, abs=1e-3)


def test_nobody_speaks_in_train_and_in_val() -> None:
    for train, val in (
        (speech.TRAIN_VOICES.variants, speech.VAL_VOICES.variants),
        (speech.TRAIN_VOICES.flite, speech.VAL_VOICES.flite),
        (speech.TRAIN_VOICES.festival, speech.VAL_VOICES.festival),
    ):
        assert val
        assert not set(train) & set(val)


def test_an_epoch_takes_the_worst_mistaken_backgrounds_and_no_particular_coughs() -> None:
    truth = np.arange(200) < 100
    mistakes = np.arange(200, dtype=np.float32)
    taken = np.zeros(200)
    for epoch in range(50):
        order = batches.order_of(truth, mistakes, np.random.default_rng(epoch))
        assert order.size == len(set(order.tolist())) == 100
        assert int(truth[order].sum()) == 50
        taken[order] += 1
    assert (taken[180:] == 50).all(), "the worst fifth of those without a cough, every time"
    assert 10 < taken[100:180].mean() < 28
    assert abs(taken[:50].mean() - taken[50:100].mean()) < 5


def test_a_cough_that_cannot_be_heard_teaches_little() -> None:
    """Some "coughs" of the pack are speech or breath."""
    logits = torch.tensor([-6.0], requires_grad=True)
    gradients = []
    for truth in (True, False):
        sign = 1.0 if truth else -1.0
        loss = fit.mistake(sign * logits, torch.tensor([truth]), fit.Plan()).sum()
        gradients.append(float(torch.autograd.grad(loss, logits)[0].abs()))
    assert gradients[0] < 0.25 * gradients[1]


def test_long_recordings_are_several_scenes_with_the_labels_of_their_segments() -> None:
    counts = np.array([3, 8, 1, 20])
    labels = np.zeros(32, np.int8)
    labels[4] = COUGH  # in the second scene
    kept = Scenes(np.zeros((32, 1, 1), np.uint8), labels, counts)
    rows, given, mask = long_bags(kept, 40, np.random.default_rng(0))
    assert mask.shape[1] <= 32
    assert int(mask.sum()) == rows.size
    np.testing.assert_array_equal(given[mask].numpy(), labels[rows])
    assert (given[~mask] == UNCERTAIN).all()
    assert int(mask.sum(dim=1).max()) > 20, "some are longer than any scene"


def test_a_scene_beneath_adds_its_power_and_silence_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "OVER_ANOTHER", 1.0)
    monkeypatch.setattr(batches, "WEAKER_DB", (-10.0, -10.0))
    stored = np.zeros((2, 4, 4), np.uint8)
    stored[1, :, 2:] = 255  # 80 dB above the floor in half of the frames; 70 when it lies beneath
    kept = Scenes(stored, np.zeros(2, np.int8), np.array([1, 1]))
    images = torch.full((1, 4, 4), 0.75)  # 70 dB above the floor
    batches.over_others(images, np.array([1]), kept, np.array([1]), np.random.default_rng(0))
    torch.testing.assert_close(images[0, :, :2], torch.full((4, 2), 0.75))
    torch.testing.assert_close(images[0, :, 2:], torch.full((4, 2), 0.75 + 10 * np.log10(2) / 40), rtol=0, atol=1e-4)
