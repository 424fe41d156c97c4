"""Turns segments into scores: the interface between the pipeline and a model in this process or in another one."""

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
from tussis.worker.detector.arithmetic import Arithmetic, processor
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.manifest import Manifest
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.pipeline.prepare import batch_of_one, whole_mask

Inputs = TypeVar("Inputs")


class Scorer(Protocol[Inputs]):
    """The model as the pipeline uses it, for one recording at a time.

    ``Inputs`` is the type that :meth:`inputs` returns and :meth:`score` takes. The pipeline only passes it on. With two
    steps it can measure them separately and stop between them.
    """

    @property
    def remote(self) -> bool:
        """Whether the model is in another process, where recordings share runs and each run has a deadline.

        Otherwise the caller sets the deadline of :meth:`score`, and the process runs one recording at a time.
        """
        ...

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that computes the scores."""

    @property
    def arithmetic(self) -> Arithmetic:
        """What runs the model."""

    def inputs(self, cut: Cut, profile: Profile) -> Inputs:
        """The inputs of the model for a recording with S segments."""

    def score(self, inputs: Inputs, *, exclusive: bool) -> Scores:
        """The scores of one recording: B = 1, S segments.

        ``exclusive``: no other recording may share the run. Raises :class:`InferenceFailed`.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Mels:
    """The inputs of a specialised graph for one recording."""

    mels: NDArray[np.float32]
    """float32 (1, S, 160, 201)."""
    rounded: bool
    """Whether the images after the letterbox are rounded to float16."""


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """A model in the calling process, which runs one recording at a time."""

    detector: Detector | MelDetector
    remote: bool = False

    @property
    def manifest(self) -> Manifest:
        """The manifest of the loaded model."""
        return self.detector.manifest

    @property
    def arithmetic(self) -> Arithmetic:
        """onnxruntime on the CPU, with the graph of the detector."""
        return Arithmetic("cpu", self.detector.form, processor())

    def warm_up(self) -> None:
        """Run the model and the preprocessing of one segment, so that one-time work is done before the first recording.

        Raises :class:`ModelRefused` when the run of the model fails.
        """
        self.detector.warm_up()
        profile = profile_named(self.manifest.profile)
        self.inputs(cut_segments(torch.zeros(HOP_SAMPLES), profile), profile)

    def inputs(self, cut: Cut, profile: Profile) -> NDArray[np.float32] | Mels:
        """The input ``spectrograms``, float32 (1, S, 3, 224, 224), or the inputs of the specialised graph."""
        with torch.inference_mode():
            if isinstance(self.detector, MelDetector):
                return Mels(batch_of_one(scaled_images(cut)), profile.image_float16)
            return batch_of_one(images(cut, profile))

    def score(self, inputs: NDArray[np.float32] | Mels, *, exclusive: bool) -> Scores:
        """The scores, (1, S). Raises :class:`InferenceFailed`, and TypeError for the inputs of another scorer."""
        if isinstance(self.detector, MelDetector) and isinstance(inputs, Mels):
            return self.detector.score(inputs.mels, whole_mask(inputs.mels), rounded=inputs.rounded)
        if isinstance(self.detector, Detector) and isinstance(inputs, np.ndarray):
            return self.detector.score(inputs, whole_mask(inputs))
        raise TypeError(f"{type(self.detector).__name__} does not accept {type(inputs).__name__}")
