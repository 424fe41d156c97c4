"""The ranges of a graph's tensors, per channel, over a set of recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS
from tussis.worker.detector.session import open_session
from tussis.worker.pipeline.prepare import whole_mask

#: By tensor name: the least and the greatest value of each channel, (C,) each.
Ranges: TypeAlias = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

_EXTREMES: Final = ("ReduceMin", "ReduceMax")
#: The opset since which their axes are an input.
_AXES_AS_INPUT: Final = 18


def ranges_over(
    model: Any, nodes: Sequence[str], recordings: Iterable[NDArray[np.float32]], *, threads: int, where: str
) -> Ranges:
    """The least and the greatest value of every activation (N, C, ...) that is an input or output of the nodes.

    Only one recording at a time is in memory, and two numbers per channel.

    Args:
        model: ``onnx.ModelProto``, simplified; not changed.
        nodes: names of convolutions and of the nodes between them.
        recordings: ``spectrograms`` of one recording each, float32 (1, S, 3, 224, 224).
        threads: threads of one run.
        where: names the model in errors.

    Raises :class:`ModelRefused`.
    """
    tensors = _tensors(model, nodes)
    data, outputs = _watched(model, tensors)
    session = open_session(data, where, intra_op_threads=threads).inference
    low: list[NDArray[np.float64]] = []
    high: list[NDArray[np.float64]] = []
    for spectrograms in recordings:
        found = session.run(outputs, {SPECTROGRAMS: spectrograms, SEGMENT_MASK: whole_mask(spectrograms)})
        extremes = [np.asarray(values, dtype=np.float64) for values in found]
        lows, highs = extremes[0::2], extremes[1::2]
        low = [np.minimum(*pair) for pair in zip(low or lows, lows, strict=True)]
        high = [np.maximum(*pair) for pair in zip(high or highs, highs, strict=True)]
    return dict(zip(tensors, zip(low, high, strict=True), strict=False))


def _watched(model: Any, tensors: Sequence[str]) -> tuple[bytes, list[str]]:
    """The model with two additional outputs for each tensor, and the names of these outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    opset = max(entry.version for entry in watched.opset_import if entry.domain in ("", "ai.onnx"))
    rank = next(
        len(weight.dims)
        for node in graph.node
        if node.op_type == "Conv"
        for weight in graph.initializer
        if weight.name == node.input[1]
    )
    axes = [axis for axis in range(rank) if axis != 1]
    graph.initializer.append(numpy_helper.from_array(np.array(axes, dtype=np.int64), "tussis_axes"))
    outputs = []
    for index, tensor in enumerate(tensors):
        for operator in _EXTREMES:
            name = f"tussis_{operator}_{index}"
            if opset >= _AXES_AS_INPUT:
                node = helper.make_node(operator, [tensor, "tussis_axes"], [name], name=name, keepdims=0)
            else:
                node = helper.make_node(operator, [tensor], [name], name=name, keepdims=0, axes=axes)
            graph.node.append(node)
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]))
            outputs.append(name)
    return watched.SerializeToString(), outputs


def _tensors(model: Any, nodes: Sequence[str]) -> list[str]:
    constants = {weight.name for weight in model.graph.initializer}
    chosen = set(nodes)
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in chosen:
            found.update(dict.fromkeys(name for name in (*node.input, *node.output) if name and name not in constants))
    return list(found)
