"""The desk: messages that people decide, how bundles stand at work, and how much they did."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from machikoba.store.tables import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(32)
OPEN = sa.text("state = 'open'")
HELD = sa.text("held_by IS NOT NULL")
AUDITED = sa.text("probability IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("said", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("would_answer", sa.Boolean, nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("others", sa.JSON, nullable=False),
        sa.Column("probability", sa.Double),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("assigned_to", ID),
        sa.Column("held_by", sa.String(64)),
        sa.Column("held_until", Moment),
        sa.Column("label", sa.Text),
        sa.Column("decided_by", sa.String(64)),
        sa.Column("decided_at", Moment),
        sa.Column("seconds", sa.Double),
        sa.Column("correction_id", ID),
        sa.Column("counted", sa.Boolean, nullable=False))
    op.create_index("items_open", "items", ["business_id", "bundle_id", "created_at", "id"], sqlite_where=OPEN,
                    postgresql_where=OPEN)
    op.create_index("items_held", "items", ["held_by", "business_id", "bundle_id"], sqlite_where=HELD, postgresql_where=HELD)
    op.create_index("items_by", "items", ["decided_by", "decided_at"])
    op.create_index("items_decided", "items", ["business_id", "bundle_id", "decided_at"])
    op.create_index("items_audited", "items", ["bundle_id", "counted", "decided_at"], sqlite_where=AUDITED,
                    postgresql_where=AUDITED)
    op.create_table(
        "watches",
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("monitor", sa.JSON, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("since", Moment, nullable=False))
    op.create_table(
        "marks",
        sa.Column("id", ID, primary_key=True),
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), nullable=False),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("audited", sa.Integer, nullable=False),
        sa.Column("wrong", sa.Integer, nullable=False),
        sa.Column("upper", sa.Double, nullable=False),
        sa.Column("lower", sa.Double, nullable=False))
    op.create_index("marks_in_order", "marks", ["bundle_id", "at"])
    op.create_table(
        "tallies",
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.Column("handed_over", sa.Integer, nullable=False))
