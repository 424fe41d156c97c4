"""Tombstones of the analyses that ``tussis retain --results`` deleted.

Revision: 0006
After: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tombstones",
        sa.Column("bucket", sa.Text(collation="C"), nullable=False, comment="S3 bucket"),
        sa.Column("key", sa.Text(collation="C"), nullable=False, comment="S3 object key, not percent-encoded"),
        sa.Column("etag", sa.Text(), nullable=False, comment="S3 entity tag without quotes"),
        sa.Column("model_id", sa.BigInteger(), nullable=False, comment="models.id"),
        sa.Column("profile", sa.Text(), nullable=False, comment="preprocessing profile"),
        sa.Column("coverage", sa.Text(), nullable=False, comment="part of the recording that was analysed"),
        sa.Column(
            "profile_overridden",
            sa.Boolean(),
            nullable=False,
            comment="true if the job requested another profile than the manifest",
        ),
        sa.Column(
            "coverage_overridden",
            sa.Boolean(),
            nullable=False,
            comment="true if the job requested another coverage than the manifest",
        ),
        sa.Column(
            "deleted_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which the analysis was deleted",
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("tombstones_model_id_fkey")),
        sa.PrimaryKeyConstraint(
            "bucket", "key", "etag", "model_id", "profile", "coverage", name=op.f("tombstones_pkey")
        ),
        comment="One row for each analysis that tussis retain deleted. A sweep does not enqueue its object again.",
    )


def downgrade() -> None:
    op.drop_table("tombstones")
