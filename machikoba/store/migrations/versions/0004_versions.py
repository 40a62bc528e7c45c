"""What a bundle was before it learnt anew, and can be again."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from machikoba.store.tables import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("made_at", Moment, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("job_id", ID),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("since", Moment),
        sa.Column("suspended", sa.Boolean, nullable=False),
        sa.Column("removed_at", Moment))
    op.create_index("versions_in_order", "versions", ["bundle_id", "number"])
    op.create_index("versions_of_business", "versions", ["business_id"])
