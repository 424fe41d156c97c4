"""Evaluate the network on ``val``, and choose temperatures, threshold and segment offset on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from training import trials
from training.cache import COUGH, UNCERTAIN
from training.network import Reference, stretched
from training.validation import Validation
from tussis.worker.evaluation import measures

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Logits of one recording."""

    bag: float
    segments: Floats
    """(S,)."""


def answer(network: Reference, images: npt.NDArray[np.uint8]) -> Answer:
    """The network's logits for one recording's images, uint8 (S, 160, 201)."""
    with torch.inference_mode():
        plain = torch.from_numpy(images).float() / 127.5 - 1
        features = network.features(stretched(plain))[None]
        logits = network.heads(features, torch.ones(1, images.shape[0], dtype=torch.bool))
    return Answer(float(logits.bag[0]), logits.segments[0].double().numpy())


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a validation."""

    recording_auroc: float
    scene_auroc: float
    segment_auroc: float
    probe_auroc: float
    """AUROC of the probes against the recordings without a cough."""

    def __str__(self) -> str:
        return (
            f"val AUROC: recordings {self.recording_auroc:.4f}, scenes {self.scene_auroc:.4f},"
            f" segments {self.segment_auroc:.4f}, probes {self.probe_auroc:.4f}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A network's logits for all items of :class:`Validation`, in its order."""

    recordings: tuple[Answer, ...]
    scenes: tuple[Answer, ...]
    probes: tuple[Answer, ...]


def answers(network: Reference, validation: Validation) -> Answers:
    """Run the network on all validation data."""
    parts = (validation.recordings, validation.scenes, validation.probes)
    return Answers(*(tuple(answer(network, item.images) for item in part) for part in parts))


def report(validation: Validation, given: Answers) -> Report:
    """The results of one network's logits."""
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
    """The values that are chosen on ``val`` for the shipped model."""

    threshold: float
    bag_temperature: float
    segment_temperature: float
    segment_offset: float
    """Added to a segment's logit after the temperature. Coughs are rarer in real audio than in a training scene."""


_CANDIDATES: Final = np.linspace(0.05, 0.95, 181)
#: The limit of alarms per hour on ``val``. The aim is 10 on sounds that were not used for the choice.
ALARMS_AN_HOUR: Final = 6.0
#: At least this share of the coughs whose bag is above the threshold must keep a segment above it.
KEPT_SEGMENTS: Final = 0.95


def decided(validation: Validation, given: Answers, quiet: Sequence[Answer]) -> Decision:
    """Choose temperatures by likelihood, the threshold by balance, and the segment offset by alarms per hour.

    Args:
        validation: the truth.
        given: the network's logits.
        quiet: its logits for :func:`training.validation.hours`.
    """
    truth = np.array([item.is_cough for item in (*validation.recordings, *validation.scenes)])
    bags = np.concatenate([_bags(given.recordings), _bags(given.scenes)])
    bag_t = measures.temperature(truth, bags)
    segment_t = measures.temperature(*_segments(validation, given))
    balance = np.array([_balance(validation, given, quiet, bag_t * _logit(cut)) for cut in _CANDIDATES])
    best = np.flatnonzero(balance >= balance.max() - 0.001)
    # Of equally good thresholds take the middle one, which has a margin on both sides.
    threshold = round(float(_CANDIDATES[best[len(best) // 2]]), 3)
    level = _logit(threshold)
    coughs = [
        one.segments.max() / segment_t
        for item, one in zip(validation.recordings, given.recordings, strict=True)
        if item.is_cough and one.bag / bag_t > level
    ]
    offset = 0.0
    for offset in np.arange(0, -6, -0.05):
        enough = alarms_an_hour(quiet, segment_t, float(offset), level) <= ALARMS_AN_HOUR
        if enough or (np.array(coughs) + offset - 0.05 > level).mean() < KEPT_SEGMENTS:
            break
    return Decision(threshold, bag_t, segment_t, round(float(offset), 2))


def alarms_an_hour(quiet: Sequence[Answer], temperature: float, offset: float, level: float) -> float:
    """Runs of segments above ``level`` per hour, in scenes without a cough."""
    runs = sum(trials.merged([bool(flag) for flag in one.segments / temperature + offset > level]) for one in quiet)
    return runs / (len(quiet) * trials.SCENE_S / 3_600)


def _balance(validation: Validation, given: Answers, quiet: Sequence[Answer], level: float) -> float:
    """Mean of sensitivity (recordings, scenes, probes) and specificity (recordings, scenes, hours) of the bags."""
    recordings = _bags(given.recordings) > level
    mixed = _bags(given.scenes) > level
    truth = np.array([item.is_cough for item in validation.recordings])
    mixed_truth = np.array([item.is_cough for item in validation.scenes])
    found = [recordings[truth].mean(), mixed[mixed_truth].mean(), (_bags(given.probes) > level).mean()]
    wrong = [recordings[~truth].mean(), mixed[~mixed_truth].mean(), (_bags(quiet) > level).mean()]
    return float(np.mean(found) + 1 - np.mean(wrong)) / 2


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _bags(given: Sequence[Answer]) -> Floats:
    return np.array([one.bag for one in given])


def _segments(validation: Validation, given: Answers) -> tuple[npt.NDArray[np.bool_], Floats]:
    labels = np.concatenate([item.labels for item in validation.scenes])
    logits = np.concatenate([one.segments for one in given.scenes])
    known = labels != UNCERTAIN
    return labels[known] == COUGH, logits[known]
