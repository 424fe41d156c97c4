"""The old backend: it answers an upload with the result and stores nothing. Each gunicorn worker loads this module."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from flask import Flask, request
from signal_path import spectrograms

app = Flask(__name__)
session = onnxruntime.InferenceSession(os.environ["BASELINE_MODEL"], providers=["CPUExecutionProvider"])


@app.get("/health")
def health() -> dict[str, str]:
    """Report that the model is loaded. The import of this module loads it."""
    return {"status": "ok"}


@app.post("/analyze")
def analyze() -> dict[str, object]:
    """The result for the file in the request body."""
    images = spectrograms(request.get_data())
    mask = np.ones(images.shape[:2], dtype=bool)
    bag, each = session.run(
        ["bag_probability", "segment_probabilities"], {"spectrograms": images, "segment_mask": mask}
    )
    return {"confidence": float(bag[0]), "segments": each[0].tolist()}
