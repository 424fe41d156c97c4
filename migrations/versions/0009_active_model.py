"""The active model: when each model was served and active, who activated it, and the answers of it in the view current.

Revision: 0009
After: 0007

No table is written again. Every model that has analyses counts as active since it was registered, so the view current
shows what it showed before, unless an earlier model answered an object again after a newer one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_ACTIVE_MODEL = """
SELECT
    models.id AS model_id,
    models.name,
    models.version,
    EXISTS (SELECT FROM model_activations) AS explicit,
    models.active_at AS since
FROM models
WHERE models.active_at IS NOT NULL
ORDER BY models.active_at DESC, models.id DESC
LIMIT 1
"""

_CURRENT = """
WITH shown AS NOT MATERIALIZED (
    SELECT
        analyses.*,
        (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE AS of_the_object,
        coalesce(
            array_position(
                ARRAY(
                    SELECT models.id
                    FROM models
                    WHERE models.active_at IS NOT NULL
                    ORDER BY models.active_at, models.id
                ),
                analyses.model_id
            ),
            (SELECT count(*) FROM models WHERE models.active_at IS NOT NULL)
        ) AS model_rank
    FROM analyses
    WHERE analyses.state IN ('succeeded', 'failed', 'discarded')
        AND NOT analyses.profile_overridden
        AND NOT analyses.coverage_overridden
        AND (
            analyses.model_id IS NULL
            OR analyses.model_id = ANY (ARRAY(SELECT models.id FROM models WHERE models.active_at IS NOT NULL))
        )
)
SELECT
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
    recordings.id AS recording_id,
    analyses.events,
    analyses.cough_seconds,
    analyses.peak_dbfs,
    analyses.rms_dbfs,
    analyses.clipped_share,
    analyses.dc_offset,
    analyses.warnings,
    recordings.recorded_at,
    recordings.site,
    recordings.subject
FROM shown AS analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE NOT EXISTS (
        SELECT
        FROM shown AS better
        WHERE better.recording_id = analyses.recording_id
            AND better.id <> analyses.id
            AND (better.of_the_object, better.model_rank, better.finished_at, better.id)
                > (analyses.of_the_object, analyses.model_rank, analyses.finished_at, analyses.id)
    )
    AND NOT EXISTS (
        SELECT
        FROM recordings AS other
        JOIN shown AS newer ON newer.recording_id = other.id
        WHERE other.bucket = recordings.bucket
            AND other.key = recordings.key
            AND other.id <> recordings.id
            AND NOT EXISTS (
                SELECT
                FROM shown AS own
                WHERE own.recording_id = recordings.id
                    AND (own.of_the_object, own.finished_at, own.id)
                        > (newer.of_the_object, newer.finished_at, newer.id)
            )
    )
"""

# Of revision 0007.
_CURRENT_BEFORE = """
SELECT
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
    recordings.id AS recording_id,
    analyses.events,
    analyses.cough_seconds,
    analyses.peak_dbfs,
    analyses.rms_dbfs,
    analyses.clipped_share,
    analyses.dc_offset,
    analyses.warnings,
    recordings.recorded_at,
    recordings.site,
    recordings.subject
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded')
    AND NOT analyses.profile_overridden
    AND NOT analyses.coverage_overridden
    AND NOT EXISTS (
        SELECT
        FROM recordings AS same_object
        JOIN analyses AS better ON better.recording_id = same_object.id
        WHERE same_object.bucket = recordings.bucket
            AND same_object.key = recordings.key
            AND better.state IN ('succeeded', 'failed', 'discarded')
            AND NOT better.profile_overridden
            AND NOT better.coverage_overridden
            AND (
                (better.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE,
                better.finished_at,
                better.id
            ) > (
                (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE,
                analyses.finished_at,
                analyses.id
            )
    )
"""

_COMMENT = (
    "One row for each bucket and key: the result or failure by the active model, or else by the model that was "
    "active before it and has one. Of an object with several contents, the content with the newest answer counts."
    " Answers of models that never were active are omitted, and analyses whose job requested another profile or "
    "coverage than the manifest. A failure of the job and not of the object (object_changed, model_not_served, "
    "job_moved) is shown only if the object has no other result or failure."
)
_COMMENT_BEFORE = (
    "One row for each bucket and key: the newest result or failure. Analyses whose job requested another profile or "
    "coverage than the manifest are omitted. A failure of the job and not of the object (object_changed, "
    "model_not_served, job_moved) is shown only if the object has no other result or failure."
)
_ACTIVE_MODEL_COMMENT = (
    "One row: the active model, which answers the jobs that name no model. tussis models activate chooses it. "
    "Before its first use, the newest registered model that workers serve is active."
)
_ACTIVE_MODEL_COLUMNS = {
    "model_id": "models.id",
    "name": "name in the manifest",
    "version": "version in the manifest",
    "explicit": "true if tussis models activate chose it",
    "since": "time at which it became the active model",
}


def upgrade() -> None:
    op.add_column(
        "models",
        sa.Column(
            "last_served_at",
            postgresql.TIMESTAMP(timezone=True),
            comment=(
                "time of the last report of a worker that serves this model; 60 s before its end if the last worker "
                "ended in order; null: none since revision 0009"
            ),
        ),
    )
    op.add_column(
        "models",
        sa.Column(
            "active_at",
            postgresql.TIMESTAMP(timezone=True),
            comment="time at which the model last became the active model; the latest one is active; null: never",
        ),
    )
    # The index on model_id finds one analysis of each model.
    op.execute(
        "UPDATE models SET active_at = first_seen_at "
        "WHERE EXISTS (SELECT FROM analyses WHERE analyses.model_id = models.id)"
    )
    op.create_table(
        "model_activations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="primary key"),
        sa.Column("model_id", sa.BigInteger(), nullable=False, comment="models.id"),
        sa.Column(
            "activated_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which the model was activated",
        ),
        sa.Column(
            "activated_by", sa.Text(), nullable=False, comment="who activated it: user@host, or the text of --by"
        ),
        sa.Column("forced", sa.Boolean(), nullable=False, comment="true if --force skipped a check"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("model_activations_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("model_activations_pkey")),
        comment=("One row for each time that tussis models activate chose the active model. The newest row counts."),
    )
    _create_view("active_model", _ACTIVE_MODEL)
    _comment("VIEW", "active_model", _ACTIVE_MODEL_COMMENT)
    for column, comment in _ACTIVE_MODEL_COLUMNS.items():
        _comment("COLUMN", f"active_model.{column}", comment)
    # Replaced and not dropped, so that it keeps its comments and the rights of the analysts.
    _create_view("current", _CURRENT)
    _comment("VIEW", "current", _COMMENT)


def downgrade() -> None:
    _create_view("current", _CURRENT_BEFORE)
    _comment("VIEW", "current", _COMMENT_BEFORE)
    op.execute("DROP VIEW active_model")
    op.drop_table("model_activations")
    op.drop_column("models", "active_at")
    op.drop_column("models", "last_served_at")


def _create_view(name: str, select: str) -> None:
    # Not as sa.text: the statements have colons that are no parameters.
    op.get_bind().exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {select}")


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")
