"""A checkpoint against an ONNX file: what agrees, and which layer is the first that differs."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tests.support.convolutional import convolutional_bytes
from tests.support.models import Tiny, images, tiny_bytes
from tussis.shared.errors import ModelRefused, TooFewRecordings
from tussis.worker.modelling.architecture import CoughNet, NetworkOutputs
from tussis.worker.modelling.layers import match_layers
from tussis.worker.modelling.quantization.float16 import to_float16
from tussis.worker.modelling.quantization.graph import backbone_of, simplify
from tussis.worker.modelling.verify import Verification, verify

torch.set_num_threads(1)

#: With two segments, so that the attention has an effect.
RECORDING = ("a.wav", images(1, 2))


@pytest.fixture(scope="module")
def data(random_resnet: Path) -> bytes:
    """The ONNX file of ``resnet_network``, with batch norms folded into the convolutions."""
    return random_resnet.read_bytes()


@pytest.fixture
def network(resnet_network: CoughNet) -> CoughNet:
    """A copy that a test may change."""
    return copy.deepcopy(resnet_network)


def change(network: CoughNet, key: str, by: float = 0.25) -> None:
    """Add a number to one weight."""
    with torch.no_grad():
        network.state_dict()[key].view(-1)[-1] += by


def run(network: CoughNet, data: bytes, *recordings: tuple[str, NDArray[np.float32]]) -> Verification:
    return verify(network, data, "cough.onnx", recordings or (RECORDING,), threads=1)


def test_the_file_of_the_same_weights_agrees(network: CoughNet, data: bytes) -> None:
    found = run(network, data, RECORDING, ("b.wav", images(1, 1, seed=1)))

    assert found.agrees
    assert (found.recordings, found.segments, found.differing) == (2, 3, 0)
    assert [output.name for output in found.outputs] == [
        "bag_probability",
        "segment_probabilities",
        "bag_logit",
        "segment_logits",
    ]
    assert all(output.largest < 1e-4 for output in found.outputs)
    assert (found.layers, found.first, found.unmatched) == ((), None, "")


def test_differences_are_those_of_the_outputs(network: CoughNet, data: bytes) -> None:
    """Given a bias of the segments' head that is 0.25 larger, then their logits differ by 0.25, and nothing else."""
    change(network, "seg_head.bias")

    found = run(network, data)

    gaps = {output.name: output for output in found.outputs}
    assert gaps["segment_logits"].largest == pytest.approx(0.25, abs=1e-3)
    assert [name for name, gap in gaps.items() if not gap.agrees] == ["segment_probabilities", "segment_logits"]
    assert (found.differing, found.worst) == (1, "a.wav")


def test_the_recording_that_differs_most_is_named(network: CoughNet, data: bytes) -> None:
    """A bias before a ReLU makes a difference that depends on the recording."""
    change(network, "backbone.layer4.1.bn2.bias", 5)
    recordings = [(f"{seed}.wav", images(1, 1, seed)) for seed in range(2)]

    found = run(network, data, *recordings)

    largest = {source: run(network, data, (source, image)) for source, image in recordings}
    assert found.worst == max(largest, key=lambda source: max(gap.largest for gap in largest[source].outputs))
    assert found.differing == 2


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("backbone.conv1.weight", "backbone.conv1 + backbone.bn1"),
        ("backbone.layer2.0.conv1.weight", "backbone.layer2.0.conv1 + backbone.layer2.0.bn1"),
        (
            "backbone.layer3.0.downsample.1.running_var",
            "backbone.layer3.0.downsample.0 + backbone.layer3.0.downsample.1",
        ),
        ("attn.0.weight", "attn.0"),
        ("bag_head.2.running_mean", "bag_head.2"),
        ("bag_head.4.bias", "bag_head.4"),
    ],
)
def test_one_changed_weight_names_its_layer(network: CoughNet, data: bytes, key: str, layer: str) -> None:
    change(network, key, 4 if key == "attn.0.weight" else 0.25)

    found = run(network, data)

    assert not found.agrees
    assert found.first is not None
    assert found.first.name == layer
    assert [each.name for each in found.layers if each.differs] == [layer]
    assert not found.first.input_differs


def test_layers_after_the_first_are_judged_by_themselves(network: CoughNet, data: bytes) -> None:
    for key in ("backbone.layer1.0.conv2.weight", "seg_head.bias"):
        change(network, key)

    found = run(network, data)

    assert [each.name for each in found.layers if each.differs] == [
        "backbone.layer1.0.conv2 + backbone.layer1.0.bn2",
        "seg_head",
    ]
    after = next(each for each in found.layers if each.name.startswith("backbone.layer1.1.conv1"))
    assert after.input_differs
    assert after.output > 1e-3


def test_a_graph_that_ignores_the_mask_differs_between_the_layers(network: CoughNet, data: bytes) -> None:
    """Given a graph whose attention also takes masked segments."""
    model = onnx.load_model_from_string(data)
    made = {output: node for node in model.graph.node for output in node.output}
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    masked = made[softmax.input[0]]
    assert masked.op_type == "Where"
    (after,) = [node for node in model.graph.node if softmax.output[0] in node.input]
    assert after.op_type == "Mul"
    (weighted,) = [node for node in model.graph.node if after.output[0] in node.input]
    softmax.input[0] = masked.input[2]
    weighted.input[0] = softmax.output[0]

    found = run(network, model.SerializeToString())

    assert [output.name for output in found.outputs if output.agrees] == ["segment_probabilities", "segment_logits"]
    assert found.first is not None
    assert (found.first.name, found.first.input_differs, found.first.differs) == ("bag_head.0", True, False)


