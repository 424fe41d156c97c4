"""Properties of an ONNX file that onnxruntime does not expose: the opset, and whether weights are in other files."""

from __future__ import annotations

from dataclasses import dataclass


class NotOnnx(ValueError):
    """The bytes are not an ONNX model."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Properties that are read from an ONNX file."""

    opset: int
    """Version of the default operator set."""
    external_data: bool
    """Whether weights are in other files."""


def read_facts(data: bytes) -> FileFacts:
    """Read the properties of an ONNX file. Needs the file's size in memory once more while it runs.

    Raises :class:`NotOnnx`.
    """
    import onnx  # takes 0.06 s and 6 MiB, therefore only in a process that loads a model
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise NotOnnx(" ".join(str(error).split())) from None
    # The domain of ONNX's own operators has two spellings.
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or not versions:
        raise NotOnnx("it contains no graph with an operator set")
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return FileFacts(versions[-1], external)
