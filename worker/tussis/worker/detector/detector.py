"""The detector: images in, probabilities and logits out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import IMAGE_SIZE, MAX_SEGMENTS
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.arithmetic import ORIGINAL
from tussis.worker.detector.contract import (
    BAG_LOGIT,
    BAG_PROBABILITY,
    SEGMENT_LOGITS,
    SEGMENT_MASK,
    SEGMENT_PROBABILITIES,
    SPECTROGRAMS,
    Graph,
)
from tussis.worker.detector.manifest import Manifest, check_sha256, read_manifest, read_model
from tussis.worker.detector.session import RunFailed, Runs, open_session

_IMAGE: Final = (3, IMAGE_SIZE, IMAGE_SIZE)
#: A probability is clipped to this distance from 0 and 1 before its logit is taken. It is half a float32 step below 1,
#: and keeps logits within +-16.7.
_LEAST_PROBABILITY: Final = 2.0**-24
#: A probability may lie this far outside 0 to 1 and is then clipped. onnxruntime's Sigmoid returns 1 + 2**-23 for some
#: logits of 17 to 18 (measured with 1.32: for 17.844, and for 17.951769 as the only value). Such an output is valid.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The model's outputs for B recordings of up to S segments, float32. Segments with a false mask are NaN."""

    bag_probability: NDArray[np.float32]
    """(B,), in [0, 1]."""
    bag_logit: NDArray[np.float32]
    """(B,), finite. The graph's output if it has one, otherwise the logit of the probability."""
    segment_probabilities: NDArray[np.float32]
    """(B, S), in [0, 1]."""
    segment_logits: NDArray[np.float32]
    """(B, S), finite. The graph's output if it has one, otherwise the logit of the probability."""


class Detector:
    """A loaded model. Load it in the process that uses it: a session does not survive a fork."""

    form = ORIGINAL

    def __init__(self, manifest: Manifest, session: Runs) -> None:
        self.manifest = manifest
        self._session = session

    @classmethod
    def load(cls, path: Path, *, intra_op_threads: int, provider: str = "cpu") -> Detector:
        """Load a model file and the manifest beside it.

        Args:
            path: the ONNX file.
            intra_op_threads: threads of one run; at least 1.
            provider: ``cpu``.

        Raises:
            ModelRefused: the file or the manifest is missing or invalid, or the checksum does not match.
            NotInstalled: onnxruntime is missing.
            SettingsInvalid: the provider is unknown, or ``intra_op_threads`` is less than 1.
        """
        manifest = read_manifest(path)
        data = read_model(path)
        check_sha256(data, manifest, str(path))
        session = open_session(data, str(path), intra_op_threads=intra_op_threads, provider=provider)
        return cls(manifest, session)

    @property
    def graph(self) -> Graph:
        """The properties of the graph that the contract does not fix."""
        return self._session.graph

    def warm_up(self) -> None:
        """Run the smallest and the largest input, so that all memory is allocated before the first recording.

        Raises :class:`ModelRefused` when a run fails.
        """
        for segments in (1, MAX_SEGMENTS):
            noise = np.random.default_rng(0).normal(size=(1, segments, *_IMAGE)).astype(np.float32)
            try:
                self.score(noise, np.ones((1, segments), dtype=np.bool_))
            except InferenceFailed as error:
                raise ModelRefused(f"{self.manifest.label} does not run on {segments} segments: {error}") from None

    def score(self, spectrograms: NDArray[np.float32], mask: NDArray[np.bool_]) -> Scores:
        """Run the model on a batch of recordings.

        A graph whose batch is fixed at 1 runs once per recording. A graph with a fixed number of segments gets masked
        padding.

        Args:
            spectrograms: float32 (B, S, 3, 224, 224). Values under a false mask have no effect.
            mask: bool (B, S), true for the segments that exist; at least one in each row.

        Raises:
            InferenceFailed: the run fails, or an output is not finite or not a probability.
            ValueError: an array has another type or shape, a row has no segment, or there are more segments than the
                graph takes.
        """
        check_batch(SPECTROGRAMS, spectrograms, _IMAGE, mask, self.graph)
        return score_batch(self._session, self.manifest.label, {SPECTROGRAMS: spectrograms}, mask)


