"""The export: the ONNX file answers as torch does, and a random model answers differently for different sounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.support.models import RESNET_SEED, images, kept
from tests.unit.device.test_device_engine import answers, arguments
from tussis.shared.errors import ModelRefused, OutputUnwritable
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest, sha256_of
from tussis.worker.detector.probe import probe
from tussis.worker.device.engine import Engine, noise
from tussis.worker.modelling import calibrate
from tussis.worker.modelling import export as exporting
from tussis.worker.modelling.architecture import CoughNet

THRESHOLD_LOGIT = math.log(0.61 / 0.39)


@pytest.fixture(scope="module")
def detector(random_resnet: Path) -> Detector:
    return Detector.load(random_resnet, intra_op_threads=1)


def test_the_random_model_s_manifest_says_what_it_is(random_resnet: Path) -> None:
    manifest = read_manifest(random_resnet)

    assert manifest.label == f"random-resnet18@{RESNET_SEED}"
    assert (manifest.profile, manifest.threshold) == ("documented", 0.61)
    assert "Detects nothing" in manifest.provenance
    assert manifest.sha256 == sha256_of(random_resnet.read_bytes())


def test_a_batch_with_masked_padding_gets_torch_s_logits(detector: Detector, resnet_network: CoughNet) -> None:
    spectrograms, mask = images(2, 3), kept([1, 1, 1], [1, 0, 1])

    found = detector.score(spectrograms, mask)
    with torch.inference_mode():
        expected = resnet_network(torch.from_numpy(spectrograms), torch.from_numpy(mask))

    np.testing.assert_allclose(found.bag_logit, expected.bag_logit.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.segment_logits[mask], expected.segment_logits.numpy()[mask], atol=1e-4)
    np.testing.assert_allclose(found.bag_probability, expected.bag_probability.numpy(), atol=1e-5)


def test_neighbours_and_padding_change_nothing(detector: Detector) -> None:
    found = probe(detector)

    assert found.neighbour_shift < 1e-4
    assert found.padding_shift < 1e-4


def test_decisions_differ_between_sounds_that_it_was_not_calibrated_on(detector: Detector) -> None:
    """Given 24 new synthetic sounds, then bags and segments lie on both sides of the threshold, widely spread."""
    scores = [
        detector.score(sound.numpy()[None], np.ones((1, len(sound)), dtype=bool))
        for sound in calibrate.synthetic_images(RESNET_SEED + 1, 24)
    ]

    for logits in (
        np.concatenate([score.bag_logit for score in scores]),
        np.concatenate([score.segment_logits[0] for score in scores]),
    ):
        above = np.mean(logits > THRESHOLD_LOGIT)
        assert 0.25 <= above <= 0.75
        assert logits.std() > 0.8
        assert np.abs(logits).max() < 15  # no probability is 0 or 1


def test_the_graph_is_plain_and_says_nothing_of_the_machine(random_resnet: Path) -> None:
    model = onnx.load(random_resnet)
    operators = [node.op_type for node in model.graph.node]

    assert operators.count("Conv") == 20
    assert operators.count("BatchNormalization") == 1  # the bag head's: behind a ReLU, nothing to fold it into
    assert set(operators).isdisjoint({"Identity", "If", "Loop", "ConstantOfShape"})
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path(exporting.__file__).parent).encode() not in random_resnet.read_bytes()
    assert random_resnet.stat().st_size < 46.5e6


def test_the_same_network_gives_the_same_bytes(random_resnet: Path, resnet_network: CoughNet) -> None:
    """A second calibration of the seed and a second export: every byte is the same."""
    assert sha256_of(exporting.to_onnx(resnet_network)) == sha256_of(random_resnet.read_bytes())


def test_another_seed_is_another_network_and_torch_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SOUNDS", 2)  # enough to run, not to calibrate
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    first, again, other = calibrate.random_network(0), calibrate.random_network(0), calibrate.random_network(1)

    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    assert torch.equal(first.seg_head.weight, again.seg_head.weight)
    assert not torch.equal(first.seg_head.weight, other.seg_head.weight)


def test_a_graph_that_answers_differently_is_not_written(
    tmp_path: Path, resnet_network: CoughNet, random_resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(random_resnet)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "seg_head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1e-3), bias.name))
    monkeypatch.setattr(exporting, "to_onnx", lambda network: model.SerializeToString())
    out = tmp_path / "cough.onnx"
    out.write_bytes(b"the model of before")

    with pytest.raises(ModelRefused, match=r'"segment_\w+" differs from torch by .*nothing was written'):
        exporting.export(resnet_network, out)

    assert out.read_bytes() == b"the model of before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cough.onnx"]


def test_a_folder_that_is_missing_is_said_in_one_line(
    tmp_path: Path, resnet_network: CoughNet, random_resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_resnet.read_bytes()
    monkeypatch.setattr(exporting, "to_onnx", lambda network: data)

    with pytest.raises(OutputUnwritable, match=r"cannot write .*cough\.onnx: No such file"):
        exporting.export(resnet_network, tmp_path / "none" / "cough.onnx")


def test_on_a_device_a_recording_s_answer_does_not_depend_on_its_neighbours(random_resnet: Path) -> None:
    """Given the GPU worker's runs, here on the CPU, then three lengths in one run are what each is alone."""
    engine = Engine.load(arguments(random_resnet))
    waves = [noise(count, seed) for seed, count in enumerate((2, 3, 1))]
    for wave, shared in zip(waves, answers(engine, *waves), strict=True):
        (alone,) = answers(engine, wave)
        np.testing.assert_allclose(shared.bag_logit, alone.bag_logit, atol=1e-4)
        np.testing.assert_allclose(shared.segment_logits, alone.segment_logits, atol=1e-4)
