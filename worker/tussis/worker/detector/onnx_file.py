"""What onnxruntime does not tell of an ONNX file: its opset, and whether its weights lie in it.

A session knows names, types and shapes, but not the opset; the ``onnx`` package would, and no worker needs it
otherwise. The few fields read here are of the outermost message and of the graph's initializers, in Protocol Buffers'
wire format (https://protobuf.dev/programming-guides/encoding/), with the numbers of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# onnx.proto: ModelProto.graph, ModelProto.opset_import, OperatorSetIdProto.domain and .version, GraphProto.initializer,
# TensorProto.data_location and its value EXTERNAL.
_GRAPH: Final = 7
_OPSET_IMPORT: Final = 8
_OPSET_DOMAIN: Final = 1
_OPSET_VERSION: Final = 2
_INITIALIZER: Final = 5
_DATA_LOCATION: Final = 14
_EXTERNAL: Final = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: A varint of 64 bits takes ten bytes.
_MAX_VARINT: Final = 10


class NotOnnx(ValueError):
    """The bytes are not an ONNX model."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What an ONNX file says of itself."""

    opset: int
    """Version of the default operator set."""
    external_data: bool
    """Whether weights lie in other files."""


def read_facts(data: bytes) -> FileFacts:
    """Read an ONNX file's opset and where its weights lie, in time that its weights do not decide.

    Raises :class:`NotOnnx`.
    """
    opset: int | None = None
    external = False
    has_graph = False
    for number, value in _fields(memoryview(data)):
        if number == _OPSET_IMPORT and isinstance(value, memoryview):
            domain, version = _opset(value)
            # ONNX's own operators have two spellings of their domain.
            if domain in ("", "ai.onnx"):
                opset = version
        elif number == _GRAPH and isinstance(value, memoryview):
            has_graph = True
            external = external or _has_external(value)
    if not has_graph or opset is None:
        raise NotOnnx("it holds no graph with an operator set")
    return FileFacts(opset, external)


def _opset(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(message):
        if number == _OPSET_DOMAIN and isinstance(value, memoryview):
            domain = bytes(value).decode("utf-8", "replace")
        elif number == _OPSET_VERSION and isinstance(value, int):
            version = value
    return domain, version


def _has_external(graph: memoryview) -> bool:
    return any(
        number == _INITIALIZER
        and isinstance(tensor, memoryview)
        and any(field == (_DATA_LOCATION, _EXTERNAL) for field in _fields(tensor))
        for number, tensor in _fields(graph)
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """A message's fields in order: number and value, unread where it is not a varint."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, position = _varint(message, position)
        else:
            if kind == _BYTES:
                size, position = _varint(message, position)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise NotOnnx(f"it is no Protocol Buffers message (wire type {kind})")
            end = position + size
            if end > len(message):
                raise NotOnnx("it is cut off, or no Protocol Buffers message")
            value, position = message[position:end], end
        yield number, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, seven bits a byte with the lowest first, and the position behind it."""
    value = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise NotOnnx("it is cut off, or no Protocol Buffers message")
