"""An int8 model to measure the speed of."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from tests.support.convolutional import write_convolutional
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.modelling.quantization.unproven import int8_for_measuring

torch.set_num_threads(1)


def test_it_is_int8_throughout_and_says_that_nobody_validated_it(tmp_path: Path) -> None:
    parent = write_convolutional(tmp_path)

    path = int8_for_measuring(parent, tmp_path / "fast.onnx")

    kernels = [weight for weight in onnx.load_model(path).graph.initializer if len(weight.dims) == 4]
    assert [weight.data_type for weight in kernels] == [onnx.TensorProto.INT8] * 4
    manifest = read_manifest(path)
    assert (manifest.version, manifest.parent) == ("1-int8-unproven", "small@1")
    assert "not compared" in manifest.provenance
    Detector.load(path, intra_op_threads=1).warm_up()
