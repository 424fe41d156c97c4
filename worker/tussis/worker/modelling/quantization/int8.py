"""int8: convolutions with 8-bit inputs and 7-bit weights, one scale per output channel, in standard operators (QDQ).

Activations are unsigned. Weights are signed and within -64 to 64. CPUs without VNNI multiply pairs of these and add the
two products in 16 bits *with saturation*. With 8-bit weights, 255 x 127 x 2 exceeds 32,767. Such a CPU would then give
other outputs than the CPU of the validation, without an error. With 7-bit weights, 255 x 64 x 2 = 32,640 does not
exceed it. (Signed activations do not help: onnxruntime converts them to unsigned ones on x86. Unsigned weights do, but
take 2.5 times as long on a CPU with VNNI.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tussis.worker.modelling.quantization.graph import Backbone, in_eight_bits, serialised
from tussis.worker.modelling.quantization.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A simplified float32 model and the ranges of its tensors: the input of the int8 quantisation."""

    model: Any
    """``onnx.ModelProto``"""
    ranges: Ranges
    backbone: Backbone

    def quantised(self, excluded: Iterable[str] = ()) -> bytes:
        """The ONNX file with all convolutions in int8, except the excluded ones, which stay in float32."""
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        nodes = in_eight_bits(model, self.backbone, excluded)
        measured = {
            tensor: TensorData(lowest=np.float32(low.min()), highest=np.float32(high.max()))
            for tensor, (low, high) in self.ranges.items()
        }
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, measured),
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({node.op_type for node in model.graph.node if node.name in nodes}),
            extra_options={},
        )
        quantizer.quantize_model()
        return serialised(quantizer.model.model)
