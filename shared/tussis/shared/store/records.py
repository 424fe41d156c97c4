"""Records for the input and the output of the store."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tussis.shared.coverage import Coverage
from tussis.shared.events import CoughEvent
from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.software import Software

# --- into the store ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model's data in its manifest. ``sha256`` is lower-case hex; ``threshold`` is a probability."""

    name: str
    version: str
    sha256: str
    profile: str
    threshold: float
    provenance: str
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimRequest:
    """A worker's request to claim the analysis of a job, after it has read the object's entity tag (``etag``).

    ``model`` is the model that the worker has loaded. ``profile_overridden`` and ``coverage_overridden``: the job names
    a profile or a coverage other than that of the manifest. ``exclusive``: no other recording shares the run of this
    attempt. If it is false, the attempt is exclusive only if :attr:`Claimed.vanished` is above 0, and the store then
    records it as exclusive. ``token`` identifies the attempt. A repeated request with the same token, after the reply
    to the first one was lost, gets the same claim. ``lease_s``: seconds until the claim expires unless it is renewed.
    ``handed_back`` is the token of an earlier attempt that was handed back while the store was unavailable.
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
    exclusive: bool
    lease_s: float
    coverage: str = Coverage.HEAD
    coverage_overridden: bool = False
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    handed_back: uuid.UUID | None = None


@dataclass(frozen=True)
class SegmentScores:
    """Scores of the segments of a recording, in order: four sequences of equal length, at least 1.

    ``start_s`` and ``end_s`` are seconds from the first sample of the recording. ``probability`` is 0 to 1. ``logit``
    is a float that is not NaN (infinite if the probability is 0 or 1).
    """

    start_s: Sequence[float]
    end_s: Sequence[float]
    probability: Sequence[float]
    logit: Sequence[float]

    def __post_init__(self) -> None:
        lengths = {len(self.start_s), len(self.end_s), len(self.probability), len(self.logit)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"segments need four sequences of equal length above 0, not of the lengths {sorted(lengths)}"
            )

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True)
class BagScores:
    """Scores of the bags of a recording, in order: five sequences of equal length, at least 1.

    ``start_s`` and ``end_s`` are seconds from the first sample, without padding. ``segments`` is the number of segments
    of each bag: 32, except in the last one.
    """

    start_s: Sequence[float]
    end_s: Sequence[float]
    probability: Sequence[float]
    logit: Sequence[float]
    segments: Sequence[int]

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True)
class BagProgress:
    """The finished bags of an analysis without a result. ``scores`` are in a format that only the worker reads."""

    bags_total: int
    bags_done: int
    scores: bytes


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result: the properties of the recording and the scores of the model.

    ``bags`` are all bags, and ``segments`` the segments of all bags. ``bag_probability`` is the highest one of the
    bags. ``peak_dbfs`` and ``rms_dbfs`` are None if every sample is 0. ``decision`` must equal ``bag_probability >
    threshold`` in float64 (Python's floats); otherwise ValueError is raised. ``timings_ms`` maps the name of a stage to
    milliseconds. ``software`` is None if it is unknown.
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
    bags: BagScores
    segments: SegmentScores
    segments_total: int
    analyzed_s: float
    truncated: bool
    events: Sequence[CoughEvent]
    peak_dbfs: float | None
    rms_dbfs: float | None
    clipped_share: float
    dc_offset: float
    warnings: Sequence[str]
    timings_ms: Mapping[str, float]
    software: Software | None = None

    def __post_init__(self) -> None:
        if bool(self.decision) != (float(self.bag_probability) > float(self.threshold)):
            raise ValueError(
                f"decision {self.decision} contradicts bag probability {self.bag_probability!r} and "
                f"threshold {self.threshold!r}"
            )
        if self.bag_probability != max(self.bags.probability) or sum(self.bags.segments) != len(self.segments):
            raise ValueError("the bags contradict the bag probability or the number of segments")


@dataclass(frozen=True, kw_only=True)
class RefusalRequest:
    """A failure that needs no claim: the object is missing, or the worker does not serve the requested model.

    ``etag`` is '' if no object was found. ``profile`` is '' if no profile is known. ``model_requested`` is the model
    that the message names, if the worker does not serve it; ``model`` is then None.
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
    coverage: str = Coverage.HEAD
    coverage_overridden: bool = False


# --- answers to a claim -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claimed:
    """The caller holds the analysis until its lease has expired and another claim takes it over.

    ``number`` is the number of the attempt, from 1. ``vanished`` is the number of vanished attempts since the analysis
    was created or last reopened, exclusive or not. If it is above 0, the run of this attempt must be exclusive.
    ``shadow`` is the model (name@version) that analyses the same content after this analysis has succeeded.
    """

    analysis_id: int
    created_at: datetime
    token: uuid.UUID
    number: int
    vanished: int = 0
    shadow: str | None = None


@dataclass(frozen=True)
class NotItsId:
    """The message failed, apart from the job that has its id: the id is not that of the message."""

    analysis_id: int
    error_class: str
    message: str


@dataclass(frozen=True)
class Settled:
    """The analysis already has its answer. ``shadow`` as in :class:`Claimed`, for a redelivery of the same message."""

    analysis_id: int
    state: AnalysisState
    shadow: str | None = None


@dataclass(frozen=True)
class Held:
    """Another attempt holds the analysis; its lease ends in ``remaining_s`` seconds unless it is renewed."""

    analysis_id: int
    remaining_s: float


@dataclass(frozen=True)
class NotActive:
    """The job names no model, and another model than the worker's is the active one. Nothing was written."""

    active: str
    """name@version"""


@dataclass(frozen=True)
class Exhausted:
    """The last permitted attempt vanished, and the claim made the analysis the failure ``worker_crashed``."""

    analysis_id: int


