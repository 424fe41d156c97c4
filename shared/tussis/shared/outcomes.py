"""The outcome of a job: what upstream is told when a job ends. ``docs/outcomes.md`` is its specification.

The broker holds outcomes as JSON, in a stream and for a while under the id of the job. Closing a job and telling its
outcome is one step of the broker (:data:`~tussis.shared.ledger_scripts.CLOSE_SCRIPT`).

Readers ignore unknown fields, so that a later version of Tussis can add some. Any other change has another version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple

from tussis.shared.errors import OutcomeUnreadable
from tussis.shared.uris import shown

OUTCOME_VERSION: Final = 1
#: Largest number of segments, and of cough events, in an outcome: the first ones. The store has all.
MAX_SEGMENTS: Final = 64
MAX_EVENTS: Final = 64
#: Largest number of characters of an error message in an outcome.
MAX_MESSAGE_CHARS: Final = 1000

DEFAULT_KEPT: Final = 20_000
DEFAULT_TTL_S: Final = 3600

_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class OutcomeBounds:
    """How much the broker keeps: the newest ``kept`` outcomes in the stream, and each job's newest for ``ttl_s`` s."""

    kept: int = DEFAULT_KEPT
    ttl_s: int = DEFAULT_TTL_S


DEFAULT_BOUNDS: Final = OutcomeBounds()


class OutcomeState(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """An operator cancelled it before it had an answer."""


class SegmentScore(NamedTuple):
    """A segment: its start in seconds from the start of the recording, and its probability."""

    start_s: float
    probability: float


class EventSpan(NamedTuple):
    """A cough event: start and end in seconds from the start of the recording, and its highest probability."""

    start_s: float
    end_s: float
    peak: float


@dataclass(frozen=True, kw_only=True)
class OutcomeAnswer:
    """The result of a job. Lengths are in seconds, and probabilities are 0 to 1.

    ``segments`` are the first :data:`MAX_SEGMENTS` of ``segments_scored`` scored segments, and ``events`` the first
    :data:`MAX_EVENTS` of ``events_found`` cough events. ``segments`` is empty if `tussis retain` deleted them.
    """

    decision: bool
    bag_probability: float
    threshold: float
    model: str
    profile: str
    coverage: str
    duration_s: float
    analyzed_s: float
    truncated: bool
    cough_seconds: float
    warnings: tuple[str, ...]
    events_found: int
    events: tuple[EventSpan, ...]
    segments_scored: int
    segments: tuple[SegmentScore, ...]


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """How a job ended. Times are in seconds since the epoch.

    ``answer`` is set if the job succeeded, and ``error_class`` and ``error_message`` if it failed. Both are None if it
    was cancelled, or if the worker could not read them from the store. ``uri`` is None if the message of the job named
    no object. ``enqueued_at`` is from the clock of the producer, the other times are from a worker or the database.
    ``replayed``: an operator sent this outcome again.
    """

    job_id: str
    uri: str | None
    state: OutcomeState
    enqueued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    analysis_id: int | None = None
    answer: OutcomeAnswer | None = None
    error_class: str | None = None
    error_message: str | None = None
    replayed: bool = False

    @property
    def succeeded(self) -> bool:
        return self.state is OutcomeState.SUCCEEDED

    def to_dict(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        error = None
        if self.error_class is not None:
            error = {"class": self.error_class, "message": _encodable((self.error_message or "")[:MAX_MESSAGE_CHARS])}
        return {
            "v": OUTCOME_VERSION,
            "job_id": _encodable(self.job_id),
            "uri": self.uri,
            "state": self.state.value,
            "enqueued_at": self.enqueued_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "analysis_id": self.analysis_id,
            "answer": None if self.answer is None else dict(vars(self.answer)),  # asdict takes ten times as long
            "error": error,
            "replayed": self.replayed,
        }

    def to_json(self) -> str:
        """The outcome as compact JSON with all fields."""
        return _JSON.encode(self.to_dict())

    def again(self) -> JobOutcome:
        """The same outcome, marked as replayed."""
        return replace(self, replayed=True)


def parse_outcome(text: str | bytes) -> JobOutcome:
    """Read an outcome from its JSON. Unknown fields are ignored. Raises :class:`OutcomeUnreadable`."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise OutcomeUnreadable(f"the outcome is not JSON: {problem}") from None
    version = raw.get("v") if isinstance(raw, dict) else None
    if version != OUTCOME_VERSION:
        raise OutcomeUnreadable(
            f"the outcome has version {shown(version)}, this program reads version {OUTCOME_VERSION}: upgrade Tussis"
        )
    try:
        error = raw["error"] or {}
        return JobOutcome(
            job_id=str(raw["job_id"]),
            uri=raw["uri"],
            state=OutcomeState(raw["state"]),
            enqueued_at=raw["enqueued_at"],
            started_at=raw["started_at"],
            finished_at=raw["finished_at"],
            analysis_id=raw["analysis_id"],
            answer=None if raw["answer"] is None else _answer(raw["answer"]),
            error_class=error.get("class"),
            error_message=error.get("message"),
            replayed=bool(raw["replayed"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise OutcomeUnreadable(f"the outcome has a wrong or missing field: {problem}") from None


def first_segments(starts: Iterable[float], probabilities: Iterable[float]) -> tuple[SegmentScore, ...]:
    """The segments that an outcome has."""
    pairs = islice(zip(starts, probabilities, strict=True), MAX_SEGMENTS)
    return tuple(SegmentScore(start, probability) for start, probability in pairs)


def _answer(raw: dict[str, Any]) -> OutcomeAnswer:
    fields = {name: raw[name] for name in OutcomeAnswer.__dataclass_fields__}
    fields["warnings"] = tuple(fields["warnings"])
    fields["events"] = tuple(EventSpan(*event[:3]) for event in fields["events"])
    fields["segments"] = tuple(SegmentScore(*segment[:2]) for segment in fields["segments"])
    return OutcomeAnswer(**fields)


def _encodable(text: str) -> str:
    """The text without characters that UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
