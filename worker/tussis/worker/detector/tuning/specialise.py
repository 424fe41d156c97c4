"""Rewrite a model's graph so that it takes mel images as input.

The contract's ``spectrograms`` contain the same image three times, letterboxed and with ImageNet's normalisation. A
graph that gets no other input can take the mel image, (B, S, 160, 201), and do these steps itself. Its first operation
must be a convolution over the three channels. That convolution can be rewritten for a single image channel:

    sum over c of W_c * (p / (2 std_c) + (0.5 - mean_c) / std_c)  =  U * p + V * 1,   p in [-1, 1],

where U and V are the sums of the weights, multiplied by those two factors. The constant part V * 1 is not a plain bias:
the convolution pads with zeros *after* ImageNet's normalisation, so near the border the taps outside the image do not
contribute. A second channel of ones, which the convolution pads with the same zeros, gives the exact value. (A bias map
that is added after the convolution costs the same, but prevents onnxruntime's fusion with the activation.
``docs/performance.md`` has the numbers.)

``choice.py`` compares outputs and times before a worker uses a rewritten graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import (
    CONTENT_ROWS,
    FRAMES,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MARGIN_ROWS,
    MARGIN_VALUE,
    MEL_BANDS,
)
from tussis.worker.detector.contract import SPECTROGRAMS
from tussis.worker.detector.mels import MELS, ROUNDED
from tussis.worker.detector.tuning.graph_edit import GraphEdit, NotRecognised
from tussis.worker.detector.tuning.winograd import filter_fewer

#: Increase it with every change of the rewriting or of its measurement. Cached choices of other versions are not used.
REWRITE_VERSION: Final = 5

_CHANNELS: Final = len(IMAGENET_MEAN)
# ImageNet's normalisation of p in [-1, 1]: x_c = p * _SCALE[c] + _SHIFT[c].
_SCALE: Final = 0.5 / np.array(IMAGENET_STD)
_SHIFT: Final = (0.5 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)


#: The form of a rewritten graph whose first convolution takes the image once.
FOLDED: Final = "folded"
#: The same, and some other convolutions need fewer multiplications (:mod:`tussis.worker.detector.tuning.winograd`).
WINOGRAD: Final = "folded+winograd"


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """A graph that takes ``mels`` in place of ``spectrograms``."""

    form: str
    """:data:`FOLDED` or :data:`WINOGRAD`."""
    data: bytes
    """The ONNX file."""


def rewritings(data: bytes, only: str | None = None) -> Iterator[Rewritten]:
    """Rewrite a model that follows the contract. Yields the rewritten graphs one by one, or ``only`` that form.

    The processor determines which one is the fastest (docs/performance.md).

    Raises :class:`NotRecognised`.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise NotRecognised(f"onnx cannot read it: {error}") from None
    _rewrite(GraphEdit(model.graph))
    if only in (None, FOLDED):
        yield Rewritten(FOLDED, _file(model))
    if only in (None, WINOGRAD) and filter_fewer(model):
        yield Rewritten(WINOGRAD, _file(model))


def _file(model: Any) -> bytes:
    from onnx import checker

    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise NotRecognised(f"the rewritten graph is not valid: {' '.join(str(error).split())[:200]}") from None
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _rewrite(graph: GraphEdit) -> None:
    users = graph.users(SPECTROGRAMS)
    shapes = [node for node in users if node.op_type == "Shape"]
    others = [node for node in users if node.op_type != "Shape"]
    if not others:
        raise NotRecognised(f'nothing uses "{SPECTROGRAMS}"')
    convolution = _first_convolution(graph, others)
    if convolution is None:
        raise NotRecognised("it does not begin with a float32 convolution over the three channels")
    _replace_input(graph)
    for node in shapes:
        _reshape_question(graph, node)
    _fold(graph, convolution, _letterbox(graph))


# --- recognising ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    reshape: Any
    node: Any
    weights: NDArray[np.float64]
    """(filters, 3, height, width)."""


def _first_convolution(graph: GraphEdit, users: Sequence[Any]) -> _Convolution | None:
    """Find ``spectrograms`` -> Reshape -> Conv, with constant float32 weights over three channels and no other users.

    None if the graph does not begin like this.
    """
    if len(users) != 1 or users[0].op_type != "Reshape":
        return None
    reshape = users[0]
    below = graph.users(reshape.output[0])
    if len(below) != 1 or below[0].op_type != "Conv" or below[0].input[0] != reshape.output[0]:
        return None
    node = below[0]
    weights = graph.constant(node.input[1])
    if weights is None or weights.dtype != np.float32 or weights.ndim != 4 or weights.shape[1] != _CHANNELS:
        return None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "group" in attributes and attributes["group"].i != 1:
        return None
    return _Convolution(reshape, node, weights.astype(np.float64))


