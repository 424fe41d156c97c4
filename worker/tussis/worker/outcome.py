"""What became of one attempt, as a value; and the one place that acts on it."""

from __future__ import annotations

from dataclasses import dataclass

from tussis.shared.errors import TussisError
from tussis.shared.states import AnalysisState


@dataclass(frozen=True)
class Succeeded:
    """The result is committed. ``analyzed_s`` seconds of audio were looked at."""

    analysis_id: int
    analyzed_s: float


@dataclass(frozen=True)
class Settled:
    """Another message had brought the answer already; nothing was done."""

    analysis_id: int
    state: AnalysisState


@dataclass(frozen=True)
class Failed:
    """The failure is committed; ``analysis_id`` is None where only a dead letter could be written."""

    analysis_id: int | None
    error_class: str


@dataclass(frozen=True)
class Superseded:
    """Another attempt took the claim over; this one's work was dropped, and the other one answers."""

    analysis_id: int


@dataclass(frozen=True)
class Deferred:
    """A fault that passes; the next attempt comes after ``delay_s`` seconds."""

    analysis_id: int | None
    error_class: str
    delay_s: float


@dataclass(frozen=True)
class HandedBack:
    """The worker stops: the message goes back into its queue, for another worker, at once."""

    unreleased: str | None = None
    """Token of the attempt, where the store was away and still takes it for running."""


@dataclass(frozen=True)
class HeldElsewhere:
    """Another delivery's attempt holds the analysis; this message comes back after ``delay_s`` seconds."""

    analysis_id: int
    delay_s: float


Outcome = Succeeded | Settled | Failed | Superseded | Deferred | HandedBack | HeldElsewhere


class Stopping(TussisError):
    """The worker stops before this recording is done."""

    error_class = "stopping"
