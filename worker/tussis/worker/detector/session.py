"""Open an ONNX file. Only this module sets onnxruntime's options and catches its exceptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tussis.shared.errors import ModelRefused, NotInstalled, SettingsInvalid
from tussis.shared.installation import pip_line
from tussis.worker.detector.contract import Graph, check_contract
from tussis.worker.detector.mels import as_contract
from tussis.worker.detector.onnx_file import NotOnnx, read_facts

_PROVIDERS = {"cpu": "CPUExecutionProvider"}

#: A provider's name in onnxruntime, and its options.
Execution = tuple[str, Mapping[str, str]]


class RunFailed(Exception):
    """The runtime rejected a file or a run. The message is the runtime's own, on one line."""


class Runs(Protocol):
    """A loaded graph of any runtime."""

    @property
    def graph(self) -> Graph:
        """The graph's properties that the contract check found."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The contract's outputs, by name. Raises :class:`RunFailed`."""


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded graph and its properties that the contract check found."""

    graph: Graph
    inference: Any
    """``onnxruntime.InferenceSession``, which ships no types."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The contract's outputs, by name. Raises :class:`RunFailed`."""
        return self.values(self.graph.outputs, feeds)

    def values(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, also those that the contract does not know. Raises :class:`RunFailed`."""
        with _runtime_errors():
            found = self.inference.run(list(names), dict(feeds))
        return dict(zip(names, found, strict=True))

    def run_bound(self, binding: Any) -> None:
        """Run with inputs and outputs bound to memory (``onnxruntime.IOBinding``). Raises :class:`RunFailed`."""
        with _runtime_errors():
            self.inference.run_with_iobinding(binding)


def open_session(
    data: bytes,
    where: str,
    *,
    intra_op_threads: int,
    provider: str = "cpu",
    execution: Sequence[Execution] | None = None,
) -> Session:
    """Load an ONNX model from its bytes and check it against the contract.

    The argument is bytes and not a path, so that the bytes that were hashed are the ones that run. ``where`` names them
    in errors. ``execution`` replaces ``provider``: a list of execution providers in order of preference. A graph that
    takes mel images (:mod:`tussis.worker.detector.tuning.specialise`) is checked with the inputs of the graph that it
    was made from.

    Raises:
        ModelRefused: the bytes are not an ONNX model, or the model breaks the contract.
        NotInstalled: onnxruntime is missing.
        SettingsInvalid: the provider is unknown, or ``intra_op_threads`` is less than 1.
    """
    if provider not in _PROVIDERS:
        raise SettingsInvalid(f"unknown provider {provider!r}: use one of {', '.join(_PROVIDERS)}")
    if intra_op_threads < 1:
        raise SettingsInvalid(f"intra-op threads is {intra_op_threads}: use at least 1")
    onnxruntime = _onnxruntime()
    try:
        facts = read_facts(data)
    except NotOnnx as error:
        raise ModelRefused(f"{where} is not an ONNX model: {error}") from None
    if facts.external_data:
        raise ModelRefused(
            f"{where} has weights in other files, which its sha256 does not cover: save it as one file"
            " (torch.onnx.export(..., external_data=False))"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that spin while they wait take processor time from the other children and from the servers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: the warnings about a graph would repeat on every start
    wanted = [(name, dict(own)) for name, own in execution or [(_PROVIDERS[provider], {})]]
    try:
        with _runtime_errors():
            inference = onnxruntime.InferenceSession(data, sess_options=options, providers=wanted)
    except RunFailed as error:
        raise ModelRefused(f"onnxruntime {onnxruntime.__version__} cannot load {where}: {error}") from None
    # onnxruntime keeps the file's bytes (44 MB a child for the ResNet-18) for a fallback to other providers. There are
    # no others.
    inference.disable_fallback()
    inference._model_bytes = None
    graph = check_contract(as_contract(inference.get_inputs()), inference.get_outputs(), facts.opset, where)
    return Session(graph, inference)


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """Convert onnxruntime's exceptions to :class:`RunFailed`. Their only common base is ``Exception``."""
    try:
        yield
    except _exceptions() as error:
        raise RunFailed(" ".join(str(error).split())) from None


@cache
def _exceptions() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (value for value in vars(state).values() if isinstance(value, type))
    return tuple(value for value in found if issubclass(value, Exception))


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise NotInstalled(f"onnxruntime is not installed: {pip_line('cpu')}") from None
    return onnxruntime
