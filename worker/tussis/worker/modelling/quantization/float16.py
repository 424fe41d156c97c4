"""float16: half the size, for GPUs. Inputs, outputs and all nodes after the backbone stay in float32."""

from __future__ import annotations

from typing import Any

import onnx

from tussis.worker.modelling.quantization.graph import Backbone, serialised


def to_float16(model: Any, backbone: Backbone) -> bytes:
    """The ONNX file of a simplified float32 model, with its convolutions and all nodes before them in float16."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    # Masked scores are the most negative float32, which float16 cannot represent. The last pooling sums many values.
    converted = convert_float_to_float16(copied, keep_io_types=True, node_block_list=list(backbone.rest))
    return serialised(converted)
