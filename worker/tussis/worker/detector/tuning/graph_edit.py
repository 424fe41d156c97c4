"""A few edits of an ONNX graph, and what has to be known of it before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NotRecognised(Exception):
    """The graph is none that a rewriting understands; the message says what is in the way, in one line."""


class GraphEdit:
    """An ``onnx.GraphProto`` with the few edits that are made here. Raises :class:`NotRecognised` for branches."""

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
        """The nodes that take a value. Raises :class:`NotRecognised` where it is an output of the graph."""
        if any(output.name == name for output in self.proto.output):
            raise NotRecognised(f'"{name}" is an output')
        return [node for node in self.proto.node if name in node.input]

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer or a Constant node; None of anything else."""
        from onnx import numpy_helper

        for tensor in self.proto.initializer:
            if tensor.name == name:
                # A default of an input is no constant: a caller may give another.
                overridable = any(value.name == name for value in self.proto.input)
                return None if overridable else np.asarray(numpy_helper.to_array(tensor))
        for node in self.proto.node:
            if name in node.output and node.op_type == "Constant" and node.attribute[0].name == "value":
                return np.asarray(numpy_helper.to_array(node.attribute[0].t))
        return None

    def fresh(self, hint: str) -> str:
        """A name that is not taken."""
        name, count = f"tussis/{hint}", 0
        while name in self.taken:
            count += 1
            name = f"tussis/{hint}_{count}"
        self.taken.add(name)
        return name

    def put(self, value: NDArray[Any] | np.float32) -> str:
        """An initializer's name."""
        from onnx import numpy_helper

        name = self.fresh("constant")
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def front(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Add a node in front of all others, behind those added before."""
        node = self._make_node(operator, list(inputs), [output], name=output, **attributes)
        self.proto.node.insert(len(self._before), node)
        self._before.append(node)

    def replace(self, node: Any, operator: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Put another node in a node's place, with its output."""
        made = self._make_node(operator, list(inputs), list(node.output), name=node.name, **attributes)
        node.CopyFrom(made)

    def remove(self, node: Any) -> None:
        """Take a node out; its users have been given another value."""
        self.proto.node.remove(node)
