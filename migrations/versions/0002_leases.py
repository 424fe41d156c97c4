"""A lease on every attempt, and dead letters that ended a job.

Revision: 0002
After: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # PostgreSQL does not rewrite the table, because the default is the same for all rows. Workers of revision 0001 have
    # stopped, so the lease of an attempt that they left open has expired.
    op.add_column(
        "attempts",
        sa.Column(
            "lease_expires_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
            comment="until when the attempt holds its analysis; its worker renews it while the attempt lives",
        ),
    )
    op.add_column(
        "dead_letters",
        sa.Column(
            "ended_job",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the message was the one that the ledger held for job_id: the job ended with it",
        ),
    )
    op.create_index("dead_letters_ended_job_idx", "dead_letters", ["job_id"], postgresql_where=sa.text("ended_job"))


def downgrade() -> None:
    op.drop_index("dead_letters_ended_job_idx", "dead_letters")
    op.drop_column("dead_letters", "ended_job")
    op.drop_column("attempts", "lease_expires_at")
