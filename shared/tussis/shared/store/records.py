"""What goes into the store and what comes out of it, as values."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.schema import COVERAGE_HEAD

# --- into the store ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a manifest says of its model. ``sha256`` is lower-case hex; ``threshold`` is a probability."""

    name: str
    version: str
    sha256: str
    profile: str
    threshold: float
    provenance: str
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimRequest:
    """A worker asks for a job's recording, after it has seen the object (``etag``).

    ``model`` is the model that the worker has loaded. ``profile_overridden``: the job names a profile that is not the
    one of the model's manifest. ``alone``: no other recording shares the run during this attempt, whatever the answer;
    otherwise only when :attr:`Claimed.vanished` asks for it, and then it is written down as alone. ``token`` names the
    attempt: claiming again with the same request, because the answer to the first claim was lost, gives the same
    claim. ``lease_s``: seconds for which the claim is held unless it is renewed. ``handed_back`` names an earlier
    attempt that was handed back while the store was away.
    """

    job: Job
    etag: str
    version_id: str | None
    size_bytes: int | None
    model: ModelFacts
    profile: str
    profile_overridden: bool
    threshold: float
    worker: str
    device: str
    max_attempts: int
    alone: bool
    lease_s: float
    coverage: str = COVERAGE_HEAD
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    handed_back: uuid.UUID | None = None


@dataclass(frozen=True)
class SegmentScores:
    """Scores of the segments of one bag, in order: four sequences of one length, at least 1.

    ``start_s`` and ``end_s`` in seconds from the recording's first sample, ``probability`` 0 to 1, ``logit`` a float
    that is not NaN (infinite where the probability is 0 or 1).
    """

    start_s: Sequence[float]
    end_s: Sequence[float]
    probability: Sequence[float]
    logit: Sequence[float]

    def __post_init__(self) -> None:
        lengths = {len(self.start_s), len(self.end_s), len(self.probability), len(self.logit)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"segments need four sequences of one length above 0, these have {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished analysis: what was learnt of the recording, and what the model said of it.

    ``decision`` must be ``bag_probability > threshold`` in float64 (Python's floats); ValueError otherwise.
    ``timings_ms`` maps a stage's name to milliseconds.
    """

    size_bytes: int
    duration_s: float
    rate_hz: int
    channels: int
    codec: str
    container: str
    decoder: str
    bag_probability: float
    bag_logit: float
    decision: bool
    threshold: float
    segments: SegmentScores
    segments_total: int
    analyzed_s: float
    truncated: bool
    timings_ms: Mapping[str, float]

    def __post_init__(self) -> None:
        if bool(self.decision) != (float(self.bag_probability) > float(self.threshold)):
            raise ValueError(
                f"decision {self.decision} against bag probability {self.bag_probability!r} and "
                f"threshold {self.threshold!r}"
            )


@dataclass(frozen=True, kw_only=True)
class RefusalRequest:
    """A failure that needs no claim: the object is missing, the model named is not served here.

    ``etag`` is '' when no object was seen, ``profile`` '' when none is known. ``model_requested`` is the model that the
    message names and no worker here serves; ``model`` then is None.
    """

    job: Job
    error_class: str
    message: str
    worker: str
    device: str
    profile: str
    profile_overridden: bool
    etag: str = ""
    version_id: str | None = None
    model: ModelFacts | None = None
    model_requested: str | None = None
    coverage: str = COVERAGE_HEAD


# --- answers to a claim -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claimed:
    """The analysis is the caller's until its lease has expired and another claim takes it over.

    ``number`` counts attempts from 1. ``vanished`` is how many attempts ended without a word since the analysis was
    last opened, alone or not: above 0 the recording has to run alone.
    """

    analysis_id: int
    created_at: datetime
    token: uuid.UUID
    number: int
    vanished: int = 0


@dataclass(frozen=True)
class Settled:
    """Nothing to do: the analysis has its answer."""

    analysis_id: int
    state: AnalysisState


@dataclass(frozen=True)
class Held:
    """Another attempt holds the analysis; its lease ends in ``remaining_s`` seconds unless it is renewed."""

    analysis_id: int
    remaining_s: float


@dataclass(frozen=True)
class Exhausted:
    """The last attempt allowed ended without a word; the analysis has just become the failure ``worker_crashed``."""

    analysis_id: int


# --- out of the store -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis with its recording and model, flat. Units as in ``docs/schema.md``; times are in UTC.

    ``model`` is name@version, or the model that the message asked for and nobody serves, or None.
    """

    id: int
    uri: str
    bucket: str
    key: str
    etag: str
    version_id: str | None
    state: AnalysisState
    decision: bool | None
    bag_probability: float | None
    bag_logit: float | None
    threshold: float | None
    model: str | None
    model_requested: str | None
    profile: str
    profile_overridden: bool
    coverage: str
    forced_by: str
    segments: int | None
    segments_total: int | None
    duration_s: float | None
    analyzed_s: float | None
    truncated: bool | None
    size_bytes: int | None
    rate_hz: int | None
    channels: int | None
    codec: str | None
    container: str | None
    decoder: str | None
    attempts: int
    error_class: str | None
    error_message: str | None
    timings_ms: Mapping[str, float]
    worker: str
    device: str
    job_id: str
    metadata: Mapping[str, Any]
    created_at: datetime
    enqueued_at: datetime
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Segment:
    """One segment's scores. ``index`` counts from 0 within the bag."""

    bag_index: int
    index: int
    start_s: float
    end_s: float
    probability: float
    logit: float


@dataclass(frozen=True)
class JobAnswer:
    """What the store knows of a job."""

    job_id: str
    enqueued_at: datetime
    received_at: datetime
    analysis: Analysis
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class DeadLetter:
    """Why a job's message could not be read, and when that was last found."""

    error_class: str
    error_message: str
    received_at: datetime


@dataclass(frozen=True)
class Attempt:
    """One attempt. ``outcome`` and ``ended_at`` are None while it runs."""

    number: int
    worker: str
    alone: bool
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    error_class: str | None
    error_message: str | None


@dataclass(frozen=True)
class Counts:
    """How many analyses stand where. ``failures`` maps error class to count; discarded ones are apart."""

    cough: int
    no_cough: int
    failures: Mapping[str, int]
    discarded: int
    running: int
    waiting: int
    dead_letters: int

    @property
    def succeeded(self) -> int:
        return self.cough + self.no_cough

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


@dataclass(frozen=True, kw_only=True)
class ResultFilter:
    """Which analyses. ``since`` (inclusive) and ``until`` (exclusive) go by ``created_at``; ``prefix`` is an S3 URI
    whose key may be empty or the start of keys; ``limit`` None is all."""

    since: datetime | None = None
    until: datetime | None = None
    decision: bool | None = None
    state: AnalysisState | None = None
    prefix: str | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class FailureFilter:
    """Which failures. ``since`` (inclusive) and ``until`` (exclusive) go by ``finished_at``; ``ids`` are analyses'."""

    error_class: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    prefix: str | None = None
    ids: Sequence[int] | None = None
    include_discarded: bool = False
    limit: int | None = None


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no number for it (an infinite logit)."""
    return value if value is not None and math.isfinite(value) else None
