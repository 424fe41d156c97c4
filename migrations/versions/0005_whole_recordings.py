"""Whole recordings: coverage, quality, cough events, the progress of long analyses, and segments in partitions.

Revision: 0005
After: 0004

The rows of ``segments`` are copied. For 50 million rows that takes some minutes, in which no worker can run.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_NEWEST = """
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
    recordings.id AS recording_id{more}
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded')
    AND NOT analyses.profile_overridden{where}
ORDER BY
    recordings.bucket,
    recordings.key,
    (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS TRUE,
    analyses.finished_at DESC,
    analyses.id DESC
"""

_MORE = """,
    analyses.events,
    analyses.cough_seconds,
    analyses.peak_dbfs,
    analyses.rms_dbfs,
    analyses.clipped_share,
    analyses.dc_offset,
    analyses.warnings"""

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

# Table or view -> column -> its comment before and after.
_COMMENTS: dict[str, dict[str, tuple[str, str]]] = {
    "analyses": {
        "coverage": (
            "part of the recording that was analysed; head: the first 32 segments, in one bag",
            "part of the recording that was analysed; head: the first 32 segments, in one bag; full: all, in bags of "
            "32",
        ),
        "bag_probability": (
            "probability that the recording contains a cough, 0 to 1",
            "probability that the recording contains a cough, 0 to 1: the highest one of its bags",
        ),
        "segments_total": (
            "number of segments before the limit of 32",
            "number of segments of the whole recording; coverage head analyses the first 32",
        ),
    },
    "current": {
        "coverage": (
            "part of the recording that was analysed; head: the first 32 segments",
            "part of the recording that was analysed; head: the first 32 segments; full: all segments",
        ),
        "bag_probability": (
            "probability that the recording contains a cough, 0 to 1",
            "probability that the recording contains a cough, 0 to 1: the highest one of its bags",
        ),
        "segments_total": (
            "number of segments before the limit of 32",
            "number of segments of the whole recording; coverage head analyses the first 32",
        ),
    },
    "current_segments": {
        "bag_index": (
            "index of the bag; 0, because coverage head has one bag",
            "index of the bag; the first is 0, and every bag but the last has 32 segments",
        ),
    },
}
_COMMENTS["analyses_newest"] = _COMMENTS["analyses"]
_BAGS = (
    "One row for each bag: consecutive segments that the model scores together. Coverage head has one bag.",
    "One row for each bag: up to 32 consecutive segments that the model scores together. Coverage head has one bag.",
)
_CURRENT_COMMENT = (
    "One row for each bucket and key: the newest result or failure. Analyses whose job requested {} than the manifest "
    "are omitted. A failure of the job and not of the object (object_changed, model_not_served, job_moved) is shown "
    "only if the object has no other result or failure."
)

# The new columns of analyses, which the views have as well.
_QUALITY = {
    "events": "number of cough events; the table events has them",
    "cough_seconds": "length of all cough events together, in seconds",
    "peak_dbfs": "largest absolute sample in decibels below full scale; null if every sample is 0",
    "rms_dbfs": "root mean square of the samples in decibels below full scale; null if every sample is 0",
    "clipped_share": "share of clipped samples, 0 to 1",
    "dc_offset": "largest absolute mean of a channel; full scale is 1",
    "warnings": "properties of the recording that make the result doubtful; empty if there are none",
}


def upgrade() -> None:
    op.add_column(
        "analyses",
        sa.Column(
            "coverage_overridden",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="true if the job requested another coverage than the manifest; the view current omits such rows",
        ),
    )
    op.add_column("analyses", sa.Column("events", sa.Integer(), comment=_QUALITY["events"]))
    for name in ("cough_seconds", "peak_dbfs", "rms_dbfs", "clipped_share", "dc_offset"):
        op.add_column("analyses", sa.Column(name, sa.Double(), comment=_QUALITY[name]))
    op.add_column("analyses", sa.Column("warnings", postgresql.ARRAY(sa.Text()), comment=_QUALITY["warnings"]))
    op.create_check_constraint(op.f("analyses_clipped_share_check"), "analyses", "clipped_share BETWEEN 0 AND 1")
    op.create_check_constraint(
        op.f("analyses_events_check"), "analyses", "events >= 0 AND cough_seconds >= 0 AND cough_seconds < 'Infinity'"
    )
    op.create_table(
        "events",
        sa.Column("analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id"),
        sa.Column("event_index", sa.Integer(), nullable=False, comment="index of the event; the first is 0"),
        sa.Column("start_s", sa.Double(), nullable=False, comment="start of the event in the recording, in seconds"),
        sa.Column("end_s", sa.Double(), nullable=False, comment="end of the event in the recording, in seconds"),
        sa.Column("peak", sa.Double(), nullable=False, comment="highest probability of a bin of the event, 0 to 1"),
        sa.Column("mean", sa.Double(), nullable=False, comment="mean probability of the bins of the event, 0 to 1"),
        sa.Column("bins", sa.Integer(), nullable=False, comment="number of bins of half a second"),
        sa.CheckConstraint("event_index >= 0", name=op.f("events_event_index_check")),
        sa.CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name=op.f("events_span_check")),
        sa.CheckConstraint("0 <= mean AND mean <= peak AND peak <= 1", name=op.f("events_probability_check")),
        sa.CheckConstraint("bins >= 1", name=op.f("events_bins_check")),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analyses.id"], name=op.f("events_analysis_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("analysis_id", "event_index", name=op.f("events_pkey")),
        comment="One row for each cough event: a bout of one or more coughs. docs/cough-events.md has the rule.",
    )
    op.create_table(
        "bag_progress",
        sa.Column("analysis_id", sa.BigInteger(), nullable=False, comment="analyses.id"),
        sa.Column("bags_total", sa.Integer(), nullable=False, comment="number of bags of the recording"),
        sa.Column(
            "bags_done",
            sa.Integer(),
            nullable=False,
            comment="number of finished bags, from the start of the recording",
        ),
        sa.Column(
            "scores",
            postgresql.BYTEA(),
            nullable=False,
            comment="scores of the finished bags; the next attempt continues after them",
        ),
        sa.Column(
            "updated_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which the row last changed",
        ),
        sa.CheckConstraint("0 <= bags_done AND bags_done <= bags_total", name=op.f("bag_progress_bags_check")),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analyses.id"], name=op.f("bag_progress_analysis_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("analysis_id", name=op.f("bag_progress_pkey")),
        comment="One row for each long analysis that has no result yet: its finished bags.",
    )
    op.drop_table_comment("bags")
    op.create_table_comment("bags", _BAGS[1])
    _drop_views()
    _partition()
    _create_views(
        _CURRENT.format(more=_MORE, where="\n    AND NOT analyses.coverage_overridden"),
        _CURRENT_COMMENT.format("another profile or coverage"),
        index=1,
    )
    for column, comment in _QUALITY.items():
        _comment("COLUMN", f"current.{column}", comment)
        _comment("COLUMN", f"analyses_newest.{column}", comment)
    _comment(
        "COLUMN",
        "analyses_newest.coverage_overridden",
        "true if the job requested another coverage than the manifest; the view current omits such rows",
    )


def downgrade() -> None:
    _drop_views()
    _merge()
    op.create_table_comment("bags", _BAGS[0])
    op.drop_table("bag_progress")
    op.drop_table("events")
    for name in ("coverage_overridden", *_QUALITY):
        op.drop_column("analyses", name)
    _create_views(_CURRENT.format(more="", where=""), _CURRENT_COMMENT.format("another profile"), index=0)


# --- segments in partitions -------------------------------------------------------------------------------


def _partition() -> None:
    """Replace the table segments by one with a partition for each month, and copy the rows."""
    op.execute("ALTER TABLE segments RENAME TO segments_before")
    op.execute("ALTER TABLE segments_before RENAME CONSTRAINT segments_pkey TO segments_before_pkey")
    # LIKE keeps the columns' comments and the checks with their names. It copies no foreign key.
    op.execute(
        "CREATE TABLE segments (LIKE segments_before INCLUDING COMMENTS INCLUDING CONSTRAINTS) "
        "PARTITION BY RANGE (analysis_created_at)"
    )
    _keys()
    op.execute("CREATE TABLE segments_default PARTITION OF segments DEFAULT")
    # From the oldest row to two months ahead. `tussis migrate` makes more.
    op.execute(
        """
        DO $$
        DECLARE
            month timestamp;
        BEGIN
            FOR month IN
                SELECT generate_series(
                    date_trunc('month', least(min(analysis_created_at), now()) AT TIME ZONE 'UTC'),
                    date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months',
                    interval '1 month'
                )
                FROM segments_before
            LOOP
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF segments FOR VALUES FROM (%L) TO (%L)',
                    'segments_' || to_char(month, 'YYYY_MM'),
                    to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
                    to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00'
                );
            END LOOP;
        END
        $$
        """
    )
    _move()


def _merge() -> None:
    """Replace the partitioned table segments by an ordinary one, and copy the rows."""
    op.execute("ALTER TABLE segments RENAME TO segments_before")
    op.execute("ALTER TABLE segments_before RENAME CONSTRAINT segments_pkey TO segments_before_pkey")
    op.execute("CREATE TABLE segments (LIKE segments_before INCLUDING COMMENTS INCLUDING CONSTRAINTS)")
    _keys()
    _move()


def _keys() -> None:
    op.create_primary_key(
        op.f("segments_pkey"), "segments", ["analysis_id", "bag_index", "segment_index", "analysis_created_at"]
    )
    op.create_foreign_key(
        op.f("segments_analysis_id_bag_index_fkey"),
        "segments",
        "bags",
        ["analysis_id", "bag_index"],
        ["analysis_id", "bag_index"],
        ondelete="CASCADE",
    )
    op.create_table_comment("segments", "One row for each segment of two seconds in a succeeded analysis.")


def _move() -> None:
    op.execute("INSERT INTO segments SELECT * FROM segments_before")
    op.execute("DROP TABLE segments_before")


# --- views and comments -----------------------------------------------------------------------------------

_VIEWS = ("current_segments", "current", "analyses_newest")
_SAVED: dict[str, dict[str, str]] = {}


def _drop_views() -> None:
    """Drop the views, and keep the comments of their columns for :func:`_create_views`."""
    for view in _VIEWS:
        found = op.get_bind().execute(
            sa.text(
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
                "WHERE attrelid = CAST(:view AS regclass) AND attnum > 0 AND col_description(attrelid, attnum) <> ''"
            ),
            {"view": view},
        )
        _SAVED[view] = {row[0]: row[1] for row in found}
        _SAVED[view][""] = (
            op.get_bind().scalar(sa.text("SELECT obj_description(CAST(:view AS regclass), 'pg_class')"), {"view": view})
            or ""
        )
        op.execute(f"DROP VIEW {view}")


def _create_views(current: str, current_comment: str, *, index: int) -> None:
    for sql in (_NEWEST, current, _CURRENT_SEGMENTS):
        op.execute(sql)
    for view, comments in _SAVED.items():
        columns = {
            row[0]
            for row in op.get_bind().execute(
                sa.text("SELECT attname FROM pg_attribute WHERE attrelid = CAST(:view AS regclass) AND attnum > 0"),
                {"view": view},
            )
        }
        for column, comment in comments.items():
            if column in columns:
                _comment("COLUMN", f"{view}.{column}", comment)
        _comment("VIEW", view, comments[""])
    _comment("VIEW", "current", current_comment)
    for relation, changed in _COMMENTS.items():
        for column, both in changed.items():
            _comment("COLUMN", f"{relation}.{column}", both[index])


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")
