"""A graph in OpenVINO's own runtime, which the optional extra ``openvino`` brings.

The package ``openvino`` stands beside onnxruntime; ``onnxruntime-openvino`` would overwrite it, being the same module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tussis.shared.errors import ModelRefused, NotInstalled
from tussis.shared.installation import pip_line
from tussis.worker.detector.contract import Graph
from tussis.worker.detector.session import RunFailed


@dataclass(frozen=True, slots=True)
class OpenVinoSession:
    """A compiled graph. ``graph`` is what onnxruntime's load of the same file found out."""

    graph: Graph
    request: Any
    """``openvino.InferRequest``."""
    inputs: frozenset[str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The contract's outputs, by name. Raises :class:`RunFailed`."""
        taken = {name: values for name, values in feeds.items() if name in self.inputs}
        with _runtime_errors():
            found = self.request.infer(taken, share_inputs=True)
            # Its own memory, which the next run writes over.
            return {name: np.array(found[name]) for name in self.graph.outputs}


def openvino_version() -> str | None:
    """The installed version; None where the extra is missing. Nothing is imported."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return None


def open_openvino(data: bytes, where: str, graph: Graph, *, threads: int) -> OpenVinoSession:
    """Compile an ONNX model from its bytes, in float32 where its weights are.

    Args:
        data: an ONNX model that onnxruntime has loaded and that follows the contract.
        where: names it in errors.
        graph: what that load found out.
        threads: that one run uses.

    Raises:
        NotInstalled: the extra is missing.
        ModelRefused: OpenVINO cannot compile it.
    """
    try:
        import openvino
    except ImportError:
        raise NotInstalled(f"OpenVINO is not installed: {pip_line('cpu,openvino')}") from None
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Otherwise it takes bfloat16 where the processor has it, which moves answers by more than is allowed.
        "INFERENCE_PRECISION_HINT": "f32",
        # Children share the cores, and none knows of the others.
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    try:
        with _runtime_errors():
            compiled = core.compile_model(core.read_model(data), "CPU", settings)
            request = compiled.create_infer_request()
    except RunFailed as error:
        raise ModelRefused(f"OpenVINO {openvino_version()} cannot load {where}: {error}") from None
    names = frozenset(name for port in compiled.inputs for name in port.names)
    return OpenVinoSession(graph, request, names)


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """OpenVINO raises RuntimeError, and TypeError or KeyError for inputs that it does not know."""
    try:
        yield
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise RunFailed(" ".join(str(error).split())[:300]) from None
