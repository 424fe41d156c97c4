"""Which part of a graph may be computed more coarsely: its convolutions, and what stands between them.

What follows the last convolution (attention, masks, the heads) stays in float32. It costs next to nothing, and coarse
numbers there break the contract: quantised together with the constant that masks them, attention scores depend on the
padding, and a mask's most negative float32 is no float16 at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from tussis.shared.errors import ModelRefused

#: Operators that a quantised graph carries on in 8 bits between two convolutions.
_JOINING: Final = frozenset({"Add", "Relu", "Clip", "MaxPool", "AveragePool"})
_ACTIVATIONS: Final = frozenset({"Relu", "Clip"})
#: Any of them, and somebody has quantised the model before.
_QUANTISED: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)


@dataclass(frozen=True, slots=True)
class Backbone:
    """The nodes of a graph by their names, each group in the graph's order."""

    convolutions: tuple[str, ...]
    """Those whose weights are constants."""
    upstream: frozenset[str]
    """The convolutions, and every node that one of them depends on."""
    rest: tuple[str, ...]
    """All other nodes."""


def simplified(data: bytes, where: str) -> Any:
    """A float32 model as ``onnx.ModelProto`` with constants folded, BatchNorm merged, types inferred and nodes named.

    Raises :class:`ModelRefused` for a model that is quantised already, or in float16.
    """
    from onnxruntime.quantization import quant_pre_process

    model = onnx.load_model_from_string(data)
    if any(node.op_type in _QUANTISED for node in model.graph.node):
        raise ModelRefused(f"{where} is quantised already: give the float32 model that it was made from")
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in model.graph.initializer):
        raise ModelRefused(f"{where} holds float16 weights: give the float32 model that it was made from")
    with tempfile.TemporaryDirectory(prefix="tussis-") as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "simplified.onnx"
        given.write_bytes(data)
        # Symbolic shapes are for transformers, and want another package.
        quant_pre_process(given, made, skip_symbolic_shape=True)
        model = onnx.load_model(made)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def backbone_of(model: Any, where: str) -> Backbone:
    """The part of a simplified model that is to be coarser.

    Raises :class:`ModelRefused` when it has no convolution.
    """
    constants = {weight.name for weight in model.graph.initializer}
    convolutions = tuple(
        node.name for node in model.graph.node if node.op_type == "Conv" and set(node.input[1:]) <= constants | {""}
    )
    if not convolutions:
        raise ModelRefused(f"{where} has no convolution: nothing here would be faster in another type")
    wanted: set[str] = set()
    upstream: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in convolutions or wanted.intersection(node.output):
            upstream.add(node.name)
            wanted.update(node.input)
    rest = tuple(node.name for node in model.graph.node if node.name not in upstream)
    return Backbone(convolutions, frozenset(upstream), rest)


def in_eight_bits(model: Any, backbone: Backbone, excluded: Iterable[str] = ()) -> tuple[str, ...]:
    """The nodes to quantise: the convolutions that are not excluded, and what joins their outputs on the way to others.

    The last block's addition is left out where nothing but float32 follows.
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
    """The file of a model that was made here: checked, without what depends on the machine or names no operator."""
    used = {node.domain for node in model.graph.node}
    imported = [entry for entry in model.opset_import if entry.domain in used | {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(imported)
    # Of the tools on the way; shapes are inferred again on load.
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
    """The nodes, each after those that it depends on, otherwise as they stand: the tools append theirs at the end."""
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