def old_exporter(network: CoughNet, path: Path) -> bytes:
    """The file of torch's older exporter in the mode of the network. It keeps batch norms as nodes of their own."""
    example = torch.zeros(2, 2, 3, 224, 224), torch.ones(2, 2, dtype=torch.bool)
    axes = {0: "batch_size", 1: "num_segments"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated
        torch.onnx.export(
            copy.deepcopy(network),  # the export runs the network, which changes its statistics in training mode
            example,
            str(path),
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["spectrograms", "segment_mask"],
            output_names=list(NetworkOutputs._fields),
            dynamic_axes={
                "spectrograms": axes,
                "segment_mask": axes,
                "bag_probability": {0: "batch_size"},
                "bag_logit": {0: "batch_size"},
                "segment_probabilities": axes,
                "segment_logits": axes,
            },
        )
    return path.read_bytes()


def test_batch_norms_that_are_not_folded_are_layers(network: CoughNet, tmp_path: Path) -> None:
    data = old_exporter(network, tmp_path / "cough.onnx")
    assert run(network, data).agrees
    change(network, "backbone.layer2.0.bn1.running_var")

    found = run(network, data)

    assert [each.name for each in found.layers if each.differs] == ["backbone.layer2.0.bn1"]
    assert found.training_norms == 0


def test_batch_norms_in_training_mode_are_counted(network: CoughNet, tmp_path: Path) -> None:
    """Given an export without ``eval()``: 20 batch norms of the ResNet-18 and one of the head."""
    data = old_exporter(network.train(), tmp_path / "cough.onnx")

    found = run(network.eval(), data)

    assert found.training_norms == 21
    assert found.first is not None
    assert found.first.name == "backbone.bn1"


def random_order(model: Any, seed: int) -> Any:
    """The model with its nodes in another valid order."""
    rng = random.Random(seed)
    waiting, made = list(model.graph.node), {value.name for value in (*model.graph.input, *model.graph.initializer)}
    ordered = []
    while waiting:
        ready = [node for node in waiting if all(name in made or not name for name in node.input)]
        node = rng.choice(ready)
        waiting.remove(node)
        made.update(node.output)
        ordered.append(node)
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(ordered)
    return shuffled


def test_layers_are_found_in_every_order_of_the_nodes(network: CoughNet, data: bytes) -> None:
    model = onnx.load_model_from_string(data)
    expected = match_layers(model, network)

    assert len(expected) == 26  # 20 convolutions, 5 linear layers, the batch norm of the head
    names = {output: node.input[1] for node in model.graph.node for output in node.output if node.op_type == "Conv"}
    for layer in expected[:20]:
        assert names[layer.output] == f"{layer.modules[0]}.weight"
    for seed in range(5):
        assert match_layers(random_order(model, seed), network) == expected


def test_of_another_architecture_only_the_outputs_are_compared(network: CoughNet) -> None:
    found = run(network, tiny_bytes())

    assert not found.agrees
    assert found.unmatched == "the graph has 0 layers with weights of shape (64, 3, 7, 7), the network 1"
    assert found.layers == ()


def test_a_graph_without_logits_is_compared_by_its_probabilities(network: CoughNet) -> None:
    found = run(network, tiny_bytes(Tiny(bag_logit=None, segment_logits=None)))

    assert [output.name for output in found.outputs] == ["bag_probability", "segment_probabilities"]


def test_a_graph_with_fixed_segments_pads_both(network: CoughNet) -> None:
    found = run(network, tiny_bytes(Tiny(segments=32, batch=1)))

    assert (found.recordings, found.segments) == (1, 2)


def test_nan_never_agrees(network: CoughNet) -> None:
    found = run(network, tiny_bytes(Tiny(logit_factor=math.nan)), RECORDING, ("b.wav", images(1, 1)))

    gaps = {output.name: output for output in found.outputs}
    assert math.isnan(gaps["bag_logit"].largest)
    assert not gaps["bag_logit"].agrees
    assert found.worst == "a.wav"


def float16(_: Path) -> bytes:
    model = simplify(convolutional_bytes(), "small.onnx")
    return to_float16(model, backbone_of(model, "small.onnx"))


@pytest.mark.parametrize(
    ("kind", "made"),
    [("int8", lambda folder: (folder / "random-int8.onnx").read_bytes()), ("float16", float16)],
    ids=["int8", "float16"],
)
def test_a_model_of_lower_precision_is_refused(
    network: CoughNet, int8_resnet: Path, kind: str, made: Callable[[Path], bytes]
) -> None:
    with pytest.raises(ModelRefused, match=rf"cough\.onnx is in {kind}.*tussis models compare"):
        run(network, made(int8_resnet.parent))


def test_without_recordings_nothing_agrees(network: CoughNet) -> None:
    with pytest.raises(TooFewRecordings):
        verify(network, tiny_bytes(), "tiny.onnx", iter(()), threads=1)


def test_a_missing_activation_is_found_before_the_next_layer(network: CoughNet, data: bytes) -> None:
    model = onnx.load_model_from_string(data)
    (tanh,) = [node for node in model.graph.node if node.op_type == "Tanh"]
    model.graph.node.remove(tanh)
    (after,) = [node for node in model.graph.node if tanh.output[0] in node.input]
    after.input[0] = tanh.input[0]

    found = run(network, model.SerializeToString())

    assert found.first is not None
    assert (found.first.name, found.first.differs) == ("attn.2", False)
