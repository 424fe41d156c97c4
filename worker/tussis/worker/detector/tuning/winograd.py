"""Winograd's minimal filtering for a graph's 3 x 3 convolutions, in ONNX's standard operators.

F(4 x 4, 3 x 3) computes a tile of 4 x 4 outputs from 6 x 6 inputs with 36 multiplications per channel pair. The direct
sum needs 144. Source of the algorithm and the matrices: Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", arXiv:1509.09308: Y = A^T [ (G g G^T) * (B^T d B) ] A. onnxruntime's convolutions already run at the
processor's peak, so only fewer multiplications can make them faster. The order of the sums differs, which changes
float32 outputs in the sixth digit.

The layout is chosen for onnxruntime. Images have their channels innermost. Every transform of a whole image is then one
product with a constant matrix, zero padding included. Every reordering moves whole rows of tiles. The 36 products are
one batched MatMul.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class _Minimal:
    """The matrices of F(m x m, 3 x 3)."""

    input: NDArray[np.float64]
    """B^T, (m + 2, m + 2)."""
    filter: NDArray[np.float64]
    """G, (m + 2, 3)."""
    output: NDArray[np.float64]
    """A^T, (m, m + 2)."""

    @property
    def tile(self) -> int:
        """m."""
        return int(self.output.shape[0])

    @property
    def points(self) -> int:
        """m + 2."""
        return int(self.output.shape[1])


_F4: Final = _Minimal(
    input=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        dtype=np.float64,
    ),
    filter=np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    output=np.array(
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float64
    ),
)
#: The image sides for which the rewriting is faster, measured (docs/performance.md). On 7 rows the filters, which are
#: four times larger, cost more than is saved on the images of a short recording. On 56 rows the transforms do, because
#: their cost grows with the cube of the side.
LEAST_SIDE: Final = 14
MOST_SIDE: Final = 28
#: With fewer filters or channels the transforms cost more than is saved on the products.
LEAST_CHANNELS: Final = 64
_ELEMENTWISE: Final = frozenset({"Relu", "Add"})


def filter_fewer(model: Any) -> int:
    """Rewrite the convolutions of an ``onnx.ModelProto`` for which it is faster. Return how many were rewritten.

    The model's shapes are inferred. A convolution with unknown shapes is not rewritten.
    """
    import onnx

    shapes = _image_shapes(onnx.shape_inference.infer_shapes(model))
    return _Rewriting(model.graph, shapes).run()


class _Rewriting:
    """One pass over the nodes in order. It tracks which values have channels innermost, and transposes where needed."""

    def __init__(self, graph: Any, shapes: dict[str, tuple[int, int, int]]) -> None:
        from onnx import helper, numpy_helper

        self._make = helper.make_node
        self._array = numpy_helper
        self._graph = graph
        self._shapes = shapes
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[Any] = []
        #: The names of values in layout (N, H, W, C), by their names in layout (N, C, H, W).
        self._inner: dict[str, str] = {}
        #: Values that exist in layout (N, C, H, W).
        self._outer = {value.name for value in graph.input} | set(self._weights)
        self._constants: dict[bytes, str] = {}
        self._count = 0

    def run(self) -> int:
        done = 0
        for node in list(self._graph.node):
            if self._pays(node):
                self._convolve(node)
                done += 1
            elif node.op_type in _ELEMENTWISE and self._stays_inner(node):
                inputs = [self._as_inner(name) for name in node.input]
                self._inner[node.output[0]] = self._add(node.op_type, inputs)
            else:
                for name in node.input:
                    self._as_outer(name)
                self._nodes.append(node)
                self._outer.update(node.output)
        for output in self._graph.output:
            self._as_outer(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]
        return done

    def _pays(self, node: Any) -> bool:
        if node.op_type != "Conv" or node.input[0] not in self._shapes or node.input[1] not in self._weights:
            return False
        _, height, width = self._shapes[node.input[0]]
        dims = list(self._weights[node.input[1]].dims)
        plain = {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3]}
        given = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
        padded = given.get("pads") == [1, 1, 1, 1] and given.get("auto_pad", 0) in (0, [])
        return (
            padded
            and all(given.get(name, value) == value for name, value in plain.items())
            and dims[2:] == [3, 3]
            and min(dims[:2]) >= LEAST_CHANNELS
            and self._weights[node.input[1]].data_type == 1
            and (len(node.input) < 3 or node.input[2] in self._weights)
            and min(height, width) >= LEAST_SIDE
            and max(height, width) <= MOST_SIDE
        )

    def _stays_inner(self, node: Any) -> bool:
        return any(name in self._inner for name in node.input) and all(
            name in self._shapes and self._shapes[name] == self._shapes.get(node.output[0]) for name in node.input
        )

    def _convolve(self, node: Any) -> None:
        channels, height, width = self._shapes[node.input[0]]
        weights = self._array.to_array(self._weights[node.input[1]]).astype(np.float64)
        filters = weights.shape[0]
        points, rows, columns = _F4.points, -(-height // _F4.tile), -(-width // _F4.tile)
        image = self._as_inner(node.input[0])
        # (N, H, W C) -> (N, points rows, W C) -> (points rows of all N, W, C) -> (.., points columns, C)
        flat = self._reshape(image, -1, height, width * channels)
        lines = self._add("MatMul", [self._put(_spread(height)), flat])
        lines = self._reshape(lines, -1, width, channels)
        values = self._add("MatMul", [self._put(_spread(width)), lines])
        values = self._reshape(values, -1, points, rows, points, columns * channels)
        values = self._add("Transpose", [values], perm=[1, 3, 0, 2, 4])
        values = self._reshape(values, points**2, -1, channels)
        products = self._add("MatMul", [values, self._put(_spectrum(weights))])
        products = self._reshape(products, points, points, -1, rows, columns * filters)
        products = self._add("Transpose", [products], perm=[2, 0, 3, 1, 4])
        products = self._reshape(products, -1, points * columns, filters)
        lines = self._add("MatMul", [self._put(_gather(width)), products])
        lines = self._reshape(lines, -1, points * rows, width * filters)
        result = self._add("MatMul", [self._put(_gather(height)), lines])
        result = self._reshape(result, -1, height, width, filters)
        if len(node.input) > 2:
            result = self._add("Add", [result, node.input[2]])
        self._inner[node.output[0]] = result

    def _as_inner(self, name: str) -> str:
        if name not in self._inner:
            self._inner[name] = self._add("Transpose", [name], perm=[0, 2, 3, 1])
        return self._inner[name]

    def _as_outer(self, name: str) -> None:
        if name not in self._outer and name in self._inner:
            self._nodes.append(self._make("Transpose", [self._inner[name]], [name], perm=[0, 3, 1, 2]))
            self._outer.add(name)

    def _reshape(self, name: str, *sizes: int) -> str:
        return self._add("Reshape", [name, self._put(np.array(sizes))])

    def _add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        self._count += 1
        output = f"winograd/{self._count}"
        self._nodes.append(self._make(operator, inputs, [output], name=output, **attributes))
        return output

    def _put(self, value: NDArray[Any]) -> str:
        array = value if value.dtype == np.int64 else value.astype(np.float32)
        key = repr(array.shape).encode() + array.tobytes()
        if key not in self._constants:
            name = f"winograd/constant_{len(self._constants)}"
            self._constants[key] = name
            tensor = self._array.from_array(array, name)
            self._graph.initializer.append(tensor)
        return self._constants[key]


def _spectrum(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transformed filters: (K, C, 3, 3) to (points squared, C, K)."""
    filters, channels = weights.shape[:2]
    both = np.einsum("ia,jb->ijab", _F4.filter, _F4.filter).reshape(_F4.points**2, 9)
    spectrum: NDArray[np.float64] = both @ weights.transpose(2, 3, 1, 0).reshape(9, -1)
    return spectrum.reshape(-1, channels, filters)


def _spread(side: int) -> NDArray[np.float64]:
    """The matrix from a line of an image to the points of its tiles: (points * tiles, side). Omits the padding."""
    tiles = -(-side // _F4.tile)
    matrix = np.zeros((_F4.points, tiles, side))
    for tile in range(tiles):
        for tap in range(_F4.points):
            place = _F4.tile * tile - 1 + tap
            if 0 <= place < side:
                matrix[:, tile, place] += _F4.input[:, tap]
    return matrix.reshape(-1, side)


def _gather(side: int) -> NDArray[np.float64]:
    """The matrix from the points of all tiles to a line of the output: (side, points * tiles)."""
    tiles = -(-side // _F4.tile)
    matrix = np.zeros((side, _F4.points, tiles))
    for place in range(side):
        matrix[place, :, place // _F4.tile] = _F4.output[place % _F4.tile]
    return matrix.reshape(side, -1)


def _image_shapes(model: Any) -> dict[str, tuple[int, int, int]]:
    return dict(_sizes(model.graph))


def _sizes(graph: Any) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Channels, rows and columns of every value with four dimensions, if all three are known."""
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[1:]):
            channels, height, width = (dim.dim_value for dim in dims[1:])
            yield value.name, (channels, height, width)
