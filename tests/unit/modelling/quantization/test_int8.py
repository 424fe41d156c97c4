"""What is made int8, and with which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.support.convolutional import convolutional_bytes
from tests.support.models import images, kept, tiny_bytes
from tussis.shared.errors import ModelRefused
from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS
from tussis.worker.detector.manifest import Manifest
from tussis.worker.detector.probe import TOLERANCE, probe
from tussis.worker.detector.session import open_session
from tussis.worker.modelling.quantization.equalise import equalise
from tussis.worker.modelling.quantization.float16 import to_float16
from tussis.worker.modelling.quantization.graph import backbone_of, in_eight_bits, simplify
from tussis.worker.modelling.quantization.int8 import Calibrated
from tussis.worker.modelling.quantization.ranges import ranges_over
from tussis.worker.modelling.quantization.search import by_sensitivity, candidates, open_detector

MANIFEST = Manifest("small", "1", "0" * 64, "documented", 0.5, "")
RECORDINGS = [images(1, 2, seed) for seed in range(4)]


def calibrated(data: bytes) -> Calibrated:
    model = simplify(data, "small")
    backbone = backbone_of(model, "small")
    nodes = in_eight_bits(model, backbone)
    ranges = ranges_over(model, nodes, RECORDINGS, threads=1, where="small")
    return Calibrated(*equalise(model, backbone, ranges), backbone)


@pytest.fixture(scope="module")
def small() -> Calibrated:
    return calibrated(convolutional_bytes())


def bag_logits(data: bytes, recordings: Sequence[NDArray[np.float32]] = RECORDINGS) -> NDArray[np.float64]:
    session = open_session(data, "small", intra_op_threads=1)
    found = [
        session.run({SPECTROGRAMS: each, SEGMENT_MASK: np.ones(each.shape[:2], dtype=np.bool_)})["bag_logit"][0]
        for each in recordings
    ]
    return np.array(found, dtype=np.float64)


def nodes_of(data: bytes) -> list[Any]:
    return list(onnx.load_model_from_string(data).graph.node)


def test_convolutions_and_what_joins_them_are_quantised_and_nothing_else(small: Calibrated) -> None:
    model = small.model
    quantised = in_eight_bits(model, small.backbone)

    types = [node.op_type for node in model.graph.node if node.name in quantised]
    assert sorted(types) == ["Add", "Conv", "Conv", "Conv", "Conv", "MaxPool", "Relu", "Relu", "Relu"]
    # What the attention computes with reaches no convolution.
    assert not {node.op_type for node in model.graph.node if node.name in small.backbone.rest} & {"Conv", "MaxPool"}


def test_what_only_touches_an_excluded_convolution_stays_in_float(small: Calibrated) -> None:
    quantised = in_eight_bits(small.model, small.backbone, ["first"])

    types = sorted(node.op_type for node in small.model.graph.node if node.name in quantised)
    assert types == ["Add", "Conv", "Conv", "Conv", "Relu", "Relu"]


def test_the_answers_are_close_to_the_float_models(small: Calibrated) -> None:
    expected = bag_logits(convolutional_bytes())

    shift = np.abs(bag_logits(small.quantised()) - expected)

    assert 0 < shift.max() < 0.1 * max(expected.std(), 0.1) + 0.02


def test_no_pair_of_products_overflows_sixteen_bits(small: Calibrated) -> None:
    # A CPU without VNNI adds two products of an unsigned and a signed byte in a signed 16-bit number, saturating.
    model = onnx.load_model_from_string(small.quantised())
    weights = [numpy_helper.to_array(weight) for weight in model.graph.initializer if weight.data_type == 3]
    kernels = [weight for weight in weights if weight.ndim == 4]

    assert len(kernels) == 4
    assert all(weight.dtype == np.int8 for weight in kernels)
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in kernels)
    assert largest == 64
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_each_output_channel_has_a_scale(small: Calibrated) -> None:
    model = onnx.load_model_from_string(small.quantised())
    sizes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    scales = [sizes[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"]

    assert sorted(scales).count([8]) >= 3
    assert [6] in scales


def test_the_same_recordings_give_the_same_bytes() -> None:
    assert calibrated(convolutional_bytes()).quantised() == calibrated(convolutional_bytes()).quantised()


def test_nodes_without_names_are_quantised_too(small: Calibrated) -> None:
    nameless = calibrated(convolutional_bytes(nameless=True))

    assert len(nameless.backbone.convolutions) == 4
    np.testing.assert_allclose(bag_logits(nameless.quantised()), bag_logits(small.quantised()), atol=1e-6)


def test_equalising_changes_no_answer_and_evens_the_channels() -> None:
    model = simplify(convolutional_bytes(), "small")
    backbone = backbone_of(model, "small")
    ranges = ranges_over(model, in_eight_bits(model, backbone), RECORDINGS, threads=1, where="small")

    evened, narrowed = equalise(model, backbone, ranges)

    np.testing.assert_allclose(bag_logits(evened.SerializeToString()), bag_logits(convolutional_bytes()), atol=1e-5)
    measured = ranges_over(evened, in_eight_bits(evened, backbone), RECORDINGS, threads=1, where="small")
    for tensor, (low, high) in narrowed.items():
        np.testing.assert_allclose(measured[tensor], (low, high), rtol=1e-4, atol=1e-5)
    reach = [np.maximum(-low, high) for low, high in (ranges["pooled"], narrowed["pooled"])]
    before, after = (float(values.min() / values.max()) for values in reach)
    assert after > 1.5 * before


def test_ranges_hold_every_recording() -> None:
    model = simplify(convolutional_bytes(), "small")
    nodes = in_eight_bits(model, backbone_of(model, "small"))
    alone = [ranges_over(model, nodes, [each], threads=1, where="small") for each in RECORDINGS]

    together = ranges_over(model, nodes, RECORDINGS, threads=1, where="small")

    for tensor, (low, high) in together.items():
        np.testing.assert_array_equal(low, np.min([each[tensor][0] for each in alone], axis=0))
        np.testing.assert_array_equal(high, np.max([each[tensor][1] for each in alone], axis=0))


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_neighbours_and_padding_change_nothing(small: Calibrated, kind: str) -> None:
    data = small.quantised() if kind == "int8" else to_float16(small.model, small.backbone)
    detector = open_detector(data, MANIFEST)

    found = probe(detector)

    assert max(found.neighbour_shift, found.padding_shift) <= TOLERANCE
    recording, other = images(1, 2, seed=11), images(1, 3, seed=12)
    alone = detector.score(recording, kept([1, 1]))
    padded = np.concatenate([recording, np.full((1, 1, 3, 224, 224), 9, dtype=np.float32)], axis=1)
    among = detector.score(np.concatenate([other, padded]), kept([1, 1, 1], [1, 1, 0]))
    np.testing.assert_allclose(among.bag_logit[1], alone.bag_logit[0], atol=TOLERANCE)
    np.testing.assert_allclose(among.segment_logits[1, :2], alone.segment_logits[0], atol=TOLERANCE)


def test_float16_keeps_its_inputs_its_outputs_and_the_attention_in_float32(small: Calibrated) -> None:
    data = to_float16(small.model, small.backbone)

    model = onnx.load_model_from_string(data)
    kernels = [weight for weight in model.graph.initializer if len(weight.dims) == 4]
    assert {weight.data_type for weight in kernels} == {onnx.TensorProto.FLOAT16}
    heads = [weight for weight in model.graph.initializer if list(weight.dims) == [8, 1]]
    assert {weight.data_type for weight in heads} == {onnx.TensorProto.FLOAT}
    # Opening it holds inputs and outputs against the contract.
    np.testing.assert_allclose(bag_logits(data), bag_logits(convolutional_bytes()), atol=0.01)


def test_the_search_leaves_out_the_most_sensitive_first_and_never_more_than_half(small: Calibrated) -> None:
    parent = open_detector(convolutional_bytes(), MANIFEST)

    tried = list(candidates(small, parent, RECORDINGS))

    order = by_sensitivity(small, parent, RECORDINGS)
    assert sorted(order) == sorted(small.backbone.convolutions)
    assert [candidate.excluded for candidate in tried] == [(), order[:1], order[:2]]
    for candidate in tried:
        kernels = [node for node in nodes_of(candidate.data) if node.op_type == "Conv"]
        floats = [node.name for node in kernels if not node.input[1].endswith("DequantizeLinear_Output")]
        assert sorted(floats) == sorted(candidate.excluded)


def test_a_model_without_convolutions_is_refused() -> None:
    model = simplify(tiny_bytes(), "tiny.onnx")

    with pytest.raises(ModelRefused, match=r"tiny\.onnx has no convolution"):
        backbone_of(model, "tiny.onnx")


def test_a_model_that_was_made_smaller_already_is_refused(small: Calibrated) -> None:
    with pytest.raises(ModelRefused, match="already quantised: give the float32 model"):
        simplify(small.quantised(), "small-int8.onnx")
    with pytest.raises(ModelRefused, match="float16 weights: give the float32 model"):
        simplify(to_float16(small.model, small.backbone), "small-float16.onnx")