# --- out of the store -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis with its recording and model in one record. Units are as in ``docs/schema.md``; times are in UTC.

    ``model`` is name@version, or the requested model that the worker does not serve, or None. ``software`` is None in
    open rows, in failures that no attempt reported, and in rows from before revision 0008.
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
    coverage_overridden: bool
    forced_by: str
    segments: int | None
    segments_total: int | None
    duration_s: float | None
    analyzed_s: float | None
    truncated: bool | None
    events: int | None
    cough_seconds: float | None
    peak_dbfs: float | None
    rms_dbfs: float | None
    clipped_share: float | None
    dc_offset: float | None
    warnings: Sequence[str] | None
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
    model_sha256: str | None = None
    software: Software | None = None


@dataclass(frozen=True)
class Segment:
    """The scores of one segment. ``index`` is its position in the bag, from 0."""

    bag_index: int
    index: int
    start_s: float
    end_s: float
    probability: float
    logit: float


def segments_deleted(analysis: Analysis, segments: Sequence[Segment]) -> bool:
    """Whether `tussis retain` deleted the segments of this analysis: it has an answer, and ``segments`` is empty."""
    return analysis.segments is not None and not segments


@dataclass(frozen=True)
class JobAnswer:
    """A job with the analysis that answers it."""

    job_id: str
    enqueued_at: datetime
    received_at: datetime
    analysis: Analysis
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class DeadLetter:
    """Why the message of a job could not be read, and when it was last received."""

    error_class: str
    error_message: str
    received_at: datetime


@dataclass(frozen=True)
class Attempt:
    """One attempt. ``outcome`` and ``ended_at`` are None while it runs."""

    number: int
    worker: str
    exclusive: bool
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    error_class: str | None
    error_message: str | None


@dataclass(frozen=True)
class StateCounts:
    """The number of analyses in each state. ``failures`` maps error class to number, without discarded failures."""

    cough: int
    no_cough: int
    failures: Mapping[str, int]
    discarded: int
    running: int
    waiting: int
    dead_letters: int
    cancelled: int = 0

    @property
    def succeeded(self) -> int:
        return self.cough + self.no_cough

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


@dataclass(frozen=True)
class ActiveModel:
    """The model that answers the jobs that name none: name@version, and since when.

    ``explicit``: `tussis models activate` chose it. Otherwise it is the newest one that workers serve.
    """

    model: str
    explicit: bool
    since: datetime


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that a worker has served. ``model`` and ``parent`` are name@version.

    ``served``: a worker serves it now. ``active_at`` is the time at which it last became active, also without an
    activation; ``activated_at``, ``activated_by`` and ``forced`` are those of its last activation.
    """

    model: str
    active: bool
    served: bool
    results: int
    profile: str
    threshold: float
    parent: str | None
    first_seen_at: datetime
    last_served_at: datetime | None
    active_at: datetime | None
    activated_at: datetime | None
    activated_by: str | None
    forced: bool | None


@dataclass(frozen=True)
class Activation:
    """The activation of a model. ``before``: the model that was active. ``skipped``: what --force skipped."""

    model: str
    before: str | None
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Shadow:
    """The shadow model: name@version, the share of the new recordings that it analyses, and who started it."""

    model: str
    share: float
    started_at: datetime
    started_by: str


@dataclass(frozen=True, kw_only=True)
class ShadowComparison:
    """The shadow model against the active model, on the recordings that were chosen since it started.

    ``chosen``: recordings of the share that the active model has answered. ``failed``: those of them that the shadow
    model failed to analyse. ``compared``: those that both have answered. The shifts are absolute differences of the bag
    probability, the times are seconds from the claim to the result; all are None if nothing was compared.
    ``active_failed``: recordings of the share that the active model failed to analyse; the shadow model does not get
    them.
    """

    model: str
    active: str
    share: float
    started_at: datetime
    stopped_at: datetime | None
    chosen: int
    active_failed: int
    failed: int
    compared: int
    to_cough: int
    to_no_cough: int
    mean_shift: float | None
    p95_shift: float | None
    max_shift: float | None
    active_median_s: float | None
    median_s: float | None

    @property
    def waiting(self) -> int:
        """Chosen recordings without an answer of the shadow model."""
        return self.chosen - self.compared - self.failed


@dataclass(frozen=True, kw_only=True)
class ResultFilter:
    """Which analyses to list.

    ``since`` (inclusive) and ``until`` (exclusive) apply to ``created_at``. ``prefix`` is an S3 URI whose key may be
    empty or the start of keys. ``model`` is a name (all versions) or name@version. ``metadata`` maps names to texts: a
    string in the recording's metadata, or the JSON of another value, must equal the text. ``job_ids`` None is any job.
    ``newest``: of the analyses of a recording that match all of these, only the newest by ``created_at`` is considered.
    ``decision`` and ``state`` are then compared with it, so that an older decision does not stand in for a newer one.
    ``limit`` None is all.
    """

    since: datetime | None = None
    until: datetime | None = None
    decision: bool | None = None
    state: AnalysisState | None = None
    prefix: str | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    job_ids: Sequence[str] | None = None
    newest: bool = False
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class FailureFilter:
    """Which failures to list.

    ``since`` (inclusive) and ``until`` (exclusive) apply to ``finished_at``. ``ids`` are ids of analyses.
    """

    error_class: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    prefix: str | None = None
    ids: Sequence[int] | None = None
    include_discarded: bool = False
    limit: int | None = None


def finite(value: float | None) -> float | None:
    """The value, or None if JSON cannot represent it (an infinite logit)."""
    return value if value is not None and math.isfinite(value) else None
