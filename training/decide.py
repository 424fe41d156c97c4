"""Everything that ``val`` decides: how good the network is while it learns, temperature, threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from training import measures
from training.cache import COUGH, UNCERTAIN
from training.network import Reference, stretched
from training.validation import Validation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Logits of one recording."""

    bag: float
    segments: Floats
    """(S,)."""


def answer(network: Reference, images: npt.NDArray[np.uint8]) -> Answer:
    """What the network says of one recording's images, uint8 (S, 160, 201)."""
    with torch.inference_mode():
        plain = torch.from_numpy(images).float() / 127.5 - 1
        features = network.features(stretched(plain))[None]
        logits = network.heads(features, torch.ones(1, images.shape[0], dtype=torch.bool))
    return Answer(float(logits.bag[0]), logits.segments[0].double().numpy())


@dataclass(frozen=True, slots=True)
class Report:
    """The validation's numbers."""

    recording_auroc: float
    scene_auroc: float
    segment_auroc: float
    probe_auroc: float
    """The probes against the recordings without a cough."""

    def __str__(self) -> str:
        return (
            f"val AUROC: recordings {self.recording_auroc:.4f}, scenes {self.scene_auroc:.4f},"
            f" segments {self.segment_auroc:.4f}, probes {self.probe_auroc:.4f}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network says of all of :class:`Validation`, in its order."""

    recordings: tuple[Answer, ...]
    scenes: tuple[Answer, ...]
    probes: tuple[Answer, ...]


def answers(network: Reference, validation: Validation) -> Answers:
    """Ask it all."""
    parts = (validation.recordings, validation.scenes, validation.probes)
    return Answers(*(tuple(answer(network, item.images) for item in part) for part in parts))


def report(validation: Validation, given: Answers) -> Report:
    """The numbers of one network."""
    truth = np.array([item.is_cough for item in validation.recordings])
    bags = _bags(given.recordings)
    labels, logits = _segments(validation, given)
    probe_truth = np.concatenate([np.ones(len(given.probes), bool), np.zeros(int((~truth).sum()), bool)])
    return Report(
        recording_auroc=measures.auroc(truth, bags),
        scene_auroc=measures.auroc(np.array([item.is_cough for item in validation.scenes]), _bags(given.scenes)),
        segment_auroc=measures.auroc(labels, logits),
        probe_auroc=measures.auroc(probe_truth, np.concatenate([_bags(given.probes), bags[~truth]])),
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the shipped model takes over from ``val``."""

    threshold: float
    bag_temperature: float
    segment_temperature: float


#: Of the recordings without a cough in ``val``, how many may be flagged beside the best balance.
_CANDIDATES: Final = np.linspace(0.05, 0.95, 181)


def decided(validation: Validation, given: Answers) -> Decision:
    """Temperatures by likelihood, then the threshold with the best balance over recordings, scenes and probes.

    The balance is the mean of the two classes' accuracies: sensitivity is the mean over recordings, scenes and
    probes, specificity that over recordings, scenes and, since a false alarm an hour is a matter of segments, the
    segments of the scenes.
    """
    truth = np.array([item.is_cough for item in (*validation.recordings, *validation.scenes)])
    bags = np.concatenate([_bags(given.recordings), _bags(given.scenes)])
    labels, logits = _segments(validation, given)
    bag_temperature = measures.temperature(truth, bags)
    segment_temperature = measures.temperature(labels, logits)
    balance = [_balance(validation, given, bag_temperature, segment_temperature, cut) for cut in _CANDIDATES]
    best = np.flatnonzero(np.array(balance) >= max(balance) - 0.001)
    # Of equals the middle one: it has room on both sides.
    return Decision(round(float(_CANDIDATES[best[len(best) // 2]]), 3), bag_temperature, segment_temperature)


def _balance(validation: Validation, given: Answers, bag_t: float, segment_t: float, cut: float) -> float:
    level = float(np.log(cut / (1 - cut)))
    recordings = _bags(given.recordings) / bag_t > level
    mixed = _bags(given.scenes) / bag_t > level
    probed = _bags(given.probes) / bag_t > level
    truth = np.array([item.is_cough for item in validation.recordings])
    mixed_truth = np.array([item.is_cough for item in validation.scenes])
    labels, logits = _segments(validation, given)
    segments = logits / segment_t > level
    sensitivity = np.mean([recordings[truth].mean(), mixed[mixed_truth].mean(), probed.mean()])
    specificity = np.mean([(~recordings[~truth]).mean(), (~mixed[~mixed_truth]).mean(), (~segments[~labels]).mean()])
    return float(sensitivity + specificity) / 2


def _bags(given: Sequence[Answer]) -> Floats:
    return np.array([one.bag for one in given])


def _segments(validation: Validation, given: Answers) -> tuple[npt.NDArray[np.bool_], Floats]:
    labels = np.concatenate([item.labels for item in validation.scenes])
    logits = np.concatenate([one.segments for one in given.scenes])
    known = labels != UNCERTAIN
    return labels[known] == COUGH, logits[known]
