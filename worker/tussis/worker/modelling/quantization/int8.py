"""int8: convolutions with 8-bit inputs and 7-bit weights, one scale per output channel, in standard operators (QDQ).

Activations are unsigned, weights signed and within -64 to 64. CPUs without VNNI multiply pairs of these and add the two
products in 16 bits, *saturating*: with weights of 8 bits 255 x 127 x 2 is over 32,767, and such a CPU gives other
answers than the one that the model was validated on, without any error. 255 x 64 x 2 = 32,640 is not. (Signed
activations are no way out: onnxruntime turns them into unsigned ones on x86. Unsigned weights are one, but take 2.5
times as long on a CPU with VNNI.)
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
    """A simplified float32 model and its tensors' ranges: all that an int8 model is made of."""

    model: Any
    """``onnx.ModelProto``"""
    ranges: Ranges
    backbone: Backbone

    def quantised(self, excluded: Iterable[str] = ()) -> bytes:
        """The ONNX file with every convolution in int8 but the excluded ones, which stay in float32."""
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
