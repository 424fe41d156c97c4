"""Rewritten graphs: the answers are the original's, and what cannot be recognised is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.convolutions import Convolutions, convolutions
from tests.support.models import tiny_bytes
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import Manifest, sha256_of
from tussis.worker.detector.session import open_session
from tussis.worker.detector.tuning import winograd
from tussis.worker.detector.tuning.comparison import TOLERANCE, Candidate, Differs, answers, compare
from tussis.worker.detector.tuning.graph_edit import NotRecognised
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.detector.tuning.specialise import FOLDED, WINOGRAD, Rewritten, rewritings


def manifest_of(data: bytes) -> Manifest:
    return Manifest("some", "1", sha256_of(data), "documented", 0.5, "")


def original(data: bytes) -> Candidate:
    return Candidate("original", Detector(manifest_of(data), open_session(data, "original", intra_op_threads=1)))


def rewritten(data: bytes) -> Rewritten:
    """The one without Winograd's convolutions."""
    return next(rewritings(data))


def way_of(made: Rewritten) -> Candidate:
    session = open_session(made.data, made.form, intra_op_threads=1)
    return Candidate(made.form, MelDetector(manifest_of(made.data), session, made.form), made.data)


def operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


def gap(one: Candidate, other: Candidate) -> float:
    pairs = zip(answers(one), answers(other), strict=True)
    return max(float(np.nanmax(np.abs(a.segment_logits - b.segment_logits))) for a, b in pairs)


# --- what is recognised ---


@pytest.mark.parametrize(
    "how",
    [
        Convolutions(),
        Convolutions(bias=False),
        Convolutions(batch=1),
        Convolutions(batch=1, segments=32),
    ],
    ids=["dynamic", "no bias", "batch of one", "all fixed"],
)
def test_the_first_convolution_takes_the_image_once(how: Convolutions) -> None:
    data = convolutions(how)

    made = rewritten(data)

    assert made.form == FOLDED
    model = onnx.load_from_string(made.data)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert weights[first.input[1]] == [64, 2, 7, 7]  # the image, and ones
    assert "first_weights" not in {name for node in model.graph.node for name in node.input}
    compare(answers(way_of(made)), answers(original(data)))
    assert way_of(made).detector.graph == original(data).detector.graph


@pytest.mark.parametrize(("start", "end"), [(None, None), (0, 3), (-2, None), (1, 1)])
def test_who_asks_for_the_shape_is_told_the_contract_s(start: int | None, end: int | None) -> None:
    """Given a graph that adds up the sizes of its input, when it is rewritten, then the sum stays."""

    def ask(model: onnx.ModelProto) -> None:
        limits: dict[str, Any] = {name: value for name, value in (("start", start), ("end", end)) if value is not None}
        nodes = model.graph.node
        for node in nodes:
            node.output[:] = ["plain_logits" if name == "segment_logits" else name for name in node.output]
            node.input[:] = ["plain_logits" if name == "segment_logits" else name for name in node.input]
        nodes.append(helper.make_node("Shape", ["spectrograms"], ["asked"], **limits))
        nodes.append(helper.make_node("Cast", ["asked"], ["asked_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceSum", ["asked_float"], ["asked_sum"], keepdims=0))
        nodes.append(helper.make_node("Add", ["plain_logits", "asked_sum"], ["segment_logits"]))

    data = convolutions(Convolutions(change=ask))

    compare(answers(way_of(rewritten(data))), answers(original(data)))


# --- what is not ---


def grouped(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.attribute.append(helper.make_attribute("group", 3))
    replace(model, "first_weights", np.ones((63, 1, 7, 7), dtype=np.float32))
    replace(model, "first_bias", np.ones(63, dtype=np.float32))
    replace(model, "second_weights", np.ones((63, 63, 3, 3), dtype=np.float32) / 100)
    replace(model, "second_bias", np.ones(63, dtype=np.float32))
    replace(model, "third_weights", np.ones((63, 63, 3, 3), dtype=np.float32) / 100)
    replace(model, "fourth_weights", np.ones((64, 63, 3, 3), dtype=np.float32) / 100)


def computed_weights(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["made_weights" if name == "first_weights" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Neg", ["first_weights"], ["made_weights"]))


def weights_by_the_caller(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("first_weights", TensorProto.FLOAT, [64, 3, 7, 7]))


def second_user(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["plain_logits" if name == "segment_logits" else name for name in node.output]
        node.input[:] = ["plain_logits" if name == "segment_logits" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3, 4]), "pixels"))
    mean = helper.make_node("ReduceMean", ["spectrograms"], ["brightness"], axes=[2, 3, 4], keepdims=0)
    model.graph.node.append(mean)
    model.graph.node.append(helper.make_node("Add", ["plain_logits", "brightness"], ["segment_logits"]))


def second_user_of_the_images(model: onnx.ModelProto) -> None:
    second_user(model)
    node = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    node.CopyFrom(helper.make_node("ReduceMean", ["images"], ["flat_brightness"], axes=[1, 2, 3], keepdims=0))
    model.graph.node.insert(-1, helper.make_node("Reshape", ["flat_brightness", "leading"], ["brightness"]))


def replace(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def pick_second_channel(model: onnx.ModelProto) -> None:
    """Gather channel 1 and take it three times."""
    nodes = model.graph.node
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "channel_one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 224, 224]), "flat_one"))
    index = next(i for i, node in enumerate(nodes) if node.op_type == "Reshape")
    del nodes[index]
    nodes.insert(index, helper.make_node("Concat", ["one_image"] * 3, ["images"], axis=1))
    nodes.insert(index, helper.make_node("Reshape", ["picked", "flat_one"], ["one_image"]))
    nodes.insert(index, helper.make_node("Gather", ["spectrograms", "channel_one"], ["picked"], axis=2))


@pytest.mark.parametrize(
    "change",
    [
        grouped,
        computed_weights,
        weights_by_the_caller,
        second_user,
        second_user_of_the_images,
        pick_second_channel,
    ],
)
def test_a_graph_that_begins_otherwise_is_not_recognised(change: object) -> None:
    with pytest.raises(NotRecognised, match="does not begin with a float32 convolution over the three channels"):
        rewritten(convolutions(Convolutions(change=change)))  # type: ignore[arg-type]


def test_a_graph_without_convolutions_is_not_recognised() -> None:
    with pytest.raises(NotRecognised, match="does not begin with a float32 convolution over the three channels"):
        rewritten(tiny_bytes())


def branches(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["plain_logit" if name == "bag_logit" else name for name in node.output]
        node.input[:] = ["plain_logit" if name == "bag_logit" else name for name in node.input]
    out = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["b"])]
    body = helper.make_graph([helper.make_node("Identity", ["plain_logit"], ["chosen"])], "body", [], out)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node.append(helper.make_node("If", ["always"], ["bag_logit"], then_branch=body, else_branch=body))


def input_as_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("spectrograms", TensorProto.FLOAT, ["b", "s", 3, 224, 224]))


def own_mels(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["mels" if name == "mean" else name for name in node.output]
        node.input[:] = ["mels" if name == "mean" else name for name in node.input]


def no_use(model: onnx.ModelProto) -> None:
    zeros = numpy_helper.from_array(np.zeros((1, 3, 224, 224), dtype=np.float32), "no_image")
    model.graph.initializer.append(zeros)
    for node in model.graph.node:
        if node.op_type != "Shape":
            node.input[:] = ["no_image" if name == "spectrograms" else name for name in node.input]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (branches, "branches or loops"),
        (input_as_output, '"spectrograms" is an output'),
        (own_mels, 'already has a "mels" or "round_to_float16"'),
        (no_use, 'nothing uses "spectrograms"'),
    ],
)
def test_a_graph_that_cannot_be_understood_is_not_recognised(change: object, said: str) -> None:
    with pytest.raises(NotRecognised, match=said):
        rewritten(convolutions(Convolutions(change=change)))  # type: ignore[arg-type]


