"""The tables, declared. ``migrations/`` makes the same ones; a test compares the two catalogues.

All times are ``timestamptz``; all times inside a recording are seconds from its first sample; probabilities are 0 to 1.
PostgreSQL 15 or newer (``NULLS NOT DISTINCT``).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from tussis.shared.states import AnalysisState, AttemptOutcome

#: The revision that this version of the code needs: the head of ``migrations/``.
SCHEMA_REVISION = "0002"
#: Alembic's table, under a name of our own: upstream may keep its own migrations in the same database.
VERSION_TABLE = "tussis_revision"
#: Coverage of an analysis: the first 32 segments, in one bag.
COVERAGE_HEAD = "head"

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

_Time = TIMESTAMP(timezone=True)


def _one_of(column: str, values: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


recordings = Table(
    "recordings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # Collation C is S3's own order, and lets the unique index serve LIKE 'prefix%' as well.
    Column("bucket", Text(collation="C"), nullable=False, comment="S3 bucket"),
    Column("key", Text(collation="C"), nullable=False, comment="S3 object key, as it is (not percent-encoded)"),
    Column("version_id", Text, comment="S3 version id; null where the bucket keeps no versions or none was seen"),
    Column("etag", Text, nullable=False, comment="S3 entity tag without quotes; '' when no object was ever seen"),
    Column("size_bytes", BigInteger, comment="size of the object, bytes"),
    Column("duration_s", Double, comment="length of the decoded audio, seconds"),
    Column("rate_hz", Integer, comment="sample rate of the source, Hz"),
    Column("channels", Integer, comment="channels of the source"),
    Column("codec", Text, comment="audio codec, as the decoder names it"),
    Column("container", Text, comment="container format, sniffed from the bytes"),
    Column("decoder", Text, comment="the decoder that read it last; see analyses.decoder for each answer's"),
    Column(
        "metadata",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="upstream's own words: the metadata of the latest message that had any",
    ),
    Column("created_at", _Time, nullable=False, server_default=func.now(), comment="when the row was made"),
    Column("updated_at", _Time, nullable=False, server_default=func.now(), comment="when the row last changed"),
    UniqueConstraint("bucket", "key", "etag"),
    CheckConstraint("bucket <> '' AND key <> ''", name="address"),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
    CheckConstraint("duration_s >= 0 AND duration_s < 'Infinity'", name="duration_s"),
    CheckConstraint("rate_hz > 0", name="rate_hz"),
    CheckConstraint("channels > 0", name="channels"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    comment="One row for each content of each object: another entity tag is another recording.",
)

models = Table(
    "models",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, comment="name in the manifest"),
    Column("version", Text, nullable=False, comment="version in the manifest"),
    Column("sha256", Text, nullable=False, comment="SHA-256 of the ONNX file, lower-case hex"),
    Column("profile", Text, nullable=False, comment="preprocessing profile that the manifest names"),
    Column(
        "threshold", Double, nullable=False, comment="cough above this bag probability; what the manifest last said"
    ),
    Column("provenance", Text, nullable=False, comment="where the model comes from, in words"),
    Column("parent", Text, comment="the model this one was made from (quantised, specialised), if any"),
    Column(
        "first_seen_at", _Time, nullable=False, server_default=func.now(), comment="first start of a worker with it"
    ),
    UniqueConstraint("sha256"),
    UniqueConstraint("name", "version"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("threshold BETWEEN 0 AND 1", name="threshold"),
    comment="The models that workers have served.",
)

analyses = Table(
    "analyses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", _Time, nullable=False, server_default=func.now(), comment="when the first attempt claimed it"),
    Column("recording_id", BigInteger, ForeignKey(recordings.c.id), nullable=False, comment="recordings.id"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), comment="models.id; null when refused before a model"),
    Column("model_requested", Text, comment="the model that the message named, only where no worker serves it"),
    Column("profile", Text, nullable=False, comment="preprocessing profile; '' when refused before one was known"),
    Column(
        "profile_overridden",
        Boolean,
        nullable=False,
        comment="the job asked for another profile than the model's manifest: left out of the view current",
    ),
    Column("coverage", Text, nullable=False, comment="what was analysed; head: the first 32 segments, in one bag"),
    Column(
        "forced_by",
        Text,
        nullable=False,
        server_default="",
        comment="'' or the id of the job that asked for an analysis beside the old ones (again)",
    ),
    Column("job_id", Uuid(as_uuid=False), nullable=False, comment="the job that claimed it last; jobs has them all"),
    Column("state", Text, nullable=False, comment="running, waiting, succeeded, failed or discarded"),
    Column("attempt_token", Uuid, nullable=False, comment="token of the newest attempt: only its holder may finish"),
    Column("bag_probability", Double, comment="probability that the recording holds a cough, 0 to 1"),
    Column("bag_logit", Double, comment="the same as a logit (natural logarithm of the odds)"),
    Column("decision", Boolean, comment="true: cough, that is bag_probability > threshold"),
    Column("threshold", Double, comment="the threshold that the decision used"),
    Column("segments", Integer, comment="segments analysed"),
    Column("segments_total", Integer, comment="segments before the cap of 32"),
    Column("analyzed_s", Double, comment="audio that was heard, seconds from the start"),
    Column("truncated", Boolean, comment="audio lies beyond the last analysed segment"),
    Column("attempts", Integer, nullable=False, comment="attempts so far, refusals included"),
    Column(
        "first_attempt",
        Integer,
        nullable=False,
        server_default="1",
        comment="number of the first attempt since the analysis was last taken up again",
    ),
    Column("error_class", Text, comment="why it failed, or why it waits: a stable word to group by"),
    Column("error_message", Text, comment="the same in a sentence"),
    Column(
        "timings_ms",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="stage -> milliseconds, of the attempt that ended it",
    ),
    Column("worker", Text, nullable=False, comment="worker of the newest attempt"),
    Column("device", Text, nullable=False, comment="cpu or gpu"),
    Column("decoder", Text, comment="the decoder that gave this analysis its samples"),
    Column("enqueued_at", _Time, nullable=False, comment="when the job was enqueued (the producer's clock)"),
    Column("started_at", _Time, nullable=False, comment="start of the newest attempt"),
    Column("finished_at", _Time, comment="when it succeeded or failed"),
    # One analysis for each question. A null model is a value like any other here.
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
    CheckConstraint("attempts >= 1 AND first_attempt BETWEEN 1 AND attempts", name="attempts"),
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
    CheckConstraint("state <> 'running' OR num_nonnulls(error_class, error_message) = 0", name="running"),
    CheckConstraint(
        "state = 'succeeded' OR num_nonnulls(bag_probability, bag_logit, decision, segments, segments_total, "
        "analyzed_s, truncated) = 0",
        name="scores_only_of_success",
    ),
    Index(None, "created_at", "id"),
    # Counting (tussis status) reads this index alone.
    Index(None, "state", "decision", "error_class"),
    Index(
        "analyses_open_failures_idx",
        "error_class",
        text("finished_at DESC"),
        postgresql_where=text("state = 'failed'"),
    ),
    Index(None, "model_id"),
    comment="One row for each question asked of a recording (model, profile, coverage), and its answer.",
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Uuid(as_uuid=False), primary_key=True, comment="the id that enqueue returned"),
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id: the analysis that answers this job",
    ),
    Column("enqueued_at", _Time, nullable=False, comment="when the job was enqueued, the last time (producer's clock)"),
    Column("received_at", _Time, nullable=False, server_default=func.now(), comment="when a worker first had it"),
    Index(None, "analysis_id"),
    comment="Which analysis answers a job. Several jobs may share one.",
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
    Column("number", Integer, nullable=False, comment="1 is the first"),
    Column("token", Uuid, nullable=False, comment="what the attempt shows to finish"),
    Column("worker", Text, nullable=False, comment="the worker that made it"),
    Column("alone", Boolean, nullable=False, comment="ran with no other recording in its process: its crash counts"),
    Column("started_at", _Time, nullable=False, server_default=func.now(), comment="when it claimed the analysis"),
    Column("ended_at", _Time, comment="when it ended; for vanished ones, when that was noticed; null: it still runs"),
    Column(
        "outcome",
        Text,
        comment="succeeded, failed, transient, handed_back, superseded or vanished; null: it still runs",
    ),
    Column("error_class", Text, comment="the error that ended it, a stable word"),
    Column("error_message", Text, comment="the same in a sentence"),
    Column(
        "lease_expires_at",
        _Time,
        nullable=False,
        server_default=func.now(),
        comment="until when the attempt holds its analysis; its worker renews it while the attempt lives",
    ),
    PrimaryKeyConstraint("analysis_id", "number"),
    UniqueConstraint("token"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(_one_of("outcome", AttemptOutcome), name="outcome"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
    CheckConstraint("outcome <> 'failed' OR num_nulls(error_class, error_message) = 0", name="failed"),
    comment="Every attempt at an analysis, also those that a crash ended.",
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
    Column("bag_index", Integer, nullable=False, comment="0 is the first; coverage head has one bag"),
    Column("start_s", Double, nullable=False, comment="start in the recording, seconds"),
    Column("end_s", Double, nullable=False, comment="end of the audio in the bag, seconds (without padding)"),
    Column("probability", Double, nullable=False, comment="probability of a cough in the bag, 0 to 1"),
    Column("logit", Double, nullable=False, comment="the same as a logit"),
    Column("segments", Integer, nullable=False, comment="segments in the bag"),
    PrimaryKeyConstraint("analysis_id", "bag_index"),
    CheckConstraint("bag_index >= 0", name="bag_index"),
    CheckConstraint("0 <= start_s AND start_s <= end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    CheckConstraint("segments >= 1", name="segments"),
    comment="What the model scored at once: a run of segments. One row for each analysis for now.",
)

segments = Table(
    "segments",
    metadata,
    Column("analysis_id", BigInteger, nullable=False, comment="analyses.id"),
    Column("bag_index", Integer, nullable=False, comment="bags.bag_index"),
    Column("segment_index", Integer, nullable=False, comment="0 is the first; counted within the bag"),
    Column(
        "analysis_created_at",
        _Time,
        nullable=False,
        comment="analyses.created_at, in the key so that the table can be partitioned by it",
    ),
    Column("start_s", Double, nullable=False, comment="start in the recording, seconds"),
    Column("end_s", Double, nullable=False, comment="end, seconds; the last segments' reach into their padding"),
    Column("probability", Double, nullable=False, comment="probability of a cough in the segment, 0 to 1"),
    Column("logit", Double, nullable=False, comment="the same as a logit"),
    PrimaryKeyConstraint("analysis_id", "bag_index", "segment_index", "analysis_created_at"),
    ForeignKeyConstraint(["analysis_id", "bag_index"], [bags.c.analysis_id, bags.c.bag_index], ondelete="CASCADE"),
    CheckConstraint("segment_index >= 0", name="segment_index"),
    CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    comment="One row for each two-second segment of a succeeded analysis.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("raw_sha256", Text, nullable=False, comment="SHA-256 of the whole message, lower-case hex"),
    Column("raw", Text, nullable=False, comment="the message as it came, cut at 65536 characters"),
    Column("job_id", Text, comment="what stood where a job's id belongs, if anything did"),
    Column("error_class", Text, nullable=False, comment="malformed_message or unknown_message_version"),
    Column("error_message", Text, nullable=False, comment="what is wrong with it"),
    Column("received_at", _Time, nullable=False, server_default=func.now(), comment="when it came first"),
    Column("last_received_at", _Time, nullable=False, server_default=func.now(), comment="when it came last"),
    Column("deliveries", Integer, nullable=False, server_default="1", comment="how often it came"),
    Column(
        "ended_job",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the message was the one that the ledger held for job_id: the job ended with it",
    ),
    UniqueConstraint("raw_sha256"),
    Index(None, "received_at"),
    Index("dead_letters_ended_job_idx", "job_id", postgresql_where=text("ended_job")),
    comment="Messages that could not be read, and so belong to no recording.",
)
