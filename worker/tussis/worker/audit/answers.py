"""The answers of a model for one recording under several variants of its preprocessing.

The steps that variants share are computed once: decoding for each decoder, the waveform for each normalisation, the
scores for each different stack of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import torch
from torch import Tensor

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import IMAGENET_STD, MAX_SEGMENTS
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import Decoder, Normalise, Profile
from tussis.shared.dsp.recording import Waveform
from tussis.shared.errors import PermanentError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.modelling.comparison import Refusal
from tussis.worker.pipeline.prepare import batch_of_one, waveform_of, whole_mask
from tussis.worker.pipeline.scored import ScoredBags, duration_s

#: A difference of the model's input in the first channel times this is the difference of the image in [-1, 1].
_TO_IMAGE: Final = 2 * IMAGENET_STD[0]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the images of a variant are from those of the model's own profile.

    Pixels of the letterboxed image, in [-1, 1], of the segments that both variants have. Segments of both start at the
    same times.
    """

    mean: float
    """Mean absolute difference. Margins are part of the image, and have no difference."""
    largest: float
    segments: int
    """Segments that both variants have."""


@dataclass(frozen=True, slots=True)
class VariantAnswer:
    """The model's answer for a recording under one variant."""

    coverage: Coverage
    bags: tuple[float, ...]
    """Probability of each scored bag."""
    segments: tuple[float, ...]
    """Probability of each segment of these bags. Segment i starts at 0.5 * i seconds."""
    duration_s: float
    distance: Distance

    @property
    def probability(self) -> float:
        """The bag probability: of the first bag with coverage ``head``, otherwise of the highest bag."""
        return self.bags[0] if self.coverage is Coverage.HEAD else max(self.bags)

    def covering(self, coverage: Coverage) -> VariantAnswer:
        """The answer with another coverage. ``full`` can become ``head``, not the other way round."""
        if coverage is Coverage.FULL:
            return replace(self, coverage=coverage)
        return replace(self, coverage=coverage, bags=self.bags[:1], segments=self.segments[:MAX_SEGMENTS])


Answered: TypeAlias = VariantAnswer | Refusal


@dataclass(slots=True)
class _Known:
    """The scores of a stack of images, and the difference of its images from those of the own profile."""

    scores: Scores
    total: float
    largest: float
    pixels: int
    segments: int


@dataclass(slots=True)
class _Collected:
    """One variant while its bags are scored."""

    waveform: Waveform
    scored: ScoredBags
    total: float = 0.0
    largest: float = 0.0
    pixels: int = 0
    segments: int = 0
    runs: int = 0
    refusal: Refusal | None = None

    @property
    def complete(self) -> bool:
        return self.refusal is not None or self.scored.complete

    def add(self, known: _Known) -> None:
        self.scored.add(known.scores)
        self.total += known.total
        self.largest = max(self.largest, known.largest)
        self.pixels += known.pixels
        self.segments += known.segments

    def answer(self, coverage: Coverage) -> Answered:
        if self.refusal is not None:
            return self.refusal
        mean = self.total / self.pixels if self.pixels else 0.0
        return VariantAnswer(
            coverage,
            tuple(self.scored.bag_probability),
            tuple(self.scored.probability),
            duration_s(self.waveform),
            Distance(mean, self.largest, self.segments),
        )


class RecordingAnswers:
    """One recording, and the model that scores it."""

    def __init__(self, data: bytes, own: Profile, detector: Detector, limits: Limits) -> None:
        """``own`` is the profile of the model, from which images differ or not."""
        self.scored_variants = 0
        """Variants for which the model ran. A variant all of whose images were known is not one of them."""
        self._data = data
        self._own = own
        self._detector = detector
        self._limits = limits
        self._audio: dict[Decoder, Audio] = {}
        self._waveforms: dict[tuple[Decoder, Normalise], Waveform] = {}
        self._by_cut: dict[tuple[int, bytes, bool], _Known] = {}
        self._by_images: dict[bytes, Scores] = {}
        self._own_images: tuple[int, Tensor] | None = None

    def under(self, variants: Sequence[Profile], coverage: Coverage) -> list[Answered]:
        """The answer under each variant, or why there is none. Errors of the operator and of the network are raised."""
        started = [self._begin(variant, coverage) for variant in variants]
        live = [one for one in started if isinstance(one, _Collected)]
        bag = 0
        with torch.inference_mode():
            # Bag by bag, so that the images of one bag only are in memory.
            while open_ones := [one for one in live if not one.complete]:
                for one in open_ones:
                    known = len(self._by_images)
                    try:
                        one.add(self._scored(one.waveform, bag))
                    except PermanentError as error:
                        one.refusal = Refusal.of(error)
                    one.runs += len(self._by_images) - known
                bag += 1
        self.scored_variants += sum(one.runs > 0 for one in live)
        return [one.answer(coverage) if isinstance(one, _Collected) else one for one in started]

    def audio(self, decoder: Decoder) -> Audio:
        """The decoded recording. Raises :class:`AudioError`."""
        if decoder not in self._audio:
            self._audio[decoder] = decode(self._data, self._limits, decoder)
        return self._audio[decoder]

    def waveform(self, variant: Profile) -> Waveform:
        """The recording at 16 kHz, before the high-pass. Raises :class:`AudioError`."""
        key = (variant.decoder, variant.normalise)
        if key not in self._waveforms:
            self._waveforms[key] = waveform_of(self.audio(variant.decoder), variant)
        return replace(self._waveforms[key], profile=variant)

    def _begin(self, variant: Profile, coverage: Coverage) -> _Collected | Refusal:
        try:
            waveform = self.waveform(variant)
            return _Collected(waveform, ScoredBags.of(waveform, coverage))
        except PermanentError as error:
            return Refusal.of(error)

    def _scored(self, waveform: Waveform, bag: int) -> _Known:
        cut, rules = waveform.bag(bag), waveform.profile
        key = (bag, _digest(cut.padded), rules.image_float16)
        if key not in self._by_cut:
            stack = images(cut, rules)
            if rules == self._own:
                self._own_images = (bag, stack)
            self._by_cut[key] = self._compared(self._score(stack), stack, bag)
        return self._by_cut[key]

    def _score(self, stack: Tensor) -> Scores:
        # The three channels have the same pixels, so one of them identifies the image.
        key = _digest(stack[:, 0])
        if key not in self._by_images:
            spectrograms = batch_of_one(stack)
            self._by_images[key] = self._detector.score(spectrograms, whole_mask(spectrograms))
        return self._by_images[key]

    def _compared(self, scores: Scores, stack: Tensor, bag: int) -> _Known:
        own = self._images_of_own(bag)
        if own is None:
            return _Known(scores, 0.0, 0.0, 0, 0)
        common = min(own.shape[0], stack.shape[0])
        gap = (stack[:common, 0] - own[:common, 0]).abs_().mul_(_TO_IMAGE)
        return _Known(scores, float(gap.sum(dtype=torch.float64)), float(gap.max()), gap.numel(), common)

    def _images_of_own(self, bag: int) -> Tensor | None:
        """The images of the model's own profile. None if it cannot read the recording, or has no such bag."""
        if self._own_images is None or self._own_images[0] != bag:
            try:
                waveform = self.waveform(self._own)
            except PermanentError:
                return None
            if bag >= waveform.num_bags:
                return None
            self._own_images = (bag, images(waveform.bag(bag), self._own))
        return self._own_images[1]


def _digest(values: Tensor) -> bytes:
    return hashlib.sha256(values.contiguous().numpy().data).digest()
