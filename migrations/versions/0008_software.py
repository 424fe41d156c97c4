"""The software that made each analysis: one row for each combination, and a reference in analyses.

Revision: 0008
After: 0007

The rows of analyses are not written again, and not read: the reference is null in rows from before, and it has no
foreign key.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_COLUMNS = {
    "tussis_version": "version of Tussis",
    "onnxruntime_version": "version of onnxruntime, which ran the model",
    "torch_version": "version of torch, which made the images",
    "torchaudio_version": "version of torchaudio, which resampled and filtered",
    "decoder_library": (
        "library of the decoder with its version; of a failed analysis, the libraries that its profile uses"
    ),
    "provider": "execution provider of onnxruntime: cpu, cuda or tensorrt",
    "graph": "graph of the model: original, or the name of the rewritten graph that the worker chose",
    "processor": (
        "processor that ran the model, with the instruction set that decides its arithmetic; empty if unknown"
    ),
}
_SOFTWARE_ID = (
    "software.id; null for open rows, for failures that no attempt reported, and for rows from before revision 0008"
)

_NEWEST = """
SELECT DISTINCT ON (recording_id, model_id, model_requested, profile, coverage) *
FROM analyses
ORDER BY recording_id, model_id, model_requested, profile, coverage, created_at DESC, id DESC
"""

# With names of columns, the view does not hold every column of analyses.
_MODEL_PAIRS = """
WITH newest AS NOT MATERIALIZED (
    SELECT {columns}
    FROM analyses
    JOIN models ON models.id = analyses.model_id
    WHERE analyses.state = 'succeeded'
        AND NOT analyses.profile_overridden
        AND NOT EXISTS (
            SELECT
            FROM analyses AS newer
            WHERE newer.recording_id = analyses.recording_id
                AND newer.model_id = analyses.model_id
                AND newer.coverage = analyses.coverage
                AND newer.state = 'succeeded'
                AND NOT newer.profile_overridden
                AND (newer.finished_at, newer.id) > (analyses.finished_at, analyses.id)
        )
)
SELECT
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    one.coverage,
    one.model,
    other.model AS other_model,
    one.profile,
    other.profile AS other_profile,
    one.bag_probability,
    other.bag_probability AS other_bag_probability,
    one.bag_logit,
    other.bag_logit AS other_bag_logit,
    one.threshold,
    other.threshold AS other_threshold,
    one.decision,
    other.decision AS other_decision,
    one.decision <> other.decision AS flipped,
    one.finished_at,
    other.finished_at AS other_finished_at,
    one.id AS analysis_id,
    other.id AS other_analysis_id,
    recordings.id AS recording_id
FROM newest AS one
JOIN newest AS other
    ON other.recording_id = one.recording_id
    AND other.coverage = one.coverage
    AND other.model_id <> one.model_id
JOIN recordings ON recordings.id = one.recording_id
"""
_NAMED = """
        analyses.id,
        analyses.recording_id,
        analyses.model_id,
        analyses.profile,
        analyses.coverage,
        analyses.bag_probability,
        analyses.bag_logit,
        analyses.decision,
        analyses.threshold,
        analyses.finished_at,
        models.name || '@' || models.version AS model"""
_ALL = "analyses.*, models.name || '@' || models.version AS model"


def upgrade() -> None:
    op.create_table(
        "software",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False, comment="primary key"),
        *(sa.Column(name, sa.Text(), nullable=False, comment=comment) for name, comment in _COLUMNS.items()),
        sa.PrimaryKeyConstraint("id", name=op.f("software_pkey")),
        sa.UniqueConstraint(*_COLUMNS, name="software_key"),
        comment=(
            "One row for each combination of software and processor that made a result or a failure. Rows are never "
            "changed or deleted."
        ),
    )
    op.add_column("analyses", sa.Column("software_id", sa.Integer(), comment=_SOFTWARE_ID))
    # Replaced and not dropped, so that they keep their comments and the rights of the analysts.
    op.execute(f"CREATE OR REPLACE VIEW model_pairs AS {_MODEL_PAIRS.format(columns=_NAMED)}")
    op.execute(f"CREATE OR REPLACE VIEW analyses_newest AS {_NEWEST}")
    _comment("COLUMN", "analyses_newest.software_id", _SOFTWARE_ID)


def downgrade() -> None:
    comments = op.get_bind().execute(
        sa.text(
            "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = 'analyses_newest'::regclass AND attnum > 0 AND attname <> 'software_id'"
        )
    )
    columns = {name: text or "" for name, text in comments}
    comment = op.get_bind().scalar(sa.text("SELECT obj_description('analyses_newest'::regclass, 'pg_class')")) or ""
    op.execute("DROP VIEW analyses_newest")
    op.drop_column("analyses", "software_id")
    op.drop_table("software")
    op.execute(f"CREATE OR REPLACE VIEW model_pairs AS {_MODEL_PAIRS.format(columns=_ALL)}")
    op.execute(f"CREATE VIEW analyses_newest AS {_NEWEST}")
    _comment("VIEW", "analyses_newest", comment)
    for column, text in columns.items():
        _comment("COLUMN", f"analyses_newest.{column}", text)


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")
