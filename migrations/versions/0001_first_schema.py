"""The first schema: recordings, models, analyses and their scores, attempts, jobs, dead letters, and the views.

Revision: 0001
After:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_ANALYSES_NEWEST = """
CREATE VIEW analyses_newest AS
SELECT DISTINCT ON (recording_id, model_id, model_requested, profile, coverage) *
FROM analyses
ORDER BY recording_id, model_id, model_requested, profile, coverage, created_at DESC, id DESC
"""

_CURRENT = """
CREATE VIEW current AS
SELECT DISTINCT ON (recordings.bucket, recordings.key)
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    recordings.version_id,
    analyses.state,
    analyses.decision,
    analyses.bag_probability,
    analyses.bag_logit,
    analyses.threshold,
    coalesce(models.name || '@' || models.version, analyses.model_requested) AS model,
    analyses.profile,
    analyses.coverage,
    analyses.segments,
    analyses.segments_total,
    recordings.duration_s,
    analyses.analyzed_s,
    analyses.truncated,
    recordings.rate_hz,
    recordings.channels,
    recordings.codec,
    recordings.container,
    analyses.decoder,
    recordings.size_bytes,
    analyses.error_class,
    analyses.error_message,
    analyses.attempts,
    analyses.enqueued_at,
    analyses.started_at,
    analyses.finished_at,
    analyses.created_at,
    recordings.metadata,
    analyses.job_id,
    analyses.id AS analysis_id,
    recordings.id AS recording_id
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded') AND NOT analyses.profile_overridden
ORDER BY
    recordings.bucket,
    recordings.key,
    (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS TRUE,
    analyses.finished_at DESC,
    analyses.id DESC
"""

_CURRENT_SEGMENTS = """
CREATE VIEW current_segments AS
SELECT
    current.uri,
    current.bucket,
    current.key,
    segments.bag_index,
    segments.segment_index,
    segments.start_s,
    segments.end_s,
    segments.probability,
    segments.logit,
    current.decision,
    current.bag_probability,
    current.threshold,
    current.model,
    current.profile,
    current.finished_at,
    current.analysis_id
FROM current
JOIN segments ON segments.analysis_id = current.analysis_id AND segments.analysis_created_at = current.created_at
"""


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("raw_sha256", sa.Text(), nullable=False, comment="SHA-256 of the whole message, lower-case hex"),
        sa.Column("raw", sa.Text(), nullable=False, comment="the message as it came, cut at 65536 characters"),
        sa.Column("job_id", sa.Text(), nullable=True, comment="what stood where a job's id belongs, if anything did"),
        sa.Column("error_class", sa.Text(), nullable=False, comment="malformed_message or unknown_message_version"),
        sa.Column("error_message", sa.Text(), nullable=False, comment="what is wrong with it"),
        sa.Column(
            "received_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when it came first",
        ),
        sa.Column(
            "last_received_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when it came last",
        ),
        sa.Column("deliveries", sa.Integer(), server_default="1", nullable=False, comment="how often it came"),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint("raw_sha256", name=op.f("dead_letters_raw_sha256_key")),
        comment="Messages that could not be read, and so belong to no recording.",
    )
    op.create_index(op.f("dead_letters_received_at_idx"), "dead_letters", ["received_at"], unique=False)
    op.create_table(
        "models",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="name in the manifest"),
        sa.Column("version", sa.Text(), nullable=False, comment="version in the manifest"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the ONNX file, lower-case hex"),
        sa.Column("profile", sa.Text(), nullable=False, comment="preprocessing profile that the manifest names"),
        sa.Column(
            "threshold",
            sa.Double(),
            nullable=False,
            comment="cough above this bag probability; what the manifest last said",
        ),
        sa.Column("provenance", sa.Text(), nullable=False, comment="where the model comes from, in words"),
        sa.Column(
            "parent",
            sa.Text(),
            nullable=True,
            comment="the model this one was made from (quantised, specialised), if any",
        ),
        sa.Column(
            "first_seen_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="first start of a worker with it",
        ),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("models_sha256_check")),
        sa.CheckConstraint("threshold BETWEEN 0 AND 1", name=op.f("models_threshold_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("models_pkey")),
        sa.UniqueConstraint("name", "version", name=op.f("models_name_version_key")),
        sa.UniqueConstraint("sha256", name=op.f("models_sha256_key")),
        comment="The models that workers have served.",
    )
    op.create_table(
        "recordings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bucket", sa.Text(collation="C"), nullable=False, comment="S3 bucket"),
        sa.Column(
            "key", sa.Text(collation="C"), nullable=False, comment="S3 object key, as it is (not percent-encoded)"
        ),
        sa.Column(
            "version_id",
            sa.Text(),
            nullable=True,
            comment="S3 version id; null where the bucket keeps no versions or none was seen",
        ),
        sa.Column(
            "etag", sa.Text(), nullable=False, comment="S3 entity tag without quotes; '' when no object was ever seen"
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True, comment="size of the object, bytes"),
        sa.Column("duration_s", sa.Double(), nullable=True, comment="length of the decoded audio, seconds"),
        sa.Column("rate_hz", sa.Integer(), nullable=True, comment="sample rate of the source, Hz"),
        sa.Column("channels", sa.Integer(), nullable=True, comment="channels of the source"),
        sa.Column("codec", sa.Text(), nullable=True, comment="audio codec, as the decoder names it"),
        sa.Column("container", sa.Text(), nullable=True, comment="container format, sniffed from the bytes"),
        sa.Column(
            "decoder",
            sa.Text(),
            nullable=True,
            comment="the decoder that read it last; see analyses.decoder for each answer's",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="upstream's own words: the metadata of the latest message that had any",
        ),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the row was made",
        ),
        sa.Column(
            "updated_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the row last changed",
        ),
        sa.CheckConstraint("bucket <> '' AND key <> ''", name=op.f("recordings_address_check")),
        sa.CheckConstraint("duration_s >= 0 AND duration_s < 'Infinity'", name=op.f("recordings_duration_s_check")),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name=op.f("recordings_metadata_check")),
        sa.CheckConstraint("channels > 0", name=op.f("recordings_channels_check")),
        sa.CheckConstraint("rate_hz > 0", name=op.f("recordings_rate_hz_check")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("recordings_size_bytes_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("recordings_pkey")),
        sa.UniqueConstraint("bucket", "key", "etag", name=op.f("recordings_bucket_key_etag_key")),
        comment="One row for each content of each object: another entity tag is another recording.",
    )
    op.create_table(
        "analyses",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the first attempt claimed it",
        ),
        sa.Column("recording_id", sa.BigInteger(), nullable=False, comment="recordings.id"),
        sa.Column("model_id", sa.BigInteger(), nullable=True, comment="models.id; null when refused before a model"),
        sa.Column(
            "model_requested",
            sa.Text(),
            nullable=True,
            comment="the model that the message named, only where no worker serves it",
        ),
        sa.Column(
            "profile", sa.Text(), nullable=False, comment="preprocessing profile; '' when refused before one was known"
        ),
        sa.Column(
            "profile_overridden",
            sa.Boolean(),
            nullable=False,
            comment="the job asked for another profile than the model's manifest: left out of the view current",
        ),
        sa.Column(
            "coverage", sa.Text(), nullable=False, comment="what was analysed; head: the first 32 segments, in one bag"
        ),
        sa.Column(
            "forced_by",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="'' or the id of the job that asked for an analysis beside the old ones (again)",
        ),
        sa.Column(
            "job_id", sa.Uuid(as_uuid=False), nullable=False, comment="the job that claimed it last; jobs has them all"
        ),
        sa.Column("state", sa.Text(), nullable=False, comment="running, waiting, succeeded, failed or discarded"),
        sa.Column(
            "attempt_token",
            sa.Uuid(),
            nullable=False,
            comment="token of the newest attempt: only its holder may finish",
        ),
        sa.Column(
            "bag_probability",
            sa.Double(),
            nullable=True,
            comment="probability that the recording holds a cough, 0 to 1",
        ),
        sa.Column(
            "bag_logit", sa.Double(), nullable=True, comment="the same as a logit (natural logarithm of the odds)"
        ),
        sa.Column("decision", sa.Boolean(), nullable=True, comment="true: cough, that is bag_probability > threshold"),
        sa.Column("threshold", sa.Double(), nullable=True, comment="the threshold that the decision used"),
        sa.Column("segments", sa.Integer(), nullable=True, comment="segments analysed"),
        sa.Column("segments_total", sa.Integer(), nullable=True, comment="segments before the cap of 32"),
        sa.Column("analyzed_s", sa.Double(), nullable=True, comment="audio that was heard, seconds from the start"),
        sa.Column("truncated", sa.Boolean(), nullable=True, comment="audio lies beyond the last analysed segment"),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="attempts so far, refusals included"),
        sa.Column(
            "first_attempt",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="number of the first attempt since the analysis was last taken up again",
        ),
        sa.Column(
            "error_class", sa.Text(), nullable=True, comment="why it failed, or why it waits: a stable word to group by"
        ),
        sa.Column("error_message", sa.Text(), nullable=True, comment="the same in a sentence"),
        sa.Column(
            "timings_ms",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="stage -> milliseconds, of the attempt that ended it",
        ),
        sa.Column("worker", sa.Text(), nullable=False, comment="worker of the newest attempt"),
        sa.Column("device", sa.Text(), nullable=False, comment="cpu or gpu"),
        sa.Column("decoder", sa.Text(), nullable=True, comment="the decoder that gave this analysis its samples"),
        sa.Column(
            "enqueued_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="when the job was enqueued (the producer's clock)",
        ),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="start of the newest attempt"
        ),
        sa.Column(
            "finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="when it succeeded or failed"
        ),
        sa.CheckConstraint("analyzed_s >= 0 AND analyzed_s < 'Infinity'", name=op.f("analyses_analyzed_s_check")),
        sa.CheckConstraint("bag_logit <> 'NaN'", name=op.f("analyses_bag_logit_check")),
        sa.CheckConstraint("coverage <> ''", name=op.f("analyses_coverage_check")),
        sa.CheckConstraint("jsonb_typeof(timings_ms) = 'object'", name=op.f("analyses_timings_ms_check")),
        sa.CheckConstraint(
            "state <> 'running' OR num_nonnulls(error_class, error_message) = 0", name=op.f("analyses_running_check")
        ),
        sa.CheckConstraint(
            "state <> 'succeeded' OR (num_nulls(model_id, bag_probability, bag_logit, decision, threshold, "
            "segments, segments_total, analyzed_s, truncated, decoder, finished_at) = 0 AND "
            "num_nonnulls(error_class, error_message, model_requested) = 0)",
            name=op.f("analyses_succeeded_check"),
        ),
        sa.CheckConstraint(
            "state = 'succeeded' OR num_nonnulls(bag_probability, bag_logit, decision, segments, segments_total, "
            "analyzed_s, truncated) = 0",
            name=op.f("analyses_scores_only_of_success_check"),
        ),
        sa.CheckConstraint(
            "state IN ('running', 'waiting', 'succeeded', 'failed', 'discarded')", name=op.f("analyses_state_check")
        ),
        sa.CheckConstraint(
            "state NOT IN ('failed', 'discarded') OR num_nulls(error_class, error_message, finished_at) = 0",
            name=op.f("analyses_failed_check"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('running', 'waiting') OR finished_at IS NULL", name=op.f("analyses_open_check")
        ),
        sa.CheckConstraint(
            "attempts >= 1 AND first_attempt BETWEEN 1 AND attempts", name=op.f("analyses_attempts_check")
        ),
        sa.CheckConstraint("bag_probability BETWEEN 0 AND 1", name=op.f("analyses_bag_probability_check")),
        sa.CheckConstraint("decision = (bag_probability > threshold)", name=op.f("analyses_decision_check")),
        sa.CheckConstraint("segments BETWEEN 1 AND segments_total", name=op.f("analyses_segments_check")),
        sa.CheckConstraint("threshold BETWEEN 0 AND 1", name=op.f("analyses_threshold_check")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("analyses_model_id_fkey")),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=op.f("analyses_recording_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("analyses_pkey")),
        sa.UniqueConstraint(
            "recording_id",
            "model_id",
            "model_requested",
            "profile",
            "coverage",
            "forced_by",
            name="analyses_identity_key",
            postgresql_nulls_not_distinct=True,
        ),
        comment="One row for each question asked of a recording (model, profile, coverage), and its answer.",
    )
    op.create_index(op.f("analyses_created_at_id_idx"), "analyses", ["created_at", "id"], unique=False)
    op.create_index(op.f("analyses_model_id_idx"), "analyses", ["model_id"], unique=False)
    op.create_index(
        "analyses_open_failures_idx",
        "analyses",
        ["error_class", sa.literal_column("finished_at DESC")],
        unique=False,
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        op.f("analyses_state_decision_error_class_idx"), "analyses", ["state", "decision", "error_class"], unique=False
    )
    op.create_table(
        "attempts",
        sa.Column("analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id"),
        sa.Column("number", sa.Integer(), nullable=False, comment="1 is the first"),
        sa.Column("token", sa.Uuid(), nullable=False, comment="what the attempt shows to finish"),
        sa.Column("worker", sa.Text(), nullable=False, comment="the worker that made it"),
        sa.Column(
            "alone",
            sa.Boolean(),
            nullable=False,
            comment="ran with no other recording in its process: its crash counts",
        ),
        sa.Column(
            "started_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when it claimed the analysis",
        ),
        sa.Column(
            "ended_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="when it ended; for vanished ones, when that was noticed; null: it still runs",
        ),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=True,
            comment="succeeded, failed, transient, handed_back, superseded or vanished; null: it still runs",
        ),
        sa.Column("error_class", sa.Text(), nullable=True, comment="the error that ended it, a stable word"),
        sa.Column("error_message", sa.Text(), nullable=True, comment="the same in a sentence"),
        sa.CheckConstraint(
            "outcome <> 'failed' OR num_nulls(error_class, error_message) = 0", name=op.f("attempts_failed_check")
        ),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'transient', 'handed_back', 'superseded', 'vanished')",
            name=op.f("attempts_outcome_check"),
        ),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("attempts_ended_check")),
        sa.CheckConstraint("number >= 1", name=op.f("attempts_number_check")),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analyses.id"], name=op.f("attempts_analysis_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("analysis_id", "number", name=op.f("attempts_pkey")),
        sa.UniqueConstraint("token", name=op.f("attempts_token_key")),
        comment="Every attempt at an analysis, also those that a crash ended.",
    )
    op.create_table(
        "bags",
        sa.Column("analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id"),
        sa.Column("bag_index", sa.Integer(), nullable=False, comment="0 is the first; coverage head has one bag"),
        sa.Column("start_s", sa.Double(), nullable=False, comment="start in the recording, seconds"),
        sa.Column(
            "end_s", sa.Double(), nullable=False, comment="end of the audio in the bag, seconds (without padding)"
        ),
        sa.Column("probability", sa.Double(), nullable=False, comment="probability of a cough in the bag, 0 to 1"),
        sa.Column("logit", sa.Double(), nullable=False, comment="the same as a logit"),
        sa.Column("segments", sa.Integer(), nullable=False, comment="segments in the bag"),
        sa.CheckConstraint("0 <= start_s AND start_s <= end_s AND end_s < 'Infinity'", name=op.f("bags_span_check")),
        sa.CheckConstraint("logit <> 'NaN'", name=op.f("bags_logit_check")),
        sa.CheckConstraint("bag_index >= 0", name=op.f("bags_bag_index_check")),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name=op.f("bags_probability_check")),
        sa.CheckConstraint("segments >= 1", name=op.f("bags_segments_check")),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analyses.id"], name=op.f("bags_analysis_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("analysis_id", "bag_index", name=op.f("bags_pkey")),
        comment="What the model scored at once: a run of segments. One row for each analysis for now.",
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Uuid(as_uuid=False), nullable=False, comment="the id that enqueue returned"),
        sa.Column(
            "analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id: the analysis that answers this job"
        ),
        sa.Column(
            "enqueued_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="when the job was enqueued, the last time (producer's clock)",
        ),
        sa.Column(
            "received_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when a worker first had it",
        ),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analyses.id"], name=op.f("jobs_analysis_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("jobs_pkey")),
        comment="Which analysis answers a job. Several jobs may share one.",
    )
    op.create_index(op.f("jobs_analysis_id_idx"), "jobs", ["analysis_id"], unique=False)
    op.create_table(
        "segments",
        sa.Column("analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id"),
        sa.Column("bag_index", sa.Integer(), nullable=False, comment="bags.bag_index"),
        sa.Column("segment_index", sa.Integer(), nullable=False, comment="0 is the first; counted within the bag"),
        sa.Column(
            "analysis_created_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="analyses.created_at, in the key so that the table can be partitioned by it",
        ),
        sa.Column("start_s", sa.Double(), nullable=False, comment="start in the recording, seconds"),
        sa.Column(
            "end_s", sa.Double(), nullable=False, comment="end, seconds; the last segments' reach into their padding"
        ),
        sa.Column("probability", sa.Double(), nullable=False, comment="probability of a cough in the segment, 0 to 1"),
        sa.Column("logit", sa.Double(), nullable=False, comment="the same as a logit"),
        sa.CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name=op.f("segments_span_check")),
        sa.CheckConstraint("logit <> 'NaN'", name=op.f("segments_logit_check")),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name=op.f("segments_probability_check")),
        sa.CheckConstraint("segment_index >= 0", name=op.f("segments_segment_index_check")),
        sa.ForeignKeyConstraint(
            ["analysis_id", "bag_index"],
            ["bags.analysis_id", "bags.bag_index"],
            name=op.f("segments_analysis_id_bag_index_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "analysis_id", "bag_index", "segment_index", "analysis_created_at", name=op.f("segments_pkey")
        ),
        comment="One row for each two-second segment of a succeeded analysis.",
    )
    op.execute(_ANALYSES_NEWEST)
    op.execute(
        "COMMENT ON VIEW analyses_newest IS 'Of each recording, model, profile and coverage the newest "
        "analysis, in whatever state it is.'"
    )
    op.execute(_CURRENT)
    op.execute(
        "COMMENT ON VIEW current IS 'One row for each bucket and key: the newest answer that is final (a "
        "result or a failure), leaving out analyses whose job asked for another profile than that of the "
        "model. A failure that tells of a job and not of the object (object_changed, model_not_served, job_moved) "
        "hides no other answer.'"
    )
    op.execute(_CURRENT_SEGMENTS)
    op.execute("COMMENT ON VIEW current_segments IS 'The segments of the results in the view current, one row each.'")


def downgrade() -> None:
    op.execute("DROP VIEW current_segments")
    op.execute("DROP VIEW current")
    op.execute("DROP VIEW analyses_newest")
    op.drop_table("segments")
    op.drop_table("jobs")
    op.drop_table("bags")
    op.drop_table("attempts")
    op.drop_table("analyses")
    op.drop_table("recordings")
    op.drop_table("models")
    op.drop_table("dead_letters")
