"""The results of an evaluation, as stored in ``docs/model-card.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tussis.worker.evaluation.measures import Interval


@dataclass(frozen=True, slots=True)
class Model:
    """The measured model."""

    label: str
    sha256: str
    bytes: int
    parameters: int
    threshold: float
    bag_temperature: float
    segment_temperature: float
    segment_offset: float
    ms_a_segment: float
    """Milliseconds per segment of inference with a bag of 16 segments and one thread; median."""
    trained: dict[str, Any]
    """Seed, scenes, epochs and the results of the validation."""


@dataclass(frozen=True, slots=True)
class Group:
    """The share of a group's recordings that were flagged."""

    recordings: int
    flagged: Interval


@dataclass(frozen=True, slots=True)
class Recordings:
    """Results of the split's unaltered recordings."""

    coughs: int
    backgrounds: int
    auroc: Interval
    auroc_without_digits: Interval
    auroc_of_loudest_segment: Interval
    average_precision: float
    calibration_error: float
    sensitivity: Interval
    specificity: Interval
    by_channel: dict[str, Group]
    auroc_by_channel: dict[str, Interval]
    by_class: dict[str, Group]


@dataclass(frozen=True, slots=True)
class Localisation:
    """Results of mixtures at one signal-to-noise ratio."""

    mixtures: int
    segment_auroc: Interval
    highest_on_cough: Interval
    detected: Interval


@dataclass(frozen=True, slots=True)
class Alarms:
    """False alarms in hours without a cough."""

    hours: float
    alarms: int
    an_hour: Interval
    scenes_flagged: Interval
    """The share of the 15 s scenes with the decision cough."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Results of one kind of altered coughs."""

    recordings: int
    kept: Interval
    """The share with the decision cough, of those that had it before the alteration."""
    flagged: Interval
    """The share with the decision cough, of all."""


@dataclass(frozen=True, slots=True)
class Shift:
    """The differences between another profile and ``documented``."""

    auroc: Interval
    mean: float
    p99: float
    flipped: int
    recordings: int
    refused: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All results of an evaluation."""

    split: str
    model: Model
    recordings: Recordings
    localisation: dict[str, Localisation]
    """By the mixture's signal-to-noise ratio."""
    alarms: dict[str, dict[str, Alarms]]
    """By noise level, then by class. ``all`` and ``everyday`` (without sneezes) are sums over classes."""
    probes: dict[str, Probe]
    profiles: dict[str, Shift]
    formats: dict[str, float]
    """Bag probability of one cough of the pack in each format. Empty for splits other than test."""

    def to_json(self) -> str:
        """The results as JSON, with numbers rounded to five decimal places."""
        return json.dumps(_rounded(asdict(self)), indent=1) + "\n"


def read(path: Path) -> Any:
    """Read the results as plain dictionaries, for the card."""
    return json.loads(path.read_text("utf-8"))


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 5)
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
        case list() | tuple():
            return [_rounded(one) for one in value]
    return value
