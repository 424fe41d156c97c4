"""Find the layers of the architecture in an ONNX graph: which values are the input and output of which modules.

Each exporter gives other names to the same values, so nodes are recognised by the shapes of their weights. Layers of
the same shape follow each other in one chain of the network, so their order is the same in every export. Only the last
layers of the two heads have the same shape without a chain. The one for the segments is recognised by the output that
it leads to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import onnx
from torch import nn

from tussis.worker.detector.contract import SEGMENT_PROBABILITIES
from tussis.worker.modelling.architecture import CoughNet

_Key: TypeAlias = tuple[tuple[int, ...], bool]
"""Shape of the weights as in PyTorch, and whether the layer leads to the segments' probabilities."""

#: The modules that the segments' probabilities do not depend on.
_BAG_ONLY: Final = ("attn.", "bag_head.")


class NotMatched(Exception):
    """The graph does not have the layers of the architecture. The message has the first difference."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Modules of the network, and the values of the graph that are their input and output."""

    modules: tuple[str, ...]
    """One after the other. Several if one node computes them, such as a convolution with its batch norm."""
    input: str
    output: str

    @property
    def name(self) -> str:
        """The names of the modules."""
        return " + ".join(self.modules)


def match_layers(model: Any, network: CoughNet) -> tuple[Layer, ...]:
    """The layers with weights, in the network's order. ``model`` is an ``onnx.ModelProto``.

    Raises :class:`NotMatched`.
    """
    graph = _Graph(model)
    wanted: dict[_Key, list[str]] = defaultdict(list)
    modules = {name: module for name, module in network.named_modules() if _has_weights(module)}
    for name, module in modules.items():
        if not _is_norm(module):
            assert isinstance(module.weight, nn.Parameter)
            wanted[tuple(module.weight.shape), not name.startswith(_BAG_ONLY)].append(name)
    found: dict[_Key, list[Layer]] = graph.weighted()
    for key in [*wanted, *found]:
        there, needed = len(found.get(key, ())), len(wanted.get(key, ()))
        if there != needed:
            raise NotMatched(f"the graph has {there} layers with weights of shape {key[0]}, the network {needed}")
    layers = {
        name: Layer((name,), one.input, one.output)
        for key, names in wanted.items()
        for name, one in zip(names, found[key], strict=True)
    }
    return _with_norms(modules, layers, graph.norms())


def training_norms(model: Any) -> int:
    """The number of batch norms that use the statistics of the batch, as in training."""
    return sum(
        attribute.name == "training_mode" and attribute.i == 1
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for attribute in node.attribute
    )


def _with_norms(
    modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], norms: Mapping[str, str]
) -> tuple[Layer, ...]:
    """Add the batch norms: as own layers, or joined with the layer that they are folded into.

    ``norms``: input of each batch norm in the graph -> its output.
    """
    names = list(modules)
    convolved = {layers[name].output for name in layers}
    others = iter([(value, output) for value, output in norms.items() if value not in convolved])
    joined: list[Layer] = []
    pending: tuple[str, ...] = ()
    for index, name in enumerate(names):
        if not _is_norm(modules[name]):
            layer = layers[name]
            joined.append(Layer((*pending, name), layer.input, layer.output))
            pending = ()
        elif isinstance(modules[names[index - 1]], nn.Conv2d):
            before = joined[-1]
            if before.output in norms:
                joined.append(Layer((name,), before.output, norms[before.output]))
            else:
                joined[-1] = Layer((*before.modules, name), before.input, before.output)
        elif (own := next(others, None)) is not None:
            joined.append(Layer((name,), *own))
        else:
            pending = (name,)
    return tuple(joined)


def _has_weights(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear) or _is_norm(module)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)


class _Graph:
    """The nodes of a graph, and what they are made of."""

    def __init__(self, model: Any) -> None:
        self._nodes = list(model.graph.node)
        self._shapes: dict[str, tuple[int, ...]] = {one.name: tuple(one.dims) for one in model.graph.initializer}
        self._uses: dict[str, list[Any]] = defaultdict(list)
        for node in self._nodes:
            for name in node.input:
                self._uses[name].append(node)
            shape = self._constant(node)
            if shape is not None:
                self._shapes[node.output[0]] = shape
        self._to_segments = self._before(SEGMENT_PROBABILITIES)

    def weighted(self) -> dict[_Key, list[Layer]]:
        """The convolutions and products with constant weights, in the graph's order."""
        found: dict[_Key, list[Layer]] = defaultdict(list)
        for node in self._nodes:
            shape = self._weights(node)
            if shape is not None:
                output = self._with_bias(node)
                found[shape, node.output[0] in self._to_segments].append(Layer((), node.input[0], output))
        return found

    def norms(self) -> dict[str, str]:
        """Input of each batch norm -> its output."""
        return {node.input[0]: node.output[0] for node in self._nodes if node.op_type == "BatchNormalization"}

    def _weights(self, node: Any) -> tuple[int, ...] | None:
        """The shape of a node's constant weights, as PyTorch has them. None for a node without weights."""
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            return None
        shape = self._shapes.get(node.input[1])
        if shape is None or node.op_type == "Conv":
            return shape
        kept = node.op_type == "Gemm" and any(one.name == "transB" and one.i == 1 for one in node.attribute)
        return shape if kept else shape[::-1]

    def _with_bias(self, node: Any) -> str:
        """The output of a product after the addition of its bias."""
        output: str = node.output[0]
        uses = self._uses[output]
        if node.op_type != "MatMul" or len(uses) != 1 or uses[0].op_type != "Add":
            return output
        (other,) = [name for name in uses[0].input if name != output] or [""]
        return str(uses[0].output[0]) if len(self._shapes.get(other, (0, 0))) == 1 else output

    def _constant(self, node: Any) -> tuple[int, ...] | None:
        """The shape of a node's output if it is a constant weight."""
        if node.op_type == "Constant":
            return next((tuple(one.t.dims) for one in node.attribute if one.name == "value"), None)
        if node.op_type not in ("Identity", "Transpose") or node.input[0] not in self._shapes:
            return None
        shape = self._shapes[node.input[0]]
        if node.op_type == "Identity":
            return shape
        order: Iterable[int] = next((one.ints for one in node.attribute if one.name == "perm"), range(len(shape))[::-1])
        return tuple(shape[axis] for axis in order)

    def _before(self, output: str) -> set[str]:
        """The values that an output depends on, and itself."""
        wanted = {output}
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
        return wanted


def with_outputs(model: Any, names: Iterable[str]) -> bytes:
    """The ONNX file of a model with values of its graph as further outputs. The model is not changed."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    there = {output.name for output in copied.graph.output}
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there)
    data: bytes = copied.SerializeToString()
    return data
