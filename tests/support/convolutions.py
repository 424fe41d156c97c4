"""A small convolutional network that follows the contract, as an exporter writes it, and variants of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest

_CHANNELS = 64
#: Changes a model before it is serialised.
Change = Callable[[onnx.ModelProto], None]


@dataclass(frozen=True)
class Convolutions:
    """Options of the network: Reshape, Conv 7 x 7, three Conv 3 x 3 with a shortcut, pooling, two heads."""

    batch: str | int = "batch_size"
    segments: str | int = "num_segments"
    bias: bool = True
    change: Change | None = None


PLAIN = Convolutions()


def convolutions(how: Convolutions = PLAIN) -> bytes:
    """Return the ONNX file. Its logits depend on the images, including their borders."""
    noise = np.random.default_rng(5)

    def weights(filters: int, channels: int, side: int) -> np.ndarray:
        scale = np.sqrt(2 / (channels * side * side))
        return noise.normal(scale=scale, size=(filters, channels, side, side)).astype(np.float32)

    def column(size: int) -> np.ndarray:
        return noise.normal(scale=1 / np.sqrt(size), size=(size, 1)).astype(np.float32)

    constants = {
        "flat": np.array([-1, 3, 224, 224]),
        "first_weights": weights(_CHANNELS, 3, 7),
        "first_bias": noise.normal(size=_CHANNELS).astype(np.float32),
        "second_weights": weights(_CHANNELS, _CHANNELS, 3),
        "second_bias": noise.normal(size=_CHANNELS).astype(np.float32),
        "third_weights": weights(_CHANNELS, _CHANNELS, 3),
        "fourth_weights": weights(_CHANNELS, _CHANNELS, 3),
        "channels": np.array([_CHANNELS]),
        "bag_weights": column(_CHANNELS),
        "segment_weights": column(_CHANNELS),
        "last": np.array([-1]),
        "one": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Shape", ["spectrograms"], ["leading"], start=0, end=2),
        node("Concat", ["leading", "channels"], ["by_segment"], axis=0),
        node("Reshape", ["spectrograms", "flat"], ["images"]),
        node(
            "Conv",
            ["images", "first_weights", "first_bias"] if how.bias else ["images", "first_weights"],
            ["first"],
            pads=[3, 3, 3, 3],
            strides=[8, 8],
        ),
        node("Relu", ["first"], ["first_on"]),
        node("Conv", ["first_on", "second_weights", "second_bias"], ["second"], pads=[1, 1, 1, 1]),
        node("Relu", ["second"], ["second_on"]),
        node("Conv", ["second_on", "third_weights"], ["third"], pads=[1, 1, 1, 1]),
        node("Add", ["third", "first_on"], ["sum"]),
        node("Relu", ["sum"], ["sum_on"]),
        node("MaxPool", ["sum_on"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Conv", ["pooled", "fourth_weights"], ["fourth"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["fourth"], ["averaged"]),
        node("Reshape", ["averaged", "by_segment"], ["features"]),
        node("MatMul", ["features", "segment_weights"], ["segment_column"]),
        node("Squeeze", ["segment_column", "last"], ["segment_logits"]),
        node("Cast", ["segment_mask"], ["kept"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["kept", "last"], ["kept_column"]),
        node("Mul", ["features", "kept_column"], ["kept_features"]),
        node("ReduceSum", ["kept_features", "one"], ["total"], keepdims=0),
        node("ReduceSum", ["kept", "one"], ["count"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),
        node("MatMul", ["mean", "bag_weights"], ["bag_column"]),
        node("Squeeze", ["bag_column", "last"], ["bag_logit"]),
        node("Sigmoid", ["bag_logit"], ["bag_probability"]),
        node("Sigmoid", ["segment_logits"], ["segment_probabilities"]),
    ]
    each = [how.batch, how.segments]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [
            value("spectrograms", TensorProto.FLOAT, [*each, 3, 224, 224]),
            value("segment_mask", TensorProto.BOOL, each),
        ],
        [
            value("bag_probability", TensorProto.FLOAT, each[:1]),
            value("segment_probabilities", TensorProto.FLOAT, each),
            value("segment_logits", TensorProto.FLOAT, each),
            value("bag_logit", TensorProto.FLOAT, each[:1]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if how.change is not None:
        how.change(model)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def write_convolutions(folder: Path, how: Convolutions = PLAIN, *, profile: str = "documented") -> Path:
    """Write the network and its manifest, as ``convolutions.onnx`` and ``convolutions.json``."""
    path = folder / "convolutions.onnx"
    data = convolutions(how)
    path.write_bytes(data)
    write_manifest(
        path, Manifest("convolutions", "1", sha256_of(data), profile, 0.5, "made for tests: detects nothing")
    )
    return path
