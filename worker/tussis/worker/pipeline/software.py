"""The software of this process, as results have it."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata

import torch
import torchaudio

from tussis.shared.store.software import Software
from tussis.worker.detector.arithmetic import Arithmetic


def software_of(arithmetic: Arithmetic, decoder_library: str) -> Software:
    """The software that makes a result here."""
    return Software(
        tussis_version=metadata_version("tussis"),
        onnxruntime_version=onnxruntime_version(),
        torch_version=str(torch.__version__),
        torchaudio_version=str(torchaudio.__version__),
        decoder_library=decoder_library,
        provider=arithmetic.provider,
        graph=arithmetic.graph,
        processor=arithmetic.processor,
    )


#: Reading the metadata of a package takes a millisecond.
metadata_version = cache(metadata.version)


@cache
def onnxruntime_version() -> str:
    """The version of onnxruntime. A child of a GPU worker does not import it: two packages provide the module."""
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None:
        return str(loaded.__version__)
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""
