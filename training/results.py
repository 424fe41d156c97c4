"""What an evaluation finds, as it stands in ``docs/model-card.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.measures import Interval


@dataclass(frozen=True, slots=True)
class Model:
    """What was measured."""

    label: str
    sha256: str
    bytes: int
    parameters: int
    threshold: float
    bag_temperature: float
    segment_temperature: float
    segment_offset: float
    ms_a_segment: float
    """Inference of one segment in a bag of 16, one thread; median."""
    trained: dict[str, Any]
    """Seed, scenes, epochs and the validation's numbers."""


@dataclass(frozen=True, slots=True)
class Group:
    """A share of recordings that were flagged."""

    recordings: int
    flagged: Interval


@dataclass(frozen=True, slots=True)
class Recordings:
    """The split's recordings as they are."""

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
    """Mixtures at one level."""

    mixtures: int
    segment_auroc: Interval
    highest_on_cough: Interval
    detected: Interval


@dataclass(frozen=True, slots=True)
class Alarms:
    """Hours without a cough."""

    hours: float
    alarms: int
    an_hour: Interval
    scenes_flagged: Interval
    """Share of the 15 s scenes whose recording as a whole was called a cough."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Altered coughs."""

    recordings: int
    kept: Interval
    """Of those that were called a cough before, the share that still is."""
    flagged: Interval
    """Of all."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Another profile against ``documented``."""

    auroc: Interval
    mean: float
    p99: float
    flipped: int
    recordings: int
    refused: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All of it."""

    split: str
    model: Model
    recordings: Recordings
    localisation: dict[str, Localisation]
    """By the mixture's signal-to-noise ratio."""
    alarms: dict[str, dict[str, Alarms]]
    """By noise, then by class; ``all`` and ``everyday`` (without sneezes) are sums."""
    probes: dict[str, Probe]
    profiles: dict[str, Shift]
    formats: dict[str, float]
    """Bag probability of the pack's one cough in each format; empty for splits other than test."""

    def to_json(self) -> str:
        """Numbers to five places: enough for any table, few enough for a diff."""
        return json.dumps(_rounded(asdict(self)), indent=1) + "\n"


def read(path: Path) -> Any:
    """The numbers as plain dictionaries, for the card."""
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
