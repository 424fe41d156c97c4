"""The contract of the ONNX file: each way to break it, with real graphs through onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, external_data_helper

from tests.support.models import BOOL, FLOAT, Tiny, Value, tiny_bytes
from tussis.shared.errors import ModelRefused, SettingsInvalid
from tussis.worker.detector.contract import Graph
from tussis.worker.detector.session import open_session

FLOAT16, DOUBLE = TensorProto.FLOAT16, TensorProto.DOUBLE
IMAGES = ("batch_size", "num_segments", 3, 224, 224)
EACH = ("batch_size", "num_segments")


def graph_of(tiny: Tiny) -> Graph:
    return open_session(tiny_bytes(tiny), "cough.onnx", intra_op_threads=1).graph


def refusal_of(tiny: Tiny) -> str:
    with pytest.raises(ModelRefused) as refusal:
        graph_of(tiny)
    message = str(refusal.value)
    assert message.startswith("cough.onnx: ")
    assert "\n" not in message
    return message


def test_the_dynamic_graph_with_logits_is_accepted() -> None:
    graph = graph_of(Tiny())

    assert (graph.opset, graph.fixed_batch, graph.fixed_segments) == (17, False, None)
    assert graph.has_bag_logit
    assert graph.has_segment_logits


def test_logits_are_optional_each_by_itself() -> None:
    assert not graph_of(Tiny(bag_logit=None)).has_bag_logit
    assert graph_of(Tiny(bag_logit=None)).has_segment_logits
    assert not graph_of(Tiny(segment_logits=None)).has_segment_logits


def test_the_names_of_the_dynamic_dimensions_are_free() -> None:
    assert graph_of(Tiny(batch="N", segments="T")).fixed_segments is None


def test_batch_fixed_at_one_and_segments_fixed_at_the_cap_are_accepted() -> None:
    graph = graph_of(Tiny(batch=1, segments=32))

    assert graph.fixed_batch
    assert graph.fixed_segments == 32
    assert graph_of(Tiny(segments=40)).fixed_segments == 40


@pytest.mark.parametrize(
    ("tiny", "said"),
    [
        (Tiny(spectrograms=Value("images", FLOAT, IMAGES)), 'unknown input "images"'),
        (Tiny(segment_mask=Value("mask", BOOL, EACH)), 'unknown input "mask"'),
        (Tiny(bag_probability=Value("file_probability", FLOAT, ("batch_size",))), 'no output "bag_probability"'),
        (Tiny(segment_probabilities=None), 'no output "segment_probabilities" (found: "bag_probability"'),
        (Tiny(bag_probability=Value("bag_probability", DOUBLE, ("batch_size",))), "is tensor(double)"),
        (Tiny(segment_logits=Value("segment_logits", FLOAT16, EACH)), "is tensor(float16)"),
        (Tiny(opset=16), "opset 16: export the model with opset 17 or newer"),
        (Tiny(batch=4), "the batch size is fixed at 4"),
        (Tiny(segments=8), "the number of segments is fixed at 8, and recordings have up to 32"),
        (
            Tiny(segment_mask=Value("segment_mask", BOOL, ("batch_size", 32))),
            "num_segments differs from the other input's",
        ),
        (
            Tiny(spectrograms=Value("spectrograms", FLOAT, ("batch_size", "num_segments", 3, "height", 224))),
            "has shape (dynamic, dynamic, 3, dynamic, 224): the contract requires",
        ),
        (
            Tiny(spectrograms=Value("spectrograms", FLOAT, ("batch_size", "num_segments", 1, 224, 224))),
            "has shape (dynamic, dynamic, 1, 224, 224)",
        ),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(tiny: Tiny, said: str) -> None:
    assert said in refusal_of(tiny)


def without(tiny: Tiny, name: str) -> bytes:
    """The tiny model with an input taken from its list and made a constant."""
    model = onnx.load_from_string(tiny_bytes(tiny))
    (port,) = (port for port in model.graph.input if port.name == name)
    model.graph.input.remove(port)
    model.graph.initializer.append(onnx.helper.make_tensor(name, BOOL, [1, 1], [True]))
    data: bytes = model.SerializeToString()
    return data


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(ModelRefused, match=r'no input "segment_mask" \(found: "spectrograms"\)'):
        open_session(without(Tiny(), "segment_mask"), "cough.onnx", intra_op_threads=1)


def test_a_wrong_rank_is_refused() -> None:
    model = onnx.load_from_string(tiny_bytes(Tiny(bag_logit=None)))
    (port,) = (port for port in model.graph.output if port.name == "bag_probability")
    model.graph.output.remove(port)
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", ["bag_probability", "last"], ["column"]))
    # The column takes the name of the contract; what bore it before becomes a value inside the graph.
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "bag_probability" else name for name in node.output]
        node.input[:] = ["inner" if name == "bag_probability" else name for name in node.input]
        node.output[:] = ["bag_probability" if name == "column" else name for name in node.output]
    model.graph.output.append(onnx.helper.make_tensor_value_info("bag_probability", FLOAT, ["batch_size", 1]))

    with pytest.raises(ModelRefused, match=r'output "bag_probability" has 2 dimensions.*requires \(batch_size\)'):
        open_session(model.SerializeToString(), "cough.onnx", intra_op_threads=1)


@pytest.mark.parametrize("data", [b"", b"not a model", tiny_bytes()[:4000]])
def test_a_file_that_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"cough\.onnx is not an ONNX model"):
        open_session(data, "cough.onnx", intra_op_threads=1)


def test_a_graph_that_onnxruntime_does_not_know_is_refused_in_one_line() -> None:
    model = onnx.load_from_string(tiny_bytes())
    model.graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(ModelRefused, match=r"onnxruntime \S+ cannot load cough\.onnx: .*NoSuchOperator") as refusal:
        open_session(model.SerializeToString(), "cough.onnx", intra_op_threads=1)

    assert "\n" not in str(refusal.value)


def test_weights_in_another_file_are_refused_though_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime would read it from the working directory, and no sha256 would have covered it."""
    model = onnx.load_from_string(tiny_bytes())
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "features_weight")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    external_data_helper.set_external_data(tensor, location="weights.bin", length=len(tensor.raw_data))
    tensor.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    assert os.path.exists("weights.bin")

    with pytest.raises(ModelRefused, match="has weights in other files"):
        open_session(model.SerializeToString(), "cough.onnx", intra_op_threads=1)


def test_other_outputs_are_ignored() -> None:
    model = onnx.load_from_string(tiny_bytes())
    model.graph.output.append(onnx.helper.make_tensor_value_info("weights", FLOAT, list(EACH)))

    session = open_session(model.SerializeToString(), "cough.onnx", intra_op_threads=1)

    assert "weights" not in session.graph.outputs


def test_threads_and_provider_are_checked() -> None:
    with pytest.raises(SettingsInvalid, match="at least 1"):
        open_session(tiny_bytes(), "cough.onnx", intra_op_threads=0)
    with pytest.raises(SettingsInvalid, match="unknown provider 'tpu': use one of cpu"):
        open_session(tiny_bytes(), "cough.onnx", intra_op_threads=1, provider="tpu")


def test_threads_do_not_spin() -> None:
    """Given a session of three threads, then they wait without taking the cores, and branches run one by one."""
    options = open_session(tiny_bytes(), "cough.onnx", intra_op_threads=3).inference.get_session_options()

    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_only_the_cpu_computes() -> None:
    inference = open_session(tiny_bytes(), "cough.onnx", intra_op_threads=1).inference

    assert inference.get_providers() == ["CPUExecutionProvider"]
