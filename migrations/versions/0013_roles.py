"""The roles tussis_worker, tussis_analyst and tussis_analyst_full, and their rights.

Revision: 0013
After: 0012

No table changes. The roles are groups without a login. If this login may not create roles, those that exist get their
rights, and ``tussis migrate`` names the others. The rights are those of ``tussis.shared.store.rights``. They are
granted again after each migration to the newest revision, for the objects that it then has.
"""

from __future__ import annotations

from alembic import op

from tussis.shared.store import rights

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rights.grant(op.get_bind())


def downgrade() -> None:
    # The roles stay: another database of the server may use them, and logins are members.
    rights.revoke(op.get_bind())
