"""Compare PyTorch with an ONNX file on the same tensors: the outputs, and layer by layer where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from tussis.shared.errors import ModelRefused, TooFewRecordings
from tussis.worker.detector.contract import SEGMENT_LOGITS, SEGMENT_MASK, SEGMENT_PROBABILITIES, SPECTROGRAMS, Graph
from tussis.worker.detector.session import RunFailed, Session, open_session
from tussis.worker.modelling.architecture import CoughNet
from tussis.worker.modelling.export import agrees
from tussis.worker.modelling.layer_gaps import LayerGap, layer_gaps
from tussis.worker.modelling.layers import NotMatched, match_layers, training_norms, with_outputs
from tussis.worker.modelling.quantization.graph import number_type

#: Segments of the comparison by layer. The values of one segment need about 40 MB.
_SEGMENTS: Final = 4
_EACH: Final = frozenset({SEGMENT_PROBABILITIES, SEGMENT_LOGITS})


@dataclass(frozen=True, slots=True)
class OutputGap:
    """One output, over all recordings."""

    name: str
    largest: float
    """Largest absolute difference. NaN if the graph returned NaN."""
    agrees: bool
    """Whether every difference is within the tolerance of the export."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The comparison of a network with an ONNX file."""

    recordings: int
    segments: int
    """Without the masked ones."""
    differing: int
    """Recordings with an output that differs."""
    worst: str
    """The first recording with the largest difference."""
    outputs: tuple[OutputGap, ...]
    layers: tuple[LayerGap, ...] = ()
    """In the network's order. Empty if the outputs agree or the layers cannot be compared."""
    unmatched: str = ""
    """Why the layers cannot be compared."""
    training_norms: int = 0
    """Batch norms of the graph that use the statistics of the batch."""

    @property
    def agrees(self) -> bool:
        """Whether all outputs agree."""
        return all(output.agrees for output in self.outputs)

    @property
    def first(self) -> LayerGap | None:
        """The first layer that differs, or that gets other values although no earlier layer differs."""
        return next((layer for layer in self.layers if layer.input_differs or layer.differs), None)


def verify(
    network: CoughNet, data: bytes, where: str, recordings: Iterable[tuple[str, NDArray[np.float32]]], *, threads: int
) -> Verification:
    """Compare a network with an ONNX file.

    Every recording is followed by a masked segment, unless the graph has a fixed number of segments and pads them
    itself. So a graph that ignores the mask differs.

    Args:
        network: in eval mode.
        data: the ONNX file. ``where`` names it in errors.
        recordings: a name and ``spectrograms``, float32 (1, S, 3, 224, 224), of each recording.
        threads: threads of one run of the graph.

    Raises:
        ModelRefused: the file breaks the contract, is not in float32, or does not run.
        TooFewRecordings: there is no recording.
    """
    session = open_session(data, where, intra_op_threads=threads)
    model = onnx.load_model_from_string(data)
    kind = number_type(model)
    if kind != "float32":
        raise ModelRefused(
            f"{where} is in {kind}, and PyTorch computes in float32: verify the model that it was made from, and"
            " compare the two with `tussis models compare`"
        )
    runs = _Runs(session.graph.outputs)
    for source, spectrograms in recordings:
        feeds = _feeds(spectrograms, session.graph)
        runs.add(source, feeds, _expected(network, feeds), _values(session, session.graph.outputs, feeds, where))
    result = runs.result()
    if result.agrees:
        return result
    result = replace(result, training_norms=training_norms(model))
    try:
        layers = match_layers(model, network)
    except NotMatched as reason:
        return replace(result, unmatched=str(reason))
    names = {name for layer in layers for name in (layer.input, layer.output)}
    traced = open_session(with_outputs(model, sorted(names)), where, intra_op_threads=threads)
    feeds = _feeds(runs.shown, session.graph)
    values = _values(traced, sorted(names - feeds.keys()), feeds, where)
    return replace(result, layers=layer_gaps(network, layers, {**feeds, **values}))


class _Runs:
    """Collects the differences of the outputs."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self.shown: NDArray[np.float32] = np.empty(0, np.float32)
        """Segments of the recording with the largest difference, the segment with the largest difference among them."""
        self._gaps = {name: OutputGap(name, 0.0, True) for name in outputs}
        self._recordings = self._segments = self._differing = 0
        self._worst, self._largest = "", -1.0

    def add(
        self,
        source: str,
        feeds: Mapping[str, NDArray[Any]],
        expected: Mapping[str, NDArray[np.float32]],
        found: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Add one recording."""
        mask = feeds[SEGMENT_MASK]
        all_agree, largest = True, 0.0
        for name, before in self._gaps.items():
            kept = mask if name in _EACH else np.ones(1, dtype=np.bool_)
            if found[name].shape != kept.shape:
                raise ModelRefused(f'"{name}" has the shape {found[name].shape}, not {kept.shape}')
            here, there = found[name][kept], expected[name][kept]
            gap = float(np.abs(here - there).max())
            # NaN is larger than every number.
            self._gaps[name] = OutputGap(
                name, float(np.maximum(before.largest, gap)), before.agrees and agrees(here, there)
            )
            all_agree = all_agree and agrees(here, there)
            largest = max(largest, np.inf if np.isnan(gap) else gap)
        self._recordings += 1
        self._segments += int(mask.sum())
        self._differing += not all_agree
        if largest > self._largest:
            self._worst, self._largest = source, largest
            gaps = np.abs(found[SEGMENT_PROBABILITIES] - expected[SEGMENT_PROBABILITIES])[mask]
            first = max(0, int(np.argmax(gaps)) + 1 - _SEGMENTS)
            self.shown = feeds[SPECTROGRAMS][:, first : min(first + _SEGMENTS, gaps.size)].copy()

    def result(self) -> Verification:
        """The comparison of the outputs."""
        if not self._recordings:
            raise TooFewRecordings("0 recordings to compare on: give at least one that can be read")
        return Verification(self._recordings, self._segments, self._differing, self._worst, tuple(self._gaps.values()))


def _feeds(spectrograms: NDArray[np.float32], graph: Graph) -> dict[str, NDArray[Any]]:
    """The inputs of the graph for one recording, with masked segments after it."""
    segments = spectrograms.shape[1]
    width = graph.fixed_segments or segments + 1
    padded = np.pad(spectrograms, ((0, 0), (0, width - segments)) + ((0, 0),) * 3)
    return {SPECTROGRAMS: padded, SEGMENT_MASK: np.arange(width)[None] < segments}


def _expected(network: CoughNet, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    with torch.inference_mode():
        answers = network(torch.from_numpy(feeds[SPECTROGRAMS]), torch.from_numpy(feeds[SEGMENT_MASK]))
    return {name: values.numpy() for name, values in answers._asdict().items()}


def _values(
    session: Session, names: Sequence[str], feeds: Mapping[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    try:
        return session.values(names, feeds)
    except RunFailed as error:
        raise ModelRefused(f"{where} does not run: {error}") from None
