"""Test a loaded model: it must run, and a recording's scores must depend on that recording only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import IMAGE_SIZE
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.detector import Detector, Scores

#: The largest allowed change of a logit through other recordings in the batch or through padding. The effect of another
#: order of float32 sums is far smaller.
TOLERANCE: Final = 1e-4
#: The largest allowed difference between a probability and the sigmoid of its logit.
SIGMOID_TOLERANCE: Final = 1e-3

_SEED: Final = 0
_SEGMENTS: Final = 3
_PADDING: Final = 2
# The range of the image's values after ImageNet's normalisation (docs/preprocessing.md), over the three channels.
_DARKEST, _BRIGHTEST = -2.1, 2.6


@dataclass(frozen=True, slots=True)
class Probe:
    """The measurements of the probe, all on seeded noise images."""

    bag_probability: float
    segment_ms: float
    """Milliseconds per segment, in one run of one recording."""
    neighbour_shift: float
    """The largest change of a logit when other recordings share the batch."""
    padding_shift: float
    """The largest change of a logit when masked segments follow."""


def probe(detector: Detector) -> Probe:
    """Run a model on noise: one recording, the same in a batch with two others, and the same with masked padding.

    Raises :class:`ModelRefused` when a run fails, when a logit changes by more than ``TOLERANCE``, or when the
    probabilities are not the sigmoids of the logits.
    """
    label = detector.manifest.label
    try:
        facts, alone = _measure(detector)
    except InferenceFailed as error:
        raise ModelRefused(f"{label} does not run on noise: {error}") from None
    if facts.neighbour_shift > TOLERANCE:
        raise ModelRefused(
            f"{label}: a recording's logits change by {facts.neighbour_shift:.2g} with other recordings in the batch"
            f" (at most {TOLERANCE:g}): export the model in eval mode, or with the batch size fixed at 1"
        )
    if facts.padding_shift > TOLERANCE:
        raise ModelRefused(
            f"{label}: a recording's logits change by {facts.padding_shift:.2g} with masked padding"
            f" (at most {TOLERANCE:g}): the model's pooling must ignore the segments with a false segment_mask"
        )
    gap = max(
        _sigmoid_gap(alone.bag_probability, alone.bag_logit),
        _sigmoid_gap(alone.segment_probabilities, alone.segment_logits),
    )
    if gap > SIGMOID_TOLERANCE:
        raise ModelRefused(f"{label}: probabilities and the sigmoids of the logits differ by {gap:.2g}")
    return facts


def _measure(detector: Detector) -> tuple[Probe, Scores]:
    recording = _noise(0.4, 0.5)
    kept = np.ones((1, _SEGMENTS), dtype=np.bool_)
    detector.score(recording, kept)  # the first run allocates
    began = time.perf_counter()
    alone = detector.score(recording, kept)
    elapsed = time.perf_counter() - began
    # The other recordings are at both ends of the range. They change the logits if the model computes a scale over the
    # batch, for instance with dynamic quantisation.
    crowd = np.concatenate([_noise(0.05, 0.0), recording, _noise(0.0, 1.0)])
    among = detector.score(crowd, np.ones((3, _SEGMENTS), dtype=np.bool_))
    limit = detector.graph.fixed_segments
    padding = _PADDING if limit is None else min(_PADDING, limit - _SEGMENTS)
    padded = np.concatenate([recording, _noise(1.0, 0.5)[:, :padding]], axis=1)
    masked = detector.score(padded, np.arange(_SEGMENTS + padding)[None] < _SEGMENTS)
    facts = Probe(
        bag_probability=float(alone.bag_probability[0]),
        segment_ms=1000 * elapsed / _SEGMENTS,
        neighbour_shift=_shift(alone, among, row=1),
        padding_shift=_shift(alone, masked, row=0),
    )
    return facts, alone


def _noise(contrast: float, level: float) -> NDArray[np.float32]:
    """One recording of noise images: (1, 3, 3, 224, 224), ``level`` from 0 (dark) to 1 (bright)."""
    generator = np.random.default_rng(_SEED)
    plain = np.clip(level + contrast * generator.normal(size=(1, _SEGMENTS, 1, IMAGE_SIZE, IMAGE_SIZE)), 0, 1)
    image = (_DARKEST + (_BRIGHTEST - _DARKEST) * plain).astype(np.float32)
    return np.repeat(image, 3, axis=2)


def _shift(alone: Scores, other: Scores, row: int) -> float:
    bag = np.abs(alone.bag_logit[0] - other.bag_logit[row])
    segments = np.abs(alone.segment_logits[0] - other.segment_logits[row, :_SEGMENTS])
    return float(max(bag, segments.max()))


def _sigmoid_gap(probability: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    # exp(-x) would overflow; tanh does not.
    return float(np.abs(probability - (1 + np.tanh(logits / 2)) / 2).max())
