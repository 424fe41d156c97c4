"""The outcome of one attempt, as a value. :func:`tussis.worker.pipeline.tasks.act` acts on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tussis.shared.errors import TussisError
from tussis.shared.messages import Job
from tussis.shared.outcomes import OutcomeAnswer
from tussis.shared.states import AnalysisState


@dataclass(frozen=True)
class Succeeded:
    """The result is committed. ``analyzed_s``: seconds of audio that were analysed.

    ``shadow`` is the job that is opened in the step that closes this one.
    """

    analysis_id: int
    analyzed_s: float
    answer: OutcomeAnswer | None = field(default=None, compare=False)
    """What upstream is told. None: it is read from the store."""
    shadow: Job | None = None


@dataclass(frozen=True)
class Settled:
    """The answer was already stored, through another message. Nothing was done.

    ``shadow`` is the job that is opened in the step that closes this one: an earlier delivery of this message stored
    the result, and its process died before that step.
    """

    analysis_id: int
    state: AnalysisState
    shadow: Job | None = None


@dataclass(frozen=True)
class Failed:
    """The failure is committed. ``analysis_id`` is None when only a dead letter could be written."""

    analysis_id: int | None
    error_class: str
    message: str = field(default="", compare=False)
    """What upstream is told. Empty: upstream is told what the store has, which may be another answer."""


@dataclass(frozen=True)
class Superseded:
    """Another attempt took over the claim and will store the answer. The work of this attempt was discarded."""

    analysis_id: int


@dataclass(frozen=True)
class Deferred:
    """A transient error. The next attempt follows after ``delay_s`` seconds."""

    analysis_id: int | None
    error_class: str
    delay_s: float


@dataclass(frozen=True)
class HandedBack:
    """The message returns to its queue at once, because the worker stops or pauses."""

    unreleased: str | None = None
    """Token of the attempt, if the store could not be reached and still lists the attempt as running."""


@dataclass(frozen=True)
class HeldElsewhere:
    """The attempt of another delivery holds the claim. This message is delivered again after ``delay_s`` seconds."""

    analysis_id: int
    delay_s: float


@dataclass(frozen=True)
class Routed:
    """Another model analyses the job. Its message goes to the queue of that model."""

    model: str
    """``name`` or ``name@version``."""


Outcome = Succeeded | Settled | Failed | Superseded | Deferred | HandedBack | HeldElsewhere | Routed


class Stopping(TussisError):
    """The worker stops before this recording is analysed."""

    error_class = "stopping"
