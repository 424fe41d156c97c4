"""Find the convolutions that must stay in float32 if int8 for all of them fails the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import Manifest
from tussis.worker.detector.session import open_session
from tussis.worker.modelling.quantization.int8 import Calibrated
from tussis.worker.pipeline.prepare import whole_mask

#: The number of most sensitive convolutions that stay in float32, by candidate. In the last candidate it is half.
_STEPS: Final = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Candidate:
    """An int8 model that is tested by the gate."""

    data: bytes
    excluded: tuple[str, ...]
    """Convolutions in float32, the most sensitive first."""


def candidates(
    calibrated: Calibrated, parent: Detector, samples: Sequence[NDArray[np.float32]]
) -> Iterator[Int8Candidate]:
    """Yield at most seven int8 models with rising precision: all convolutions, then all but the most sensitive ones.

    At most half of the convolutions stay in float32: with more, the gain would not justify a separate model. The
    sensitivity is measured only if the first candidate fails.

    Args:
        calibrated: the model and its ranges.
        parent: the float32 model, loaded.
        samples: ``spectrograms`` of a few recordings, float32 (1, S, 3, 224, 224).
    """
    convolutions = calibrated.backbone.convolutions
    yield Int8Candidate(calibrated.quantised(), ())
    order = by_sensitivity(calibrated, parent, samples)
    half = len(convolutions) // 2
    for step in sorted({*(step for step in _STEPS if step < half), half} - {0}):
        excluded = order[:step]
        yield Int8Candidate(calibrated.quantised(excluded), excluded)


def by_sensitivity(calibrated: Calibrated, parent: Detector, samples: Sequence[NDArray[np.float32]]) -> tuple[str, ...]:
    """The convolutions by the shift of the bag's logit when only that one is in int8, the largest shift first."""
    expected = _bag_logits(parent, samples)
    convolutions = calibrated.backbone.convolutions
    moved = {}
    for name in convolutions:
        others = [other for other in convolutions if other != name]
        alone = open_detector(calibrated.quantised(others), parent.manifest)
        moved[name] = float(np.square(_bag_logits(alone, samples) - expected).mean())
    # Sorting is stable: convolutions with equal shifts stay in the graph's order.
    return tuple(sorted(convolutions, key=lambda name: -moved[name]))


def open_detector(data: bytes, manifest: Manifest, threads: int = 1) -> Detector:
    """Load a model from its bytes, with the given manifest. Raises :class:`ModelRefused`."""
    return Detector(manifest, open_session(data, manifest.label, intra_op_threads=threads))


def _bag_logits(detector: Detector, samples: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.array([float(detector.score(sample, whole_mask(sample)).bag_logit[0]) for sample in samples])
