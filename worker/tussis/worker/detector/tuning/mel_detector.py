"""The detector behind a specialised graph: mel images in, the contract's answers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import FRAMES, MAX_SEGMENTS, MEL_BANDS
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.contract import Graph
from tussis.worker.detector.detector import Scores, check_batch, score_batch
from tussis.worker.detector.manifest import Manifest
from tussis.worker.detector.mels import MELS, ROUNDED
from tussis.worker.detector.session import Runs

_IMAGE = (MEL_BANDS, FRAMES)


class MelDetector:
    """One model, loaded as its specialised graph. As :class:`~tussis.worker.detector.detector.Detector` otherwise."""

    def __init__(self, manifest: Manifest, session: Runs) -> None:
        self.manifest = manifest
        self._session = session

    @property
    def graph(self) -> Graph:
        """What of the original graph the contract leaves open."""
        return self._session.graph

    def warm_up(self) -> None:
        """Run the smallest and the largest recording. Raises :class:`ModelRefused` when the model does not answer."""
        for segments in (1, MAX_SEGMENTS):
            noise = np.random.default_rng(0).uniform(-1, 1, size=(1, segments, *_IMAGE)).astype(np.float32)
            try:
                self.score(noise, np.ones((1, segments), dtype=np.bool_), rounded=False)
            except InferenceFailed as error:
                raise ModelRefused(f"{self.manifest.label} does not run on {segments} segments: {error}") from None

    def score(self, mels: NDArray[np.float32], mask: NDArray[np.bool_], *, rounded: bool) -> Scores:
        """The answers for a batch of recordings.

        Args:
            mels: float32 (B, S, 160, 201), in [-1, 1]; what stands under a false mask is not looked at.
            mask: bool (B, S), true for the segments that exist; at least one in each row.
            rounded: whether the images behind the letterbox go through float16, as the profile has it.

        Raises:
            InferenceFailed, ValueError: as :meth:`Detector.score`.
        """
        check_batch(MELS, mels, _IMAGE, mask, self.graph)
        return score_batch(self._session, self.manifest.label, {MELS: mels, ROUNDED: np.array(rounded)}, mask)
