"""The column ``attempts.alone`` becomes ``attempts.exclusive``, and its comment says so.

Revision: 0004
After: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Column -> its comment.
_COMMENTS = {
    "alone": "true if the process worked on no other recording; only such an attempt counts when it crashes",
    "exclusive": "true if no other recording shared the run; only an exclusive attempt counts when it crashes",
}


def _rename(before: str, after: str) -> None:
    # PostgreSQL changes the catalogue only. It neither reads nor rewrites the rows, and no view has this column.
    op.alter_column(
        "attempts",
        before,
        new_column_name=after,
        existing_type=sa.Boolean(),
        existing_nullable=False,
        comment=_COMMENTS[after],
        existing_comment=_COMMENTS[before],
    )
    # PostgreSQL 18 and newer have a named constraint for NOT NULL. Its name contains the name of the column.
    named = sa.text("SELECT 1 FROM pg_constraint WHERE conrelid = 'attempts'::regclass AND conname = :name")
    if op.get_bind().scalar(named, {"name": f"attempts_{before}_not_null"}):
        op.execute(f"ALTER TABLE attempts RENAME CONSTRAINT attempts_{before}_not_null TO attempts_{after}_not_null")


def upgrade() -> None:
    _rename("alone", "exclusive")


def downgrade() -> None:
    _rename("exclusive", "alone")
