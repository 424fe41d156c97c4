"""Find the part of a graph that may have a lower precision: the convolutions and the nodes between them.

All nodes after the last convolution (attention, masks, heads) stay in float32. Their cost is very small, and a lower
precision there would break the contract. Attention scores that are quantised together with the masking constant depend
on the padding. The most negative float32, which masks them, cannot be represented in float16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import onnx

from tussis.shared.errors import ModelRefused

#: Operators between two convolutions that a quantised graph computes in 8 bits.
_JOINING: Final = frozenset({"Add", "Relu", "Clip", "MaxPool", "AveragePool"})
_ACTIVATIONS: Final = frozenset({"Relu", "Clip"})
#: Operators that occur only in a quantised model.
_QUANTISED: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)

NumberType: TypeAlias = Literal["float32", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The names of a graph's nodes by group. The tuples are in the graph's order."""

    convolutions: tuple[str, ...]
    """Convolutions with constant weights."""
    upstream: frozenset[str]
    """The convolutions, and every node that one of them depends on."""
    rest: tuple[str, ...]
    """All other nodes."""


def simplify(data: bytes, where: str) -> Any:
    """A float32 model as ``onnx.ModelProto`` with constants folded, BatchNorm merged, types inferred and nodes named.

    Raises :class:`ModelRefused` for a model that is already quantised or has float16 weights.
    """
    from onnxruntime.quantization import quant_pre_process

    model = onnx.load_model_from_string(data)
    match number_type(model):
        case "int8":
            raise ModelRefused(f"{where} is already quantised: give the float32 model that it was made from")
        case "float16":
            raise ModelRefused(f"{where} has float16 weights: give the float32 model that it was made from")
    with tempfile.TemporaryDirectory(prefix="tussis-") as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "simplified.onnx"
        given.write_bytes(data)
        # Symbolic shape inference is for transformers and needs another package.
        quant_pre_process(given, made, skip_symbolic_shape=True)
        model = onnx.load_model(made)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def number_type(model: Any) -> NumberType:
    """The lowest precision in a model, an ``onnx.ModelProto``. Some of its layers may have a higher one."""
    if any(node.op_type in _QUANTISED for node in model.graph.node):
        return "int8"
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in model.graph.initializer):
        return "float16"
    return "float32"


def backbone_of(model: Any, where: str) -> Backbone:
    """The part of a simplified model that may have a lower precision.

    Raises :class:`ModelRefused` if the model has no convolution.
    """
    constants = {weight.name for weight in model.graph.initializer}
    convolutions = tuple(
        node.name for node in model.graph.node if node.op_type == "Conv" and set(node.input[1:]) <= constants | {""}
    )
    if not convolutions:
        raise ModelRefused(f"{where} has no convolution: another number type would not make it faster")
    wanted: set[str] = set()
    upstream: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in convolutions or wanted.intersection(node.output):
            upstream.add(node.name)
            wanted.update(node.input)
    rest = tuple(node.name for node in model.graph.node if node.name not in upstream)
    return Backbone(convolutions, frozenset(upstream), rest)


def in_eight_bits(model: Any, backbone: Backbone, excluded: Iterable[str] = ()) -> tuple[str, ...]:
    """The nodes to quantise: the convolutions that are not excluded, and the nodes between them.

    The addition of the last block is left out if only float32 nodes follow it.
    """
    constants = {weight.name for weight in model.graph.initializer}
    chosen = set(backbone.convolutions) - set(excluded)
    made_by = {output: node.name for node in model.graph.node for output in node.output}
    convolutions = frozenset(chosen)
    for node in model.graph.node:
        if node.op_type not in _JOINING:
            continue
        inputs = [name for name in node.input if name and name not in constants]
        if not all(made_by.get(name) in chosen for name in inputs):
            continue
        follows = node.op_type in _ACTIVATIONS and made_by[inputs[0]] in convolutions
        sums = node.op_type == "Add" and len(inputs) < 2
        if follows or (node.name in backbone.upstream and not sums):
            chosen.add(node.name)
    return tuple(node.name for node in model.graph.node if node.name in chosen)


def serialised(model: Any) -> bytes:
    """Check and serialise a model, without metadata and without unused operator sets."""
    used = {node.domain for node in model.graph.node}
    imported = [entry for entry in model.opset_import if entry.domain in used | {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(imported)
    # Metadata comes from the conversion tools. Shapes are inferred again on load.
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""
    ordered = _in_order(model.graph)
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _in_order(graph: Any) -> list[Any]:
    """The nodes sorted by dependency, otherwise in their order. The tools append their nodes at the end."""
    made = {output for node in graph.node for output in node.output}
    ordered: list[Any] = []
    waiting = list(graph.node)
    while waiting:
        later = []
        for node in waiting:
            if made.isdisjoint(node.input):
                made.difference_update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        waiting = later
    return ordered
