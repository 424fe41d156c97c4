"""The model that ships with Tussis: in the contract, what its card says it is, and awake to coughs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pack import Entry, listed
from training.card import AIMS, rendered
from training.product import score_file, score_wave
from training.results import read
from tussis.shared.dsp.profiles import DOCUMENTED
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "worker" / "tussis" / "worker" / "models" / "tussis-reference.onnx"
CARD = REPOSITORY / "docs" / "model-card.md"

#: The mean of its channels is silence; the cough comes behind the last segment that is analysed.
NOTHING_TO_HEAR = ("variant_antiphase_stereo.wav", "variant_late_cough_20s.wav")


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.set_num_threads(1)
    return Detector.load(MODEL, intra_op_threads=1)


def random_images(
    rng: np.random.Generator, batch: int, segments: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return rng.uniform(-2, 2, size=(batch, segments, 3, 224, 224)).astype(np.float32)


def test_it_is_small_and_its_manifest_is_its_own(detector: Detector) -> None:
    """``Detector.load`` has compared the SHA-256 already."""
    assert MODEL.stat().st_size <= 3_000_000
    assert detector.manifest.label == "tussis-reference@2"
    assert detector.manifest.profile == "documented"
    for source in ("covid19-cough", "CC0", "ESC-10", "CC BY 3.0", "diagnoses nothing"):
        assert source in detector.manifest.provenance


def test_neighbours_in_the_batch_change_nothing(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    images = random_images(rng, 3, 4)
    mask = np.ones((3, 4), np.bool_)
    together = detector.score(images, mask)
    for row in range(3):
        alone = detector.score(images[row : row + 1], mask[:1])
        np.testing.assert_allclose(alone.bag_logit, together.bag_logit[row : row + 1], atol=1e-4)
        np.testing.assert_allclose(alone.segment_logits, together.segment_logits[row : row + 1], atol=1e-4)


def test_masked_padding_changes_nothing(detector: Detector) -> None:
    rng = np.random.default_rng(1)
    images = random_images(rng, 1, 3)
    plain = detector.score(images, np.ones((1, 3), np.bool_))
    padding = rng.uniform(-50, 50, size=(1, 5, 3, 224, 224)).astype(np.float32)
    mask = np.array([[True] * 3 + [False] * 5])
    padded = detector.score(np.concatenate([images, padding], axis=1), mask)
    np.testing.assert_allclose(padded.bag_logit, plain.bag_logit, atol=1e-4)
    np.testing.assert_allclose(padded.segment_logits[:, :3], plain.segment_logits, atol=1e-4)


@pytest.mark.parametrize("entry", listed("formats/"))
def test_a_cough_keeps_its_decision_in_every_format(pack: Path, detector: Detector, entry: Entry) -> None:
    scored = score_file(detector, pack / entry.path, DOCUMENTED)
    assert (scored.bag > detector.manifest.threshold) == (entry.name not in NOTHING_TO_HEAR)


def test_silence_noise_and_a_tone_are_no_coughs(detector: Detector) -> None:
    rng = np.random.default_rng(2)
    seconds = np.arange(5 * 16_000) / 16_000
    sounds = {
        "silence": np.zeros(80_000),
        "noise": rng.normal(0, 0.1, 80_000),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * seconds),
    }
    for name, wave in sounds.items():
        assert score_wave(detector, wave.astype(np.float32)).bag <= detector.manifest.threshold, name


def test_the_cards_numbers_are_those_of_this_file() -> None:
    measured = read(CARD.with_suffix(".json"))
    manifest = read_manifest(MODEL)
    assert measured["model"]["sha256"] == manifest.sha256
    assert measured["model"]["threshold"] == pytest.approx(manifest.threshold, abs=1e-5)
    assert measured["split"] == "test"
    assert CARD.read_text("utf-8") == rendered(measured)


def test_the_card_says_of_every_aim_whether_it_was_reached() -> None:
    text = CARD.read_text("utf-8")
    for aim in AIMS:
        assert aim.text in text