def test_what_is_no_model_is_not_recognised() -> None:
    with pytest.raises(NotRecognised, match="cannot read it"):
        rewritten(b"<html>no such page</html>")


# --- Winograd ---


def test_convolutions_in_fewer_multiplications_answer_the_same() -> None:
    data = convolutions()

    plain, fast = rewritings(data)

    assert (fast.form, plain.form) == (WINOGRAD, FOLDED)
    # The first is 7 x 7, and the last one's image has 7 rows; the two on 28 rows are products now.
    assert operators(fast.data).count("Conv") == 2
    assert operators(plain.data).count("Conv") == 4
    points = {tuple(t.dims) for t in onnx.load_from_string(fast.data).graph.initializer if len(t.dims) == 3}
    assert points == {(36, 64, 64)}
    assert gap(way_of(fast), original(data)) < 1e-4
    compare(answers(way_of(fast)), answers(original(data)))


def stride(model: onnx.ModelProto) -> None:
    """The last convolution skips every other place; the third has no padding around an image padded before."""
    last = next(node for node in model.graph.node if "fourth" in node.output)
    last.attribute.append(helper.make_attribute("strides", [2, 2]))
    third = next(node for node in model.graph.node if "third" in node.output)
    del third.attribute[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "frame"))
    index = list(model.graph.node).index(third)
    model.graph.node.insert(index, helper.make_node("Pad", ["second_on", "frame"], ["framed"]))
    third.input[0] = "framed"


def test_other_convolutions_stay() -> None:
    data = convolutions(Convolutions(change=stride))

    (fast,) = rewritings(data, WINOGRAD)

    assert operators(fast.data).count("Conv") == 3
    compare(answers(way_of(fast)), answers(original(data)))


def test_where_no_convolution_pays_none_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 65)

    assert [made.form for made in rewritings(convolutions())] == [FOLDED]


# --- the comparison itself ---


@pytest.mark.parametrize("name", ["first_weights", "first_bias", "segment_weights"])
def test_a_wrong_graph_does_not_pass(name: str) -> None:
    """Given a model whose weights are off by a hundredth, then its rewriting does not pass for the original's."""
    data = convolutions()
    model = onnx.load_from_string(data)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    replace(model, name, numpy_helper.to_array(tensor) * np.float32(1.01))
    wrong = rewritten(model.SerializeToString())

    with pytest.raises(Differs, match=f"differs from the original's by .*, at most {TOLERANCE:g}"):
        compare(answers(way_of(wrong)), answers(original(data)))


def test_a_plain_bias_in_place_of_the_ones_does_not_pass() -> None:
    """The border is what a naive folding gets wrong."""
    data = convolutions()
    model = onnx.load_from_string(rewritten(data).data)
    pad = [node for node in model.graph.node if node.op_type == "Pad"][-1]
    # Ones beyond the border as well: what a bias would add.
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 3, 3, 0, 0, 3, 3]), "around"))
    index = list(model.graph.node).index(conv)
    model.graph.node.insert(index, helper.make_node("Pad", [pad.output[0], "around"], ["framed"], mode="edge"))
    conv.input[0] = "framed"
    next(attribute for attribute in conv.attribute if attribute.name == "pads").ints[:] = [0, 0, 0, 0]

    with pytest.raises(Differs):
        compare(answers(way_of(Rewritten("naive", model.SerializeToString()))), answers(original(data)))
