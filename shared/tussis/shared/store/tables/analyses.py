"""The tables of analyses, of the jobs that ask for them, and of the attempts at them. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.tables.base import Time, metadata, one_of
from tussis.shared.store.tables.models import models
from tussis.shared.store.tables.recordings import recordings

analyses = Table(
    "analyses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("created_at", Time, nullable=False, server_default=func.now(), comment="time of the first claim"),
    Column("recording_id", BigInteger, ForeignKey(recordings.c.id), nullable=False, comment="recordings.id"),
    Column(
        "model_id",
        BigInteger,
        ForeignKey(models.c.id),
        comment="models.id; null if the job failed before a model was known",
    ),
    Column("model_requested", Text, comment="model named in the message, only if the worker does not serve it"),
    Column(
        "profile",
        Text,
        nullable=False,
        comment="preprocessing profile; empty if the job failed before a profile was known",
    ),
    Column(
        "profile_overridden",
        Boolean,
        nullable=False,
        comment="true if the job requested another profile than the manifest; the view current omits such rows",
    ),
    Column(
        "coverage",
        Text,
        nullable=False,
        comment=(
            "part of the recording that was analysed; head: the first 32 segments, in one bag; full: all, in bags of 32"
        ),
    ),
    Column(
        "forced_by",
        Text,
        nullable=False,
        server_default="",
        comment=(
            "id of the job that requested an additional analysis (again); cancelled:ID if the job ID was cancelled "
            "before an attempt; otherwise empty"
        ),
    ),
    Column(
        "job_id",
        Uuid(as_uuid=False),
        nullable=False,
        comment="id of the job that last claimed this analysis; the table jobs has all of them",
    ),
    Column("state", Text, nullable=False, comment="running, waiting, succeeded, failed, discarded or cancelled"),
    Column(
        "attempt_token",
        Uuid,
        nullable=False,
        comment="token of the newest attempt; only the attempt with this token can complete the analysis",
    ),
    Column(
        "bag_probability",
        Double,
        comment="probability that the recording contains a cough, 0 to 1: the highest one of its bags",
    ),
    Column("bag_logit", Double, comment="logit of bag_probability (natural logarithm of the odds)"),
    Column("decision", Boolean, comment="true: cough (bag_probability > threshold); false: no cough"),
    Column("threshold", Double, comment="threshold used for the decision"),
    Column("segments", Integer, comment="number of analysed segments"),
    Column(
        "segments_total",
        Integer,
        comment="number of segments of the whole recording; coverage head analyses the first 32",
    ),
    Column("analyzed_s", Double, comment="length of the analysed audio in seconds, from the start of the recording"),
    Column("truncated", Boolean, comment="true if the recording has audio after the last analysed segment"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        comment=(
            "number of attempts; a failure that was recorded without a claim counts as one; 0 if the job was cancelled "
            "before an attempt"
        ),
    ),
    Column(
        "first_attempt",
        Integer,
        nullable=False,
        server_default="1",
        comment="number of the first attempt since the analysis was created or last reopened",
    ),
    Column("error_class", Text, comment="class of the error that made the analysis fail or wait; a stable identifier"),
    Column("error_message", Text, comment="description of the error"),
    Column(
        "timings_ms",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="duration of each stage of the last attempt in milliseconds, as JSON",
    ),
    Column(
        "worker",
        Text,
        nullable=False,
        comment="name of the worker of the newest attempt; without one, who cancelled the job",
    ),
    Column("device", Text, nullable=False, comment="cpu or gpu; also any if the job was cancelled before an attempt"),
    Column("decoder", Text, comment="decoder used for this analysis"),
    Column(
        "enqueued_at", Time, nullable=False, comment="time at which the job was enqueued, by the clock of the producer"
    ),
    Column("started_at", Time, nullable=False, comment="start of the newest attempt; without one, finished_at"),
    Column(
        "finished_at",
        Time,
        comment="time at which the analysis succeeded, failed or was cancelled; null if it is open",
    ),
    Column(
        "coverage_overridden",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="true if the job requested another coverage than the manifest; the view current omits such rows",
    ),
    Column("events", Integer, comment="number of cough events; the table events has them"),
    Column("cough_seconds", Double, comment="length of all cough events together, in seconds"),
    Column(
        "peak_dbfs",
        Double,
        comment="largest absolute sample in decibels below full scale; null if every sample is 0",
    ),
    Column(
        "rms_dbfs",
        Double,
        comment="root mean square of the samples in decibels below full scale; null if every sample is 0",
    ),
    Column("clipped_share", Double, comment="share of clipped samples, 0 to 1"),
    Column("dc_offset", Double, comment="largest absolute mean of a channel; full scale is 1"),
    Column(
        "warnings",
        ARRAY(Text),
        comment="properties of the recording that make the result doubtful; empty if there are none",
    ),
    # No foreign key: every result would lock the same row of software, which took 0.13 ms of 2.3 ms of PostgreSQL's CPU
    # (four connections), and the migration would read the whole table. Rows of software are never deleted.
    Column(
        "software_id",
        Integer,
        comment=(
            "software.id; null for open rows, for failures that no attempt reported, and for rows from before revision "
            "0008"
        ),
    ),
    Column(
        "shadow",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment=(
            "true: by the shadow model, for comparison only. Only the view model_pairs and the command tussis models "
            "status show such rows, until another job requests the analysis or the model becomes active"
        ),
    ),
    # One analysis for each combination. NULL in model_id counts as a value.
    UniqueConstraint(
        "recording_id",
        "model_id",
        "model_requested",
        "profile",
        "coverage",
        "forced_by",
        name="analyses_identity_key",
        postgresql_nulls_not_distinct=True,
    ),
    CheckConstraint(one_of("state", AnalysisState), name="state"),
    CheckConstraint("coverage <> ''", name="coverage"),
    CheckConstraint(
        "first_attempt >= 1 AND attempts >= first_attempt - (state = 'cancelled')::integer", name="attempts"
    ),
    CheckConstraint("bag_probability BETWEEN 0 AND 1", name="bag_probability"),
    CheckConstraint("bag_logit <> 'NaN'", name="bag_logit"),
    CheckConstraint("threshold BETWEEN 0 AND 1", name="threshold"),
    CheckConstraint("decision = (bag_probability > threshold)", name="decision"),
    CheckConstraint("segments BETWEEN 1 AND segments_total", name="segments"),
    CheckConstraint("analyzed_s >= 0 AND analyzed_s < 'Infinity'", name="analyzed_s"),
    CheckConstraint("jsonb_typeof(timings_ms) = 'object'", name="timings_ms"),
    CheckConstraint(
        "state <> 'succeeded' OR (num_nulls(model_id, bag_probability, bag_logit, decision, threshold, segments, "
        "segments_total, analyzed_s, truncated, decoder, finished_at) = 0 AND num_nonnulls(error_class, error_message, "
        "model_requested) = 0)",
        name="succeeded",
    ),
    CheckConstraint(
        "state NOT IN ('failed', 'discarded') OR num_nulls(error_class, error_message, finished_at) = 0", name="failed"
    ),
    CheckConstraint("state NOT IN ('running', 'waiting') OR finished_at IS NULL", name="open"),
    CheckConstraint(
        "state <> 'cancelled' OR (finished_at IS NOT NULL AND num_nonnulls(error_class, error_message) = 0)",
        name="cancelled",
    ),
    CheckConstraint("state <> 'running' OR num_nonnulls(error_class, error_message) = 0", name="running"),
    CheckConstraint(
        "state = 'succeeded' OR num_nonnulls(bag_probability, bag_logit, decision, segments, segments_total, "
        "analyzed_s, truncated) = 0",
        name="scores_only_of_success",
    ),
    CheckConstraint("clipped_share BETWEEN 0 AND 1", name="clipped_share"),
    CheckConstraint("events >= 0 AND cough_seconds >= 0 AND cough_seconds < 'Infinity'", name="events"),
    Index(None, "created_at", "id"),
    Index(None, "finished_at"),
    # `tussis status` counts with an index-only scan of this index.
    Index(None, "state", "decision", "error_class"),
    Index(
        "analyses_open_failures_idx",
        "error_class",
        text("finished_at DESC"),
        postgresql_where=text("state = 'failed'"),
    ),
    Index(None, "model_id"),
    # The hidden rows: `tussis status` subtracts them, and an activation shows them.
    Index("analyses_shadow_idx", "model_id", "state", "decision", "error_class", postgresql_where=text("shadow")),
    comment="One row for each analysis: one run of one model and profile on one recording, with its outcome.",
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Uuid(as_uuid=False), primary_key=True, comment="job id returned by enqueue"),
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id of the analysis that answers this job",
    ),
    Column(
        "enqueued_at",
        Time,
        nullable=False,
        comment="time at which the job was last enqueued, by the clock of the producer",
    ),
    Column(
        "received_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which a worker first received the job, or at which it was cancelled before",
    ),
    Index(None, "analysis_id"),
    comment="One row for each job, with the analysis that answers it. Several jobs can share one analysis.",
)

attempts = Table(
    "attempts",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id",
    ),
    Column("number", Integer, nullable=False, comment="number of the attempt; the first is 1"),
    Column("token", Uuid, nullable=False, comment="token that the attempt needs to complete the analysis"),
    Column("worker", Text, nullable=False, comment="name of the worker"),
    Column(
        "exclusive",
        Boolean,
        nullable=False,
        comment="true if no other recording shared the run; only an exclusive attempt counts when it crashes",
    ),
    Column(
        "started_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the attempt claimed the analysis",
    ),
    Column(
        "ended_at",
        Time,
        comment="time at which the attempt ended, or at which its crash was detected; null: still running",
    ),
    Column(
        "outcome",
        Text,
        comment="succeeded, failed, transient, handed_back, superseded or vanished (crashed); null: still running",
    ),
    Column("error_class", Text, comment="class of the error that ended the attempt; a stable identifier"),
    Column("error_message", Text, comment="description of the error"),
    Column(
        "lease_expires_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time until which the attempt holds the analysis; the worker renews it while the attempt runs",
    ),
    PrimaryKeyConstraint("analysis_id", "number"),
    UniqueConstraint("token"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(one_of("outcome", AttemptOutcome), name="outcome"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
    CheckConstraint("outcome <> 'failed' OR num_nulls(error_class, error_message) = 0", name="failed"),
    comment="One row for each attempt at an analysis, including attempts that crashed.",
)
