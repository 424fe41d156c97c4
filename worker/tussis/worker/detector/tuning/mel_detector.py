"""The detector with a specialised graph: mel images in, the contract's outputs out."""

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
    """A model loaded as a specialised graph. Otherwise like :class:`~tussis.worker.detector.detector.Detector`."""

    def __init__(self, manifest: Manifest, session: Runs, form: str) -> None:
        self.manifest = manifest
        self.form = form
        """The form of the rewritten graph."""
        self._session = session

    @property
    def graph(self) -> Graph:
        """The properties of the original graph that the contract does not fix."""
        return self._session.graph

    def warm_up(self) -> None:
        """Run the smallest and the largest input. Raises :class:`ModelRefused` when a run fails."""
        for segments in (1, MAX_SEGMENTS):
            noise = np.random.default_rng(0).uniform(-1, 1, size=(1, segments, *_IMAGE)).astype(np.float32)
            try:
                self.score(noise, np.ones((1, segments), dtype=np.bool_), rounded=False)
            except InferenceFailed as error:
                raise ModelRefused(f"{self.manifest.label} does not run on {segments} segments: {error}") from None

    def score(self, mels: NDArray[np.float32], mask: NDArray[np.bool_], *, rounded: bool) -> Scores:
        """Run the model on a batch of recordings.

        Args:
            mels: float32 (B, S, 160, 201), in [-1, 1]. Values under a false mask have no effect.
            mask: bool (B, S), true for the segments that exist; at least one in each row.
            rounded: whether the letterboxed images are rounded to float16; a property of the profile.

        Raises:
            InferenceFailed, ValueError: see :meth:`Detector.score`.
        """
        check_batch(MELS, mels, _IMAGE, mask, self.graph)
        return score_batch(self._session, self.manifest.label, {MELS: mels, ROUNDED: np.array(rounded)}, mask)
