"""Segments to scores, wherever the model runs: the seam between the pipeline and the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tussis.shared.dsp.constants import HOP_SAMPLES
from tussis.shared.dsp.images import images, scaled_images
from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.manifest import Manifest
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.pipeline.prepare import batch_of_one, whole_mask

Inputs = TypeVar("Inputs")


class Scorer(Protocol[Inputs]):
    """One model as the pipeline uses it, a recording at a time.

    ``Inputs`` is whatever :meth:`inputs` makes and :meth:`score` takes; the pipeline only hands it on, so that the two
    halves can be timed and stopped apart.
    """

    @property
    def remote(self) -> bool:
        """Whether the model is in another process, which shares its runs out and holds each to its own deadline.

        Otherwise the caller holds :meth:`score` to one, and every recording has the process to itself.
        """
        ...

    @property
    def manifest(self) -> Manifest:
        """Of the model that answers."""

    def inputs(self, cut: Cut, profile: Profile) -> Inputs:
        """What the model takes for a recording's S segments."""

    def score(self, inputs: Inputs, *, alone: bool) -> Scores:
        """The answers for one recording, B = 1, S segments.

        ``alone``: no other recording may share the run. Raises :class:`InferenceFailed`.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Mels:
    """What a specialised graph takes for one recording."""

    mels: NDArray[np.float32]
    """float32 (1, S, 160, 201)."""
    rounded: bool
    """Whether the images behind the letterbox go through float16."""


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """The model in the calling process. Every recording has it to itself."""

    detector: Detector | MelDetector
    remote: bool = False

    @property
    def manifest(self) -> Manifest:
        """Of the model that is loaded."""
        return self.detector.manifest

    def warm_up(self) -> None:
        """Run the model, and the preprocessing of one segment: the first real one finds all that is built once.

        Raises :class:`ModelRefused` when the model does not answer.
        """
        self.detector.warm_up()
        profile = profile_named(self.manifest.profile)
        self.inputs(cut_segments(torch.zeros(HOP_SAMPLES), profile), profile)

    def inputs(self, cut: Cut, profile: Profile) -> NDArray[np.float32] | Mels:
        """The contract's ``spectrograms``, float32 (1, S, 3, 224, 224), or what the specialised graph takes."""
        with torch.inference_mode():
            if isinstance(self.detector, MelDetector):
                return Mels(batch_of_one(scaled_images(cut)), profile.image_float16)
            return batch_of_one(images(cut, profile))

    def score(self, inputs: NDArray[np.float32] | Mels, *, alone: bool) -> Scores:
        """The answers, (1, S). Raises :class:`InferenceFailed`; TypeError for inputs of another scorer's."""
        if isinstance(self.detector, MelDetector) and isinstance(inputs, Mels):
            return self.detector.score(inputs.mels, whole_mask(inputs.mels), rounded=inputs.rounded)
        if isinstance(self.detector, Detector) and isinstance(inputs, np.ndarray):
            return self.detector.score(inputs, whole_mask(inputs))
        raise TypeError(f"{type(inputs).__name__} are not what {type(self.detector).__name__} takes")
