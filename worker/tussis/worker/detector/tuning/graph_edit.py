"""Queries and edits of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NotRecognised(Exception):
    """The graph cannot be rewritten. The message has the reason in one line."""


class GraphEdit:
    """Edits an ``onnx.GraphProto`` in place. Raises :class:`NotRecognised` for a graph with branches or loops."""

    def __init__(self, proto: Any) -> None:
        from onnx import helper

        self._make_node = helper.make_node
        self.proto = proto
        self._before: list[Any] = []
        if any(attribute.HasField("g") or attribute.graphs for node in proto.node for attribute in node.attribute):
            raise NotRecognised("it has branches or loops")
        self.taken = {name for node in proto.node for name in (*node.input, *node.output)}
        self.taken |= {value.name for value in (*proto.input, *proto.output, *proto.initializer)}

    def users(self, name: str) -> list[Any]:
        """The nodes that have a value as input. Raises :class:`NotRecognised` if it is an output of the graph."""
        if any(output.name == name for output in self.proto.output):
            raise NotRecognised(f'"{name}" is an output')
        return [node for node in self.proto.node if name in node.input]

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer or of a Constant node. None for any other value."""
        from onnx import numpy_helper

        for tensor in self.proto.initializer:
            if tensor.name == name:
                # An initializer that is also an input is only a default: a caller may pass another value.
                overridable = any(value.name == name for value in self.proto.input)
                return None if overridable else np.asarray(numpy_helper.to_array(tensor))
        for node in self.proto.node:
            if name in node.output and node.op_type == "Constant" and node.attribute[0].name == "value":
                return np.asarray(numpy_helper.to_array(node.attribute[0].t))
        return None

    def fresh(self, hint: str) -> str:
        """A name that is not in use. It is reserved."""
        name, count = f"tussis/{hint}", 0
        while name in self.taken:
            count += 1
            name = f"tussis/{hint}_{count}"
        self.taken.add(name)
        return name

    def put(self, value: NDArray[Any] | np.float32) -> str:
        """Add an initializer and return its name."""
        from onnx import numpy_helper

        name = self.fresh("constant")
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def front(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Insert a node at the start of the graph, after the nodes that were inserted before."""
        node = self._make_node(operator, list(inputs), [output], name=output, **attributes)
        self.proto.node.insert(len(self._before), node)
        self._before.append(node)

    def replace(self, node: Any, operator: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Replace a node by another one with the same outputs."""
        made = self._make_node(operator, list(inputs), list(node.output), name=node.name, **attributes)
        node.CopyFrom(made)

    def remove(self, node: Any) -> None:
        """Remove a node. No other node may use its outputs any more."""
        self.proto.node.remove(node)
