"""Equalise the ranges of a tensor's channels before quantisation, without changing the model's outputs.

All channels of a tensor share one 8-bit scale. A channel with a tenth of the widest channel's range gets a tenth of the
steps. There are only sums, maxima and ReLU between convolutions, and a positive factor passes through all of these. A
channel can therefore be scaled in the weights that make it, and scaled back in the weights that read it. (Cross-layer
equalisation: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.1.) On the reference model, with two convolutions in float32, it reduced the p99 of the bag probability's
shift from 0.035 to 0.022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tussis.worker.modelling.quantization.graph import Backbone
from tussis.worker.modelling.quantization.ranges import Ranges

#: Operators through which a positive factor of a channel passes, for all values.
_HOMOGENEOUS: Final = frozenset({"Add", "Relu", "MaxPool", "AveragePool"})
#: The smallest factor. A channel with a small range over the calibration recordings may have a larger one on others.
_LEAST: Final = 1 / 8


@dataclass(slots=True)
class _Group:
    """Tensors that must have the same channel factors, and the convolutions that make and read them."""

    tensors: set[str] = field(default_factory=set)
    makers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)
    free: bool = True
    """Whether no other node makes or reads them."""


def equalise(model: Any, backbone: Backbone, ranges: Ranges) -> tuple[Any, Ranges]:
    """A copy of a simplified model with equalised channels, and the ranges of its tensors.

    A group of tensors stays unchanged if a node other than a convolution makes or reads it. The last group is an
    example: the heads read it.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    weights = {weight.name: weight for weight in copied.graph.initializer}
    scaled = dict(ranges)
    for group in _groups(copied, backbone):
        known = [tensor for tensor in sorted(group.tensors) if tensor in ranges]
        if not group.free or not group.makers or not group.readers or not known:
            continue
        factors = _factors([scaled[tensor] for tensor in known])
        for node in group.makers:
            for name in node.input[1:3]:
                _multiply(weights[name], 1 / factors, axis=0)
        for node in group.readers:
            # The weights of a depthwise convolution have the input's channels on the first axis.
            _multiply(weights[node.input[1]], factors, axis=1 if _groups_of(node) == 1 else 0)
        for tensor in known:
            low, high = scaled[tensor]
            scaled[tensor] = (low / factors, high / factors)
    return copied, scaled


def _groups(model: Any, backbone: Backbone) -> Iterator[_Group]:
    weights = {weight.name: weight for weight in model.graph.initializer}
    uses = [name for node in model.graph.node for name in node.input[1:]]
    convolutions = set(backbone.convolutions)
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    group_of: dict[str, _Group] = {}

    def of(tensor: str) -> _Group:
        if tensor not in group_of:
            group_of[tensor] = _Group({tensor}, free=tensor not in outside)
        return group_of[tensor]

    for node in model.graph.node:
        activations = [name for name in (*node.input, *node.output) if name and name not in weights]
        if node.op_type in _HOMOGENEOUS and (node.op_type != "Add" or len(activations) == 3):
            first = of(activations[0])
            for name in activations[1:]:
                other = of(name)
                if other is first:
                    continue
                first.tensors |= other.tensors
                first.makers += other.makers
                first.readers += other.readers
                first.free &= other.free
                for tensor in other.tensors:
                    group_of[tensor] = first
            continue
        # Weights that several nodes use cannot be changed for one of them.
        own = node.name in convolutions and all(uses.count(name) == 1 for name in node.input[1:] if name)
        if own and _groups_of(node) in (1, weights[node.input[1]].dims[0]):
            of(node.input[0]).readers.append(node)
            of(node.output[0]).makers.append(node)
        else:
            for name in activations:
                of(name).free = False
    yield from {id(group): group for group in group_of.values()}.values()


def _factors(ranges: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """For each channel the square root of its largest share of the widest channel's range: (C,), at most 1.

    The weights that read the channel have as few steps as the tensor, and become less even as the tensor becomes more
    even. The square root is a compromise between the two.
    """
    shares = []
    for low, high in ranges:
        reach = np.maximum(np.abs(low), np.abs(high))
        shares.append(reach / max(float(reach.max()), np.finfo(np.float64).tiny))
    share: NDArray[np.float64] = np.max(shares, axis=0)
    return np.clip(np.sqrt(share), _LEAST, 1.0)


def _multiply(weight: Any, factors: NDArray[np.float64], axis: int) -> None:
    values = numpy_helper.to_array(weight)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight.CopyFrom(numpy_helper.from_array((values * factors.reshape(shape)).astype(values.dtype), weight.name))


def _groups_of(node: Any) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
