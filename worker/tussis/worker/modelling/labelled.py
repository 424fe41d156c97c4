"""Compare the answers of two models with labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tussis.worker.evaluation.measures import Truth, auroc
from tussis.worker.modelling.comparison import AnswerPair, ModelAnswer


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """How the answers of one model agree with labels. A number is None if a class is missing."""

    auroc: float | None
    sensitivity: float | None
    """At the threshold of the manifest, as the specificity."""
    specificity: float | None


@dataclass(frozen=True, slots=True)
class LabelledComparison:
    """The comparison with labels, over the labelled recordings that both models answer."""

    recordings: int
    coughs: int
    a: LabelMeasures
    b: LabelMeasures
    right: tuple[int, int]
    """Of the recordings whose decision flips: those in which A, and those in which B agrees with the label."""


def compare_with_labels(pairs: Sequence[AnswerPair], labels: Mapping[str, bool]) -> LabelledComparison:
    """Compare. ``labels``: source of a recording -> whether it has a cough."""
    known = [(pair.both, labels[pair.source]) for pair in pairs if pair.both is not None and pair.source in labels]
    truth = np.array([is_cough for _, is_cough in known], dtype=np.bool_)
    flipped = [(both[0], is_cough) for both, is_cough in known if both[0].decision != both[1].decision]
    by_a = sum(answer.decision == is_cough for answer, is_cough in flipped)
    return LabelledComparison(
        recordings=len(known),
        coughs=int(truth.sum()),
        a=_quality(truth, [both[0] for both, _ in known]),
        b=_quality(truth, [both[1] for both, _ in known]),
        right=(by_a, len(flipped) - by_a),
    )


def _quality(truth: Truth, answers: Sequence[ModelAnswer]) -> LabelMeasures:
    area = auroc(truth, np.array([answer.probability for answer in answers]))
    decisions = np.array([answer.decision for answer in answers], dtype=np.bool_)
    return LabelMeasures(
        auroc=None if math.isnan(area) else area,
        sensitivity=float(decisions[truth].mean()) if truth.any() else None,
        specificity=float((~decisions[~truth]).mean()) if not truth.all() else None,
    )
