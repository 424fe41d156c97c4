"""A small model with convolutions, a residual sum and attention, for tests of code that changes convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def convolutional_bytes(seed: int = 0, *, nameless: bool = False) -> bytes:
    """Return an ONNX model that follows the contract: four convolutions of seeded weights, a few thousand numbers.

    The magnitudes of the channels of ``first`` differ widely. ``nameless``: no node has a name, as in some exporters.
    """
    generator = np.random.default_rng(seed)

    def weight(*shape: int) -> NDArray[np.float32]:
        spread: NDArray[np.float32] = (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return spread

    uneven = np.geomspace(0.2, 2, 6, dtype=np.float32)
    constants = {
        "first_weight": weight(6, 3, 16, 16) * uneven[:, None, None, None],
        "first_bias": weight(6) * uneven,
        "second_weight": weight(8, 6, 3, 3),
        "second_bias": weight(8),
        "shortcut_weight": weight(8, 6, 1, 1),
        "last_weight": weight(8, 8, 3, 3),
        "last_bias": weight(8),
        "score_weight": weight(8, 1),
        "bag_weight": weight(8, 1),
        "segment_weight": weight(8, 1),
        "images": np.array([-1, 3, 224, 224]),
        "width": np.array([8]),
        "minus": np.array(np.finfo(np.float32).min, dtype=np.float32),
        "end": np.array([-1]),
        "one": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Shape", ["segment_mask"], ["sizes"]),
        node("Concat", ["sizes", "width"], ["shape"], axis=0),
        node("Reshape", ["spectrograms", "images"], ["flat"]),
        node("Conv", ["flat", "first_weight", "first_bias"], ["first_sum"], name="first", strides=[16, 16]),
        node("Relu", ["first_sum"], ["first_out"]),
        node("MaxPool", ["first_out"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "second_weight", "second_bias"], ["left"], name="second", pads=[1, 1, 1, 1]),
        node("Conv", ["pooled", "shortcut_weight"], ["right"], name="shortcut"),
        node("Add", ["left", "right"], ["sum"]),
        node("Relu", ["sum"], ["block"]),
        node("Conv", ["block", "last_weight", "last_bias"], ["last_sum"], name="last", pads=[1, 1, 1, 1]),
        node("Relu", ["last_sum"], ["last_out"]),
        node("GlobalAveragePool", ["last_out"], ["mean"]),
        node("Reshape", ["mean", "shape"], ["features"]),
        node("MatMul", ["features", "score_weight"], ["score_column"]),
        node("Squeeze", ["score_column", "end"], ["all_scores"]),
        node("Where", ["segment_mask", "all_scores", "minus"], ["scores"]),
        node("Softmax", ["scores"], ["attention"], axis=1),
        node("Unsqueeze", ["attention", "end"], ["attention_column"]),
        node("Mul", ["attention_column", "features"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["recording"], keepdims=0),
        node("MatMul", ["recording", "bag_weight"], ["bag_column"]),
        node("Squeeze", ["bag_column", "end"], ["bag_logit"]),
        node("Sigmoid", ["bag_logit"], ["bag_probability"]),
        node("MatMul", ["features", "segment_weight"], ["segment_column"]),
        node("Squeeze", ["segment_column", "end"], ["segment_logits"]),
        node("Sigmoid", ["segment_logits"], ["segment_probabilities"]),
    ]
    if nameless:
        for each in nodes:
            each.name = ""
    info = helper.make_tensor_value_info
    bag, each_segment = ["batch_size"], ["batch_size", "num_segments"]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [info("spectrograms", FLOAT, [*each_segment, 3, 224, 224]), info("segment_mask", BOOL, each_segment)],
        [
            info("bag_probability", FLOAT, bag),
            info("segment_probabilities", FLOAT, each_segment),
            info("bag_logit", FLOAT, bag),
            info("segment_logits", FLOAT, each_segment),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def write_convolutional(folder: Path, *, name: str = "small", version: str = "1") -> Path:
    """Write the model and its manifest, as ``small.onnx`` and ``small.json`` for the name ``small``."""
    path = folder / f"{name}.onnx"
    data = convolutional_bytes()
    path.write_bytes(data)
    write_manifest(path, Manifest(name, version, sha256_of(data), "documented", 0.5, "made for tests: detects nothing"))
    return path
