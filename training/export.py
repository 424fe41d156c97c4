"""Export the network to an ONNX file that follows the contract, with its manifest."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch

from training.decide import Decision
from training.network import Exported, Reference
from tussis.shared.dsp.constants import IMAGE_SIZE
from tussis.worker.atomic import replace_file
from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest

NAME: Final = "tussis-reference"
VERSION: Final = "2"
OPSET: Final = 18
PROVENANCE: Final = (
    "Trained from nothing by `python -m training` on coughs of the covid19-cough dataset"
    " (https://github.com/covid19-cough/dataset, CC0 1.0), on ESC-10 folds 1 to 3 (K. J. Piczak,"
    " https://github.com/karoldvl/ESC-10, CC BY 3.0; authors of the clips in its ATTRIBUTION), and on speech from"
    " espeak-ng, flite and festival and sounds from formulas. None of these recordings is contained. It detects the"
    " sound of a cough and diagnoses nothing; docs/model-card.md states what was measured and where it fails."
)


#: The key in the ONNX file's metadata for the training parameters, as JSON.
TRAINING_KEY: Final = "tussis.training"


def export(reference: Reference, decision: Decision, trained: Mapping[str, object], model: Path) -> Manifest:
    """Write ``model`` and its manifest, and replace older ones. ``trained`` is stored in the file's metadata.

    Raises ``OSError`` and :class:`tussis.shared.errors.OutputUnwritable`.
    """
    data = onnx_bytes(reference, decision, trained)
    model.parent.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        name=NAME,
        version=VERSION,
        sha256=sha256_of(data),
        profile="documented",
        threshold=decision.threshold,
        provenance=PROVENANCE,
        parent=None,
    )
    replace_file(model, data, durable=True)
    write_manifest(model, manifest)
    return manifest


def training_of(model: Path) -> dict[str, Any]:
    """The training parameters that :func:`export` stored in this file."""
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    trained: dict[str, Any] = json.loads(metadata[TRAINING_KEY])
    return trained


def onnx_bytes(reference: Reference, decision: Decision, trained: Mapping[str, object]) -> bytes:
    """The ONNX file with its weights, batch and segments dynamic."""
    scale = (decision.bag_temperature, decision.segment_temperature, decision.segment_offset)
    wrapped = Exported(reference, *scale).eval()
    images, mask = torch.zeros(2, 3, 3, IMAGE_SIZE, IMAGE_SIZE), torch.ones(2, 3, dtype=torch.bool)
    batch, segments = torch.export.Dim("batch_size", min=1), torch.export.Dim("num_segments", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings from the exporter itself
        program = torch.onnx.export(
            wrapped,
            (images, mask),
            dynamo=True,
            opset_version=OPSET,
            input_names=["spectrograms", "segment_mask"],
            output_names=["bag_probability", "segment_probabilities", "segment_logits", "bag_logit"],
            dynamic_shapes={
                "spectrograms": {0: batch, 1: segments},
                "segment_mask": {0: batch, 1: segments},
            },
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # Remove the source lines of the exporting machine, which would be most of a small file.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {TRAINING_KEY: json.dumps(dict(trained))})
    onnx.checker.check_model(proto, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
