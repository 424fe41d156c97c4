"""Make an int8 model without the gate, for speed measurements only. Never run it in production.

``python -m tussis.worker.modelling.quantization.unproven MODEL.onnx OUT.onnx``
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from tussis.shared.errors import OutputUnwritable
from tussis.worker.atomic import replace_file
from tussis.worker.detector.manifest import read_manifest, read_model, sha256_of, write_manifest
from tussis.worker.modelling.calibrate import synthetic_images
from tussis.worker.modelling.quantization.equalise import equalise
from tussis.worker.modelling.quantization.graph import backbone_of, in_eight_bits, simplify
from tussis.worker.modelling.quantization.int8 import Calibrated
from tussis.worker.modelling.quantization.ranges import ranges_over

_SOUNDS: Final = 8
_SEED: Final = 0


def int8_for_measuring(model: Path, output: Path, *, threads: int = 1) -> Path:
    """Write the int8 version of a float32 model and its manifest, calibrated on synthetic sounds. Replace older files.

    It is as fast as the model that :func:`~tussis.worker.modelling.quantization.quantize.quantize` writes if no
    convolution stays in float32. It is not compared with its parent, and its version ends in ``-int8-unproven``. The
    function takes seconds and needs no recordings. Returns ``output``.

    Raises:
        ModelRefused: the model or its manifest is missing or wrong.
        OutputUnwritable: the files cannot be written.
    """
    parent = read_manifest(model)
    data = read_model(model)
    simple = simplify(data, str(model))
    backbone = backbone_of(simple, str(model))
    recordings = (sound.numpy()[None] for sound in synthetic_images(_SEED, _SOUNDS))
    ranges = ranges_over(simple, in_eight_bits(simple, backbone), recordings, threads=threads, where=str(model))
    quantised = Calibrated(*equalise(simple, backbone, ranges), backbone).quantised()
    try:
        replace_file(output, quantised, durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {output}: {error.strerror}") from None
    manifest = replace(
        parent,
        version=f"{parent.version}-int8-unproven",
        sha256=sha256_of(quantised),
        provenance=f"int8 of {parent.label} (sha256 {parent.sha256}), calibrated on synthetic sounds and not compared"
        " with it. For speed measurements only.",
        parent=parent.label,
    )
    write_manifest(output, manifest)
    return output


if __name__ == "__main__":
    int8_for_measuring(Path(sys.argv[1]), Path(sys.argv[2]))