def check_batch(
    name: str, images: NDArray[np.float32], image: tuple[int, ...], mask: NDArray[np.bool_], graph: Graph
) -> None:
    """Raise ValueError unless the arrays are float32 (B, S, *image) and bool (B, S), and the graph can take them."""
    if images.dtype != np.float32 or images.ndim != 2 + len(image) or images.shape[2:] != image:
        wanted = ", ".join(map(str, image))
        raise ValueError(f"{name} are {images.dtype} {images.shape}, not float32 (B, S, {wanted})")
    if mask.dtype != np.bool_ or mask.shape != images.shape[:2]:
        raise ValueError(f"the mask is {mask.dtype} {mask.shape}, not bool {images.shape[:2]}")
    if mask.size == 0 or not mask.any(axis=1).all():
        raise ValueError("every recording must have at least one segment with a true mask")
    limit = graph.fixed_segments
    if limit is not None and mask.shape[1] > limit:
        raise ValueError(f"{mask.shape[1]} segments: the graph takes at most {limit}")


def score_batch(session: Runs, label: str, feeds: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_]) -> Scores:
    """Run a graph on checked arrays: once, or once per recording if its batch is fixed, padded to its fixed segments.

    ``feeds`` are the inputs other than the mask: (B, S, ...), or a scalar of shape () for all segments.
    Raises :class:`InferenceFailed`. ``label`` names the model in the message.
    """
    batch, segments = mask.shape
    fixed = session.graph.fixed_segments
    missing = 0 if fixed is None else fixed - segments
    step = 1 if session.graph.fixed_batch else batch
    parts = []
    for first in range(0, batch, step):
        rows = slice(first, first + step)
        taken = {name: values[rows] if values.ndim else values for name, values in feeds.items()}
        taken[SEGMENT_MASK] = mask[rows]
        if missing:
            taken = {name: _padded(values, missing) for name, values in taken.items()}
        try:
            parts.append(session.run(taken))
        except RunFailed as error:
            raise InferenceFailed(f"the model {label} failed: {error}") from None
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return read_scores(outputs, mask, segments + missing, label)


def _padded(values: NDArray[Any], missing: int) -> NDArray[Any]:
    """Append zeros for the missing segments. A scalar is returned unchanged."""
    if not values.ndim:
        return values
    return np.pad(values, ((0, 0), (0, missing)) + ((0, 0),) * (values.ndim - 2))


def read_scores(outputs: Mapping[str, NDArray[np.float32]], mask: NDArray[np.bool_], width: int, label: str) -> Scores:
    """Check a graph's outputs and convert them to scores.

    Args:
        outputs: the contract's outputs by name, (B,) and (B, width).
        mask: bool (B, S), S at most ``width``: a graph with fixed segments has outputs for its padding too.
        width: the number of segments in the graph's input, padding included.
        label: names the model in errors.

    Raises:
        InferenceFailed: an output has another shape, or is not finite or not a probability.
    """
    batch, segments = mask.shape
    # A graph may declare a dynamic shape and return another one.
    for name, values in outputs.items():
        expected = (batch,) if name in (BAG_PROBABILITY, BAG_LOGIT) else (batch, width)
        if values.shape != expected:
            raise InferenceFailed(f'the model {label} returned "{name}" with shape {values.shape}, not {expected}')
    whole = np.ones(batch, dtype=np.bool_)
    bag, bag_logit = _answers(outputs, BAG_PROBABILITY, BAG_LOGIT, whole)
    segment_outputs = {name: values[:, :segments] for name, values in outputs.items() if values.ndim == 2}
    each, each_logit = _answers(segment_outputs, SEGMENT_PROBABILITIES, SEGMENT_LOGITS, mask)
    return Scores(bag, bag_logit, each, each_logit)


def logit(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """``log(p / (1 - p))`` of probabilities in [0, 1]: float32 of any shape to finite float32 of the same shape."""
    clipped = np.clip(probability.astype(np.float64), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def _answers(
    outputs: Mapping[str, NDArray[np.float32]], probability_name: str, logit_name: str, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities and logits: checked where ``kept`` is true, NaN elsewhere."""
    probability = np.where(kept, outputs[probability_name], np.float32(np.nan))
    inside = (probability >= -_ROUNDING) & (probability <= 1 + _ROUNDING)  # false for NaN
    if not inside[kept].all():
        raise InferenceFailed(
            f'"{probability_name}" is not a probability: the model returned NaN or a number outside 0 to 1'
        )
    probability = np.clip(probability, 0, 1)
    if logit_name not in outputs:
        return probability, logit(probability)
    logits = np.where(kept, outputs[logit_name], np.float32(np.nan))
    if not np.isfinite(logits[kept]).all():
        raise InferenceFailed(f'"{logit_name}" is not finite: the model returned NaN or infinity')
    return probability, logits
