"""Compare the answers of two models for the same recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.dsp.recording import Waveform
from tussis.shared.errors import PermanentError
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector
from tussis.worker.modelling.quantization.gate import upper_limit
from tussis.worker.pipeline.prepare import batch_of_one, read_recording, whole_mask
from tussis.worker.pipeline.scored import ScoredBags


@dataclass(frozen=True, slots=True, eq=False)
class ComparedModel:
    """A loaded model with the preprocessing that its jobs get."""

    detector: Detector
    profile: Profile
    coverage: Coverage

    @classmethod
    def of(cls, detector: Detector) -> ComparedModel:
        """A model with the profile and the coverage of its manifest. Raises :class:`UnknownProfile`."""
        manifest = detector.manifest
        return cls(detector, profile_named(manifest.profile), Coverage(manifest.coverage))


@dataclass(frozen=True, slots=True, eq=False)
class ModelAnswer:
    """One model's answer for one recording, with the profile and the coverage of its manifest."""

    probability: float
    """Of the bag with the highest probability."""
    decision: bool
    segments: NDArray[np.float64]
    """(S,) Probabilities of the segments."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a recording has no answer."""

    error_class: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """The class and the message of an error of Tussis."""
        return cls(getattr(error, "error_class", "internal"), str(error))


Answered: TypeAlias = ModelAnswer | Refusal


@dataclass(frozen=True, slots=True, eq=False)
class AnswerPair:
    """The answers of the models A and B for one recording. At least one of them has an answer."""

    source: str
    a: Answered
    b: Answered

    @property
    def both(self) -> tuple[ModelAnswer, ModelAnswer] | None:
        """Both answers, or None if there is only one."""
        return (self.a, self.b) if isinstance(self.a, ModelAnswer) and isinstance(self.b, ModelAnswer) else None

    @property
    def shift(self) -> float | None:
        """The bag probability of B minus that of A. None if there is only one answer."""
        return None if self.both is None else self.both[1].probability - self.both[0].probability

    @property
    def flips(self) -> bool:
        """Whether the decisions differ, or only one of the models has an answer."""
        return self.both is None or self.both[0].decision != self.both[1].decision


@dataclass(frozen=True, slots=True)
class Shifts:
    """Absolute differences of probabilities."""

    mean: float
    p95: float
    """At most 5 % of them are larger. It is one of the differences."""
    largest: float

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> Shifts | None:
        """Sum up signed differences. None if there are none."""
        if not differences.size:
            return None
        sizes = np.abs(differences)
        # "higher" returns one of the values. With few recordings, more than 5 % could exceed an interpolated value.
        return cls(float(sizes.mean()), float(np.quantile(sizes, 0.95, method="higher")), float(sizes.max()))


@dataclass(frozen=True, slots=True)
class Summary:
    """The comparison over all recordings."""

    recordings: int
    """Recordings with an answer of A or B."""
    coughs: tuple[int, int]
    """Recordings with the decision cough, of A and of B."""
    to_cough: int
    """No cough by A, cough by B."""
    to_no_cough: int
    only: tuple[int, int]
    """Recordings that only A, and that only B has an answer for. They count as flips."""
    bags: Shifts | None
    """Of the bag probabilities. None if no recording has both answers."""
    segments: Shifts | None
    """Of the segments' probabilities. Segments of both models start at the same times."""

    @property
    def flips(self) -> int:
        """Recordings whose answer differs."""
        return self.to_cough + self.to_no_cough + sum(self.only)

    @property
    def flips_limit(self) -> float:
        """The upper limit of the true share of flips with 95 % confidence, by Clopper and Pearson."""
        return upper_limit(self.flips, self.recordings)


def summarise(pairs: Sequence[AnswerPair]) -> Summary:
    """Sum up at least one pair."""
    both = [pair.both for pair in pairs if pair.both is not None]
    widths = [min(a.segments.size, b.segments.size) for a, b in both]
    segments = [b.segments[:width] - a.segments[:width] for (a, b), width in zip(both, widths, strict=True)]
    return Summary(
        recordings=len(pairs),
        coughs=(_coughs([pair.a for pair in pairs]), _coughs([pair.b for pair in pairs])),
        to_cough=sum(b.decision and not a.decision for a, b in both),
        to_no_cough=sum(a.decision and not b.decision for a, b in both),
        only=(
            sum(isinstance(pair.b, Refusal) for pair in pairs),
            sum(isinstance(pair.a, Refusal) for pair in pairs),
        ),
        bags=Shifts.of(np.array([b.probability - a.probability for a, b in both])),
        segments=Shifts.of(np.concatenate([np.empty(0), *segments])),
    )


def _coughs(answers: Sequence[Answered]) -> int:
    return sum(isinstance(answer, ModelAnswer) and answer.decision for answer in answers)


def worst_first(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """Recordings with one answer first, then flipped decisions, then by the size of the shift; equal ones by name."""

    def rank(pair: AnswerPair) -> tuple[bool, bool, float, str]:
        return pair.shift is not None, not pair.flips, -abs(pair.shift or 0.0), pair.source

    return sorted(pairs, key=rank)


def answers_of(data: bytes, models: Sequence[ComparedModel], limits: Limits) -> list[Answered]:
    """The answer of each model for a recording. Models with the same profile share the preprocessing.

    Raises the errors that no recording causes.
    """
    found: dict[int, Answered] = {}
    for profile in dict.fromkeys(model.profile for model in models):
        same = [index for index, model in enumerate(models) if model.profile == profile]
        found |= zip(same, _under(data, profile, [models[index] for index in same], limits), strict=True)
    return [found[index] for index in range(len(models))]


def _under(data: bytes, profile: Profile, models: Sequence[ComparedModel], limits: Limits) -> list[Answered]:
    try:
        _, waveform = read_recording(data, profile, limits)
        runs = [_Run(model, ScoredBags.of(waveform, model.coverage)) for model in models]
        index = 0
        while open_runs := [run for run in runs if run.refusal is None and not run.scored.complete]:
            spectrograms = _spectrograms(waveform, index)
            for run in open_runs:
                run.add(spectrograms)
            index += 1
    except PermanentError as error:
        return [Refusal.of(error)] * len(models)
    return [run.answer() for run in runs]


def _spectrograms(waveform: Waveform, bag: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        return batch_of_one(images(waveform.bag(bag), waveform.profile))


@dataclass(slots=True)
class _Run:
    """One model while it scores the bags of a recording."""

    model: ComparedModel
    scored: ScoredBags
    refusal: Refusal | None = field(default=None, init=False)

    def add(self, spectrograms: NDArray[np.float32]) -> None:
        """Score the next bag."""
        try:
            self.scored.add(self.model.detector.score(spectrograms, whole_mask(spectrograms)))
        except PermanentError as error:
            self.refusal = Refusal.of(error)

    def answer(self) -> Answered:
        """The answer after all bags."""
        if self.refusal is not None:
            return self.refusal
        probability = self.scored.bag_probability[self.scored.highest]
        decision = probability > self.model.detector.manifest.threshold
        return ModelAnswer(probability, decision, np.array(self.scored.probability))
