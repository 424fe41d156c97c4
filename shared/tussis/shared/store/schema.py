"""The tables and their comments. ``migrations/`` creates the same tables; a test compares the two schemas.

``docs/schema.md`` lists the tables with these comments. Times of day are ``timestamptz``. Times inside a recording are
seconds from its first sample. Probabilities are between 0 and 1. PostgreSQL 15 or newer (``NULLS NOT DISTINCT``).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP

from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import fact_functions, forget_functions, upstream_facts

#: The revision that this version of the code needs: the head of ``migrations/``.
SCHEMA_REVISION = "0014"
#: Alembic's table. It has a name of its own because the database can also hold the migrations of another system.
VERSION_TABLE = "tussis_revision"

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


@event.listens_for(metadata, "before_create")
def _create_functions(_: MetaData, connection: Connection, **__: object) -> None:
    """Create the functions of the generated columns."""
    for statement in fact_functions.FUNCTIONS:
        connection.exec_driver_sql(statement)


@event.listens_for(metadata, "after_create")
def _create_forget_functions(_: MetaData, connection: Connection, **__: object) -> None:
    """Create the functions and triggers of forgotten recordings and of the audit trail."""
    for statement in forget_functions.statements(str(connection.exec_driver_sql("SELECT current_schema()").scalar())):
        connection.exec_driver_sql(statement)


_Time = TIMESTAMP(timezone=True)


def _one_of(column: str, values: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


recordings = Table(
    "recordings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    # Collation C is the order of S3. With it, LIKE 'prefix%' can use the unique index.
    Column("bucket", Text(collation="C"), nullable=False, comment="S3 bucket"),
    Column("key", Text(collation="C"), nullable=False, comment="S3 object key, not percent-encoded"),
    Column("version_id", Text, comment="S3 version id; null if the bucket has no versions or the version is unknown"),
    Column(
        "etag",
        Text,
        nullable=False,
        comment="S3 entity tag without quotes; empty if it is unknown because no object was found",
    ),
    Column("size_bytes", BigInteger, comment="size of the object in bytes"),
    Column("duration_s", Double, comment="duration of the decoded audio in seconds"),
    Column("rate_hz", Integer, comment="sample rate of the source in Hz"),
    Column("channels", Integer, comment="number of channels of the source"),
    Column("codec", Text, comment="audio codec, as named by the decoder"),
    Column("container", Text, comment="container format, detected from the content"),
    Column(
        "decoder",
        Text,
        comment="decoder of the most recent analysis; analyses.decoder has the decoder of each analysis",
    ),
    Column(
        "metadata",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="metadata of the most recent message that had any, as JSON",
    ),
    Column("created_at", _Time, nullable=False, server_default=func.now(), comment="time at which the row was created"),
    Column(
        "updated_at", _Time, nullable=False, server_default=func.now(), comment="time at which the row last changed"
    ),
    # PostgreSQL computes these when it writes the metadata, so that a query on a day can use an index.
    *(
        Column(name, kind, Computed(f"tussis_{name}(metadata)", persisted=True), comment=upstream_facts.COMMENTS[name])
        for name, kind in (("recorded_at", _Time), ("site", Text), ("subject", Text))
    ),
    UniqueConstraint("bucket", "key", "etag"),
    CheckConstraint("bucket <> '' AND key <> ''", name="address"),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
    CheckConstraint("duration_s >= 0 AND duration_s < 'Infinity'", name="duration_s"),
    CheckConstraint("rate_hz > 0", name="rate_hz"),
    CheckConstraint("channels > 0", name="channels"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    Index(None, "recorded_at"),
    # The time at which a recording was made, as in the view drift_by_week.
    Index("recordings_made_at_idx", func.coalesce(text("recorded_at"), text("created_at"))),
    comment="One row for each content of an object in S3. The same key with another entity tag is another recording.",
)

models = Table(
    "models",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("name", Text, nullable=False, comment="name in the manifest"),
    Column("version", Text, nullable=False, comment="version in the manifest"),
    Column("sha256", Text, nullable=False, comment="SHA-256 of the ONNX file, in lower-case hexadecimal digits"),
    Column("profile", Text, nullable=False, comment="preprocessing profile in the manifest"),
    Column(
        "threshold",
        Double,
        nullable=False,
        comment="threshold in the most recent manifest; the decision is cough if the bag probability is above it",
    ),
    Column("provenance", Text, nullable=False, comment="origin of the model, as text"),
    Column("parent", Text, comment="name@version of the model from which this model was made; null if there is none"),
    Column(
        "first_seen_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which a worker first started with this model",
    ),
    Column(
        "last_served_at",
        _Time,
        comment=(
            "time of the last report of a worker that serves this model; 60 s before its end if the last worker ended "
            "in order; null: none since revision 0009"
        ),
    ),
    Column(
        "active_at",
        _Time,
        comment="time at which the model last became the active model; the latest one is active; null: never",
    ),
    UniqueConstraint("sha256"),
    UniqueConstraint("name", "version"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("threshold BETWEEN 0 AND 1", name="threshold"),
    comment="One row for each model that a worker has served.",
)

software = Table(
    "software",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True, comment="primary key"),
    Column("tussis_version", Text, nullable=False, comment="version of Tussis"),
    Column("onnxruntime_version", Text, nullable=False, comment="version of onnxruntime, which ran the model"),
    Column("torch_version", Text, nullable=False, comment="version of torch, which made the images"),
    Column("torchaudio_version", Text, nullable=False, comment="version of torchaudio, which resampled and filtered"),
    Column(
        "decoder_library",
        Text,
        nullable=False,
        comment="library of the decoder with its version; of a failed analysis, the libraries that its profile uses",
    ),
    Column("provider", Text, nullable=False, comment="execution provider of onnxruntime: cpu, cuda or tensorrt"),
    Column(
        "graph",
        Text,
        nullable=False,
        comment="graph of the model: original, or the name of the rewritten graph that the worker chose",
    ),
    Column(
        "processor",
        Text,
        nullable=False,
        comment="processor that ran the model, with the instruction set that decides its arithmetic; empty if unknown",
    ),
    UniqueConstraint(
        "tussis_version",
        "onnxruntime_version",
        "torch_version",
        "torchaudio_version",
        "decoder_library",
        "provider",
        "graph",
        "processor",
        name="software_key",
    ),
    comment=(
        "One row for each combination of software and processor that made a result or a failure. Rows are never "
        "changed or deleted."
    ),
)

model_activations = Table(
    "model_activations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column(
        "activated_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the model was activated",
    ),
    Column("activated_by", Text, nullable=False, comment="who activated it: user@host, or the text of --by"),
    Column("forced", Boolean, nullable=False, comment="true if --force skipped a check"),
    comment="One row for each time that tussis models activate chose the active model. The newest row counts.",
)

model_shadows = Table(
    "model_shadows",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column(
        "share",
        Double,
        nullable=False,
        comment="share of the new recordings that the model also analyses, above 0 and at most 1",
    ),
    Column(
        "started_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the model became the shadow",
    ),
    Column("started_by", Text, nullable=False, comment="who started it: user@host, or the text of --by"),
    Column("stopped_at", _Time, comment="time at which it was stopped; null: the model is the shadow model"),
    CheckConstraint("share > 0 AND share <= 1", name="share"),
    Index("model_shadows_open_idx", text("(true)"), unique=True, postgresql_where=text("stopped_at IS NULL")),
    comment=(
        "One row for each time that tussis models shadow made a model the shadow model. At most one row is not stopped."
    ),
)

analyses = Table(
    "analyses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("created_at", _Time, nullable=False, server_default=func.now(), comment="time of the first claim"),
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
        "enqueued_at", _Time, nullable=False, comment="time at which the job was enqueued, by the clock of the producer"
    ),
    Column("started_at", _Time, nullable=False, comment="start of the newest attempt; without one, finished_at"),
    Column(
        "finished_at",
        _Time,
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
    CheckConstraint(_one_of("state", AnalysisState), name="state"),
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
        _Time,
        nullable=False,
        comment="time at which the job was last enqueued, by the clock of the producer",
    ),
    Column(
        "received_at",
        _Time,
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
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the attempt claimed the analysis",
    ),
    Column(
        "ended_at",
        _Time,
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
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time until which the attempt holds the analysis; the worker renews it while the attempt runs",
    ),
    PrimaryKeyConstraint("analysis_id", "number"),
    UniqueConstraint("token"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(_one_of("outcome", AttemptOutcome), name="outcome"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
    CheckConstraint("outcome <> 'failed' OR num_nulls(error_class, error_message) = 0", name="failed"),
    comment="One row for each attempt at an analysis, including attempts that crashed.",
)

bags = Table(
    "bags",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id",
    ),
    Column("bag_index", Integer, nullable=False, comment="index of the bag in the analysis; the first is 0"),
    Column("start_s", Double, nullable=False, comment="start of the bag in the recording, in seconds"),
    Column("end_s", Double, nullable=False, comment="end of the audio in the bag, in seconds, without padding"),
    Column("probability", Double, nullable=False, comment="probability that the bag contains a cough, 0 to 1"),
    Column("logit", Double, nullable=False, comment="logit of probability (natural logarithm of the odds)"),
    Column("segments", Integer, nullable=False, comment="number of segments in the bag"),
    PrimaryKeyConstraint("analysis_id", "bag_index"),
    CheckConstraint("bag_index >= 0", name="bag_index"),
    CheckConstraint("0 <= start_s AND start_s <= end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    CheckConstraint("segments >= 1", name="segments"),
    comment=(
        "One row for each bag: up to 32 consecutive segments that the model scores together. Coverage head has one bag."
    ),
)

segments = Table(
    "segments",
    metadata,
    Column("analysis_id", BigInteger, nullable=False, comment="analyses.id"),
    Column("bag_index", Integer, nullable=False, comment="bags.bag_index"),
    Column("segment_index", Integer, nullable=False, comment="index of the segment in its bag; the first is 0"),
    Column(
        "analysis_created_at",
        _Time,
        nullable=False,
        comment="analyses.created_at; part of the key so that the table can be partitioned by it",
    ),
    Column("start_s", Double, nullable=False, comment="start of the segment in the recording, in seconds"),
    Column(
        "end_s",
        Double,
        nullable=False,
        comment="end of the segment in seconds, including padding after the end of the recording",
    ),
    Column("probability", Double, nullable=False, comment="probability that the segment contains a cough, 0 to 1"),
    Column("logit", Double, nullable=False, comment="logit of probability (natural logarithm of the odds)"),
    PrimaryKeyConstraint("analysis_id", "bag_index", "segment_index", "analysis_created_at"),
    ForeignKeyConstraint(["analysis_id", "bag_index"], [bags.c.analysis_id, bags.c.bag_index], ondelete="CASCADE"),
    CheckConstraint("segment_index >= 0", name="segment_index"),
    CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    comment="One row for each segment of two seconds in a succeeded analysis.",
    # One partition for each month, and one for all other rows. tussis.shared.store.partitions makes them.
    postgresql_partition_by="RANGE (analysis_created_at)",
)

events = Table(
    "events",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id",
    ),
    Column("event_index", Integer, nullable=False, comment="index of the event; the first is 0"),
    Column("start_s", Double, nullable=False, comment="start of the event in the recording, in seconds"),
    Column("end_s", Double, nullable=False, comment="end of the event in the recording, in seconds"),
    Column("peak", Double, nullable=False, comment="highest probability of a bin of the event, 0 to 1"),
    Column("mean", Double, nullable=False, comment="mean probability of the bins of the event, 0 to 1"),
    Column("bins", Integer, nullable=False, comment="number of bins of half a second"),
    PrimaryKeyConstraint("analysis_id", "event_index"),
    CheckConstraint("event_index >= 0", name="event_index"),
    CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("0 <= mean AND mean <= peak AND peak <= 1", name="probability"),
    CheckConstraint("bins >= 1", name="bins"),
    comment="One row for each cough event: a bout of one or more coughs. docs/cough-events.md has the rule.",
)

bag_progress = Table(
    "bag_progress",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="analyses.id",
    ),
    Column("bags_total", Integer, nullable=False, comment="number of bags of the recording"),
    Column("bags_done", Integer, nullable=False, comment="number of finished bags, from the start of the recording"),
    Column(
        "scores",
        BYTEA,
        nullable=False,
        comment="scores of the finished bags; the next attempt continues after them",
    ),
    Column(
        "updated_at", _Time, nullable=False, server_default=func.now(), comment="time at which the row last changed"
    ),
    CheckConstraint("0 <= bags_done AND bags_done <= bags_total", name="bags"),
    comment="One row for each long analysis that has no result yet: its finished bags.",
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("bucket", Text(collation="C"), nullable=False, comment="S3 bucket"),
    Column("key", Text(collation="C"), nullable=False, comment="S3 object key, not percent-encoded"),
    Column("etag", Text, nullable=False, comment="S3 entity tag without quotes"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column("profile", Text, nullable=False, comment="preprocessing profile"),
    Column("coverage", Text, nullable=False, comment="part of the recording that was analysed"),
    Column(
        "profile_overridden",
        Boolean,
        nullable=False,
        comment="true if the job requested another profile than the manifest",
    ),
    Column(
        "coverage_overridden",
        Boolean,
        nullable=False,
        comment="true if the job requested another coverage than the manifest",
    ),
    Column(
        "deleted_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the analysis was deleted",
    ),
    PrimaryKeyConstraint("bucket", "key", "etag", "model_id", "profile", "coverage"),
    comment="One row for each analysis that tussis retain deleted. A sweep does not enqueue its object again.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column(
        "raw_sha256", Text, nullable=False, comment="SHA-256 of the complete message, in lower-case hexadecimal digits"
    ),
    Column("raw", Text, nullable=False, comment="the message as it was received, limited to 65536 characters"),
    Column("job_id", Text, comment="value of the field job_id in the message; null if there is none"),
    Column("error_class", Text, nullable=False, comment="malformed_message or unknown_message_version"),
    Column("error_message", Text, nullable=False, comment="description of the error"),
    Column(
        "received_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the message was first received",
    ),
    Column(
        "last_received_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the message was last received",
    ),
    Column(
        "deliveries", Integer, nullable=False, server_default="1", comment="number of times the message was received"
    ),
    Column(
        "ended_job",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="true if the ledger held this message for job_id; the message then ended the job",
    ),
    UniqueConstraint("raw_sha256"),
    Index(None, "received_at"),
    Index("dead_letters_ended_job_idx", "job_id", postgresql_where=text("ended_job")),
    comment="One row for each message that could not be read and therefore belongs to no recording.",
)

forget_keys = Table(
    "forget_keys",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True, comment="primary key"),
    Column("inner_pad", BYTEA, nullable=False, comment="the key of the hashes XOR 0x36, as HMAC (RFC 2104) needs it"),
    Column("outer_pad", BYTEA, nullable=False, comment="the key of the hashes XOR 0x5c"),
    Column("created_at", _Time, nullable=False, server_default=func.now(), comment="time at which the row was created"),
    UniqueConstraint("inner_pad"),
    comment=(
        "The keys of the hashes in forgotten and audit_trail. New hashes use the first row. Only the owner reads them."
    ),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column(
        "digest", BYTEA, primary_key=True, comment="HMAC-SHA256 of the kind and the name, with a key of forget_keys"
    ),
    Column("kind", Text, nullable=False, comment="object: bucket/key; prefix: bucket/prefix; subject: a person"),
    Column("length", Integer, comment="characters of bucket/prefix; null for the other kinds"),
    Column(
        "forgotten_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which tussis forget wrote the row",
    ),
    CheckConstraint("kind IN ('object', 'prefix', 'subject')", name="kind"),
    CheckConstraint("(kind = 'prefix') = (length IS NOT NULL)", name="length"),
    Index("forgotten_prefix_idx", "length", postgresql_where=text("kind = 'prefix'")),
    comment=(
        "One row for each recording, prefix or person that tussis forget erased, as a hash. No row of such a recording "
        "is stored again."
    ),
)

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column(
        "at", _Time, nullable=False, server_default=text("clock_timestamp()"), comment="time at which it was written"
    ),
    Column("action", Text, nullable=False, comment="what was done; docs/privacy.md lists the actions"),
    Column("actor", Text, nullable=False, comment="who did it: user@host, or the text of --by"),
    Column(
        "login",
        Text,
        nullable=False,
        server_default=text("session_user"),
        comment="role with which the session logged in to the database",
    ),
    Column(
        "targets",
        ARRAY(BYTEA),
        nullable=False,
        server_default=text("'{}'::bytea[]"),
        comment="hashes of the recordings, prefixes or persons, as in forgotten; empty for other actions",
    ),
    Column(
        "details",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="counts and names of models, as JSON; never a key, metadata or a person",
    ),
    Index(None, "at"),
    CheckConstraint("jsonb_typeof(details) = 'object'", name="details"),
    comment="One row for each deed of an operator. Rows are never changed or deleted: a trigger refuses it.",
)
