"""What onnxruntime does not tell of an ONNX file: its opset, and whether its weights lie in it."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Read an ONNX file's opset and where its weights lie. Needs the file's size in memory once more meanwhile.

    Raises :class:`NotOnnx`.
    """
    import onnx  # 0.06 s and 6 MiB: only a process that loads a model takes them
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise NotOnnx(" ".join(str(error).split())) from None
    # ONNX's own operators have two spellings of their domain.
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or not versions:
        raise NotOnnx("it holds no graph with an operator set")
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return FileFacts(versions[-1], external)