# --- rewriting --------------------------------------------------------------------------------------------------------


def _reshape_question(graph: GraphEdit, node: Any) -> None:
    """Replace a Shape node on ``spectrograms`` so that it still gives (B, S, 3, 224, 224)."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    start, end = attributes.get("start", 0), attributes.get("end", 5)
    if 0 <= start <= end <= 2:
        node.input[0] = MELS
        return
    leading = graph.fresh("leading_sizes")
    whole = graph.fresh("sizes")
    graph.front("Shape", [MELS], leading, start=0, end=2)
    graph.front("Concat", [leading, graph.put(np.array([_CHANNELS, IMAGE_SIZE, IMAGE_SIZE]))], whole, axis=0)
    sizes = range(5)[slice(start, end)]
    graph.replace(node, "Gather", [whole, graph.put(np.array(sizes, dtype=np.int64))], axis=0)


def _fold(graph: GraphEdit, convolution: _Convolution, image: str) -> None:
    node, weights = convolution.node, convolution.weights
    both = np.stack([np.tensordot(weights, factor, axes=(1, 0)) for factor in (_SCALE, _SHIFT)], axis=1)
    ones = graph.fresh("image_and_ones")
    # Append a channel of ones after the image channel.
    graph.front("Pad", [image, graph.put(np.array([0, 0, 0, 0, 0, 1, 0, 0])), graph.put(np.float32(1.0))], ones)
    graph.remove(convolution.reshape)
    node.input[0] = ones
    node.input[1] = graph.put(both.astype(np.float32))


def _replace_input(graph: GraphEdit) -> None:
    """Replace the input ``spectrograms`` by the inputs ``mels`` and ``round_to_float16``."""
    from onnx import TensorProto, helper

    if MELS in graph.taken or ROUNDED in graph.taken:
        raise NotRecognised(f'it already has a "{MELS}" or "{ROUNDED}"')
    inputs = graph.proto.input
    index = next(i for i, value in enumerate(inputs) if value.name == SPECTROGRAMS)
    leading = list(inputs[index].type.tensor_type.shape.dim)[:2]
    mels = helper.make_tensor_value_info(MELS, TensorProto.FLOAT, [None, None, MEL_BANDS, FRAMES])
    for dimension, original in zip(mels.type.tensor_type.shape.dim, leading, strict=False):
        dimension.CopyFrom(original)
    inputs[index].CopyFrom(mels)
    inputs.append(helper.make_tensor_value_info(ROUNDED, TensorProto.BOOL, []))
    # The inferred shapes before the first convolution are no longer valid.
    del graph.proto.value_info[:]


def _letterbox(graph: GraphEdit) -> str:
    """Add the nodes of the letterbox: stretch ``mels``, round if requested, pad. Float32 (B * S, 1, 224, 224)."""
    from onnx import TensorProto

    flat, wide, stretched = graph.fresh("flat"), graph.fresh("wide"), graph.fresh("stretched")
    graph.front("Reshape", [MELS, graph.put(np.array([-1, 1, MEL_BANDS, FRAMES]))], flat)
    graph.front("MatMul", [flat, graph.put(_stretch(FRAMES, IMAGE_SIZE).T)], wide)
    graph.front("MatMul", [graph.put(_stretch(MEL_BANDS, CONTENT_ROWS)), wide], stretched)
    half, back, rounded = graph.fresh("half"), graph.fresh("half_as_float"), graph.fresh("rounded")
    graph.front("Cast", [stretched], half, to=TensorProto.FLOAT16)
    graph.front("Cast", [half], back, to=TensorProto.FLOAT)
    graph.front("Where", [ROUNDED, back, stretched], rounded)
    image = graph.fresh("image")
    margins = np.array([0, 0, MARGIN_ROWS, 0, 0, 0, MARGIN_ROWS, 0])
    graph.front("Pad", [rounded, graph.put(margins), graph.put(np.float32(MARGIN_VALUE))], image)
    return image


def _stretch(source: int, target: int) -> NDArray[np.float32]:
    """The matrix of a bilinear interpolation of a line: (target, source).

    The weights are exactly those of torch. The weights of ONNX's Resize differ from them by up to 1e-5. That difference
    would change the float16 value of every 50th pixel.
    """
    import torch

    identity = torch.eye(source)[None, None]
    lines = torch.nn.functional.interpolate(identity, size=(target, source), mode="bilinear", align_corners=False)
    matrix: NDArray[np.float32] = lines[0, 0].numpy()
    return matrix
