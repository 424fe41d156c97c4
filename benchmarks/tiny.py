"""A model that takes almost no time, to measure everything except the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tussis.worker.detector.contract import (
    BAG_LOGIT,
    BAG_PROBABILITY,
    SEGMENT_LOGITS,
    SEGMENT_MASK,
    SEGMENT_PROBABILITIES,
    SPECTROGRAMS,
)
from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest


def write_tiny(folder: Path) -> Path:
    """Write ``tiny.onnx`` and its manifest. A segment's logit is the mean of an image row, a bag's the largest."""
    node = helper.make_node
    constants = {
        "first": np.array([0, 100]),
        "last": np.array([1, 101]),
        "axes": np.array([2, 3]),
        "least": np.array(-1e30, dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            node("Slice", [SPECTROGRAMS, "first", "last", "axes"], ["row"]),
            node("ReduceMean", ["row"], [SEGMENT_LOGITS], axes=[2, 3, 4], keepdims=0),
            node("Sigmoid", [SEGMENT_LOGITS], [SEGMENT_PROBABILITIES]),
            node("Where", [SEGMENT_MASK, SEGMENT_LOGITS, "least"], ["kept"]),
            node("ReduceMax", ["kept"], [BAG_LOGIT], axes=[1], keepdims=0),
            node("Sigmoid", [BAG_LOGIT], [BAG_PROBABILITY]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(SPECTROGRAMS, TensorProto.FLOAT, ["batch_size", "num_segments", 3, 224, 224]),
            helper.make_tensor_value_info(SEGMENT_MASK, TensorProto.BOOL, ["batch_size", "num_segments"]),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (
                (BAG_PROBABILITY, ["batch_size"]),
                (SEGMENT_PROBABILITIES, ["batch_size", "num_segments"]),
                (BAG_LOGIT, ["batch_size"]),
                (SEGMENT_LOGITS, ["batch_size", "num_segments"]),
            )
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString(deterministic=True)
    path = folder / "tiny.onnx"
    path.write_bytes(data)
    manifest = Manifest("bench-tiny", "1", sha256_of(data), "documented", 0.5, "made for measuring: detects nothing")
    write_manifest(path, manifest)
    return path
