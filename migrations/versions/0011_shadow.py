"""The shadow model: which model analyses a share of the new recordings too, and which analyses are hidden for it.

Revision: 0011
After: 0010

The rows of analyses are not written again. The new index is empty at first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_SHADOW = (
    "true: by the shadow model, for comparison only. Only the view model_pairs and the command tussis models "
    "status show such rows, until another job requests the analysis or the model becomes active"
)

_NEWEST = """
SELECT DISTINCT ON (recording_id, model_id, model_requested, profile, coverage) *
FROM analyses
{hidden}ORDER BY recording_id, model_id, model_requested, profile, coverage, created_at DESC, id DESC
"""

_CURRENT = """
WITH shown AS NOT MATERIALIZED (
    SELECT
        {columns},
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
{hidden}        AND NOT analyses.profile_overridden
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

_JOB_ANSWERS = """
SELECT
    jobs.job_id,
    analyses.state,
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    analyses.decision,
    analyses.bag_probability,
    analyses.threshold,
    coalesce(models.name || '@' || models.version, analyses.model_requested) AS model,
    analyses.profile,
    analyses.coverage,
    recordings.duration_s,
    analyses.analyzed_s,
    analyses.truncated,
    analyses.events,
    analyses.cough_seconds,
    analyses.warnings,
    analyses.error_class,
    analyses.error_message,
    analyses.attempts,
    jobs.enqueued_at,
    jobs.received_at,
    analyses.finished_at,
    analyses.id AS analysis_id
FROM jobs
JOIN analyses ON analyses.id = jobs.analysis_id{hidden}
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
UNION ALL
SELECT
    letters.job_id, 'failed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, letters.error_class, letters.error_message, NULL, NULL, letters.received_at, letters.last_received_at, NULL
FROM (
    SELECT DISTINCT ON (dead_letters.job_id)
        CASE
            WHEN dead_letters.job_id ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$'
            THEN dead_letters.job_id::uuid
        END AS job_id,
        dead_letters.error_class,
        dead_letters.error_message,
        dead_letters.received_at,
        dead_letters.last_received_at
    FROM dead_letters
    WHERE dead_letters.ended_job
    ORDER BY dead_letters.job_id, dead_letters.last_received_at DESC
) AS letters
WHERE letters.job_id IS NOT NULL AND NOT EXISTS (SELECT FROM jobs WHERE jobs.job_id = letters.job_id)
"""

_COMMENTS_BEFORE = {
    "analyses_newest": (
        "The newest analysis of each combination of recording, model, profile and coverage, in any state."
    ),
    "current": (
        "One row for each bucket and key: the result or failure by the active model, or else by the model that was "
        "active before it and has one. Of an object with several contents, the content with the newest answer "
        "counts. Answers of models that never were active are omitted, and analyses whose job requested another "
        "profile or coverage than the manifest. A failure of the job and not of the object (object_changed, "
        "model_not_served, job_moved) is shown only if the object has no other result or failure."
    ),
    "job_answers": (
        "One row for each job that a worker has received: the analysis that answers it, in any state. A job that "
        "is not here waits in the broker or is unknown."
    ),
    "model_pairs": (
        "One row for each ordered pair of models that have a result for the same recording and coverage: the "
        "newest result of each. Every pair is here twice, once in each order. Results under another profile than "
        "that of the manifest are omitted."
    ),
}

_COMMENTS = {
    "analyses_newest": (
        "The newest analysis of each combination of recording, model, profile and coverage, in any state. Analyses "
        "of the shadow model are omitted."
    ),
    "current": (
        "One row for each bucket and key: the result or failure by the active model, or else by the model that was "
        "active before it and has one. Of an object with several contents, the content with the newest answer "
        "counts. Answers of models that never were active and of the shadow model are omitted, and analyses whose "
        "job requested another profile or coverage than the manifest. A failure of the job and not of the object "
        "(object_changed, model_not_served, job_moved) is shown only if the object has no other result or failure."
    ),
    "job_answers": (
        "One row for each job that a worker has received: the analysis that answers it, in any state. A job that "
        "is not here waits in the broker, is one of the shadow model, or is unknown."
    ),
    "model_pairs": (
        "One row for each ordered pair of models that have a result for the same recording and coverage: the "
        "newest result of each, also of the shadow model. Every pair is here twice, once in each order. Results "
        "under another profile than that of the manifest are omitted."
    ),
}


def upgrade() -> None:
    op.create_table(
        "model_shadows",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="primary key"),
        sa.Column("model_id", sa.BigInteger(), nullable=False, comment="models.id"),
        sa.Column(
            "share",
            sa.Double(),
            nullable=False,
            comment="share of the new recordings that the model also analyses, above 0 and at most 1",
        ),
        sa.Column(
            "started_at",
            TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which the model became the shadow",
        ),
        sa.Column("started_by", sa.Text(), nullable=False, comment="who started it: user@host, or the text of --by"),
        sa.Column(
            "stopped_at",
            TIMESTAMP(timezone=True),
            comment="time at which it was stopped; null: the model is the shadow model",
        ),
        sa.CheckConstraint("share > 0 AND share <= 1", name=op.f("model_shadows_share_check")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("model_shadows_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("model_shadows_pkey")),
        comment=(
            "One row for each time that tussis models shadow made a model the shadow model. At most one row is not "
            "stopped."
        ),
    )
    op.create_index(
        "model_shadows_open_idx",
        "model_shadows",
        [sa.text("(true)")],
        unique=True,
        postgresql_where=sa.text("stopped_at IS NULL"),
    )
    op.add_column(
        "analyses", sa.Column("shadow", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=_SHADOW)
    )
    op.create_index(
        "analyses_shadow_idx",
        "analyses",
        ["model_id", "state", "decision", "error_class"],
        postgresql_where=sa.text("shadow"),
    )
    # Replaced and not dropped, so that they keep their comments and the rights of the analysts.
    _create_view("analyses_newest", _NEWEST.format(hidden="WHERE NOT shadow\n"))
    _comment("COLUMN", "analyses_newest.shadow", _SHADOW)
    _create_view("current", _CURRENT.format(columns="analyses.*", hidden="        AND NOT analyses.shadow\n"))
    _create_view("job_answers", _JOB_ANSWERS.format(hidden=" AND NOT analyses.shadow"))
    for view, comment in _COMMENTS.items():
        _comment("VIEW", view, comment)


def downgrade() -> None:
    rows = op.get_bind().execute(
        sa.text(
            "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = 'analyses_newest'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'shadow' "
            "ORDER BY attnum"
        )
    )
    columns = {name: text or "" for name, text in rows}
    op.execute("DROP VIEW analyses_newest")
    _create_view("job_answers", _JOB_ANSWERS.format(hidden=""))
    # The column can be dropped while no view names it. A star names every column.
    named = ", ".join(f"analyses.{name}" for name in columns)
    _create_view("current", _CURRENT.format(columns=named, hidden=""))
    op.drop_index("analyses_shadow_idx", "analyses")
    op.drop_column("analyses", "shadow")
    op.drop_table("model_shadows")
    _create_view("current", _CURRENT.format(columns="analyses.*", hidden=""))
    _create_view("analyses_newest", _NEWEST.format(hidden=""))
    for column, text in columns.items():
        _comment("COLUMN", f"analyses_newest.{column}", text)
    for view, comment in _COMMENTS_BEFORE.items():
        _comment("VIEW", view, comment)


def _create_view(name: str, select: str) -> None:
    # Not as sa.text: the statements have colons that are no parameters.
    op.get_bind().exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {select}")


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")
