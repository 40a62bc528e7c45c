"""The first store."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from machikoba.store.tables import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(32)

# What the audit holds can be neither changed nor taken away, not even by mistake.
SQLITE_GUARD = """CREATE TRIGGER audit_no_{what} BEFORE {what} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END"""
POSTGRESQL_GUARD = (
    """CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit only grows'; END $$""",
    """CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()""",
)


def upgrade() -> None:
    op.create_table(
        "businesses",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("retention_days", sa.Integer))
    op.create_table(
        "people",
        sa.Column("id", ID, primary_key=True),
        sa.Column("mail", sa.String(254), nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("disabled_at", Moment))
    op.create_table(
        "memberships",
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False))
    op.create_table(
        "invitations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("used_at", Moment))
    op.create_table(
        "sign_ins",
        sa.Column("id", ID, primary_key=True),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False, index=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("seen_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("ended_at", Moment))
    op.create_table(
        "keys",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("start", sa.String(16), nullable=False),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment),
        sa.Column("ended_at", Moment))
    op.create_table(
        "attempts",
        sa.Column("id", ID, primary_key=True),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("at", Moment, nullable=False))
    op.create_index("attempts_by_subject", "attempts", ["subject", "at"])
    op.create_table(
        "bundles",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("removed_at", Moment))
    op.create_index("bundles_by_name", "bundles", ["business_id", "name"], unique=True,
                    sqlite_where=sa.text("removed_at IS NULL"), postgresql_where=sa.text("removed_at IS NULL"))
    op.create_table(
        "corrections",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("bundle_id", ID, sa.ForeignKey("bundles.id"), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("predicted", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False))
    op.create_index("corrections_in_order", "corrections", ["business_id", "bundle_id", "created_at"])
    op.create_table(
        "writes",
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("created_at", Moment, nullable=False))
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("business_id", ID, sa.ForeignKey("businesses.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("doing", sa.Text, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("started_at", Moment),
        sa.Column("ended_at", Moment),
        sa.Column("worker", sa.String(64)),
        sa.Column("lease_until", Moment),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("cancel_wanted", sa.Boolean, nullable=False))
    op.create_index("jobs_to_do", "jobs", ["state", "created_at"])
    op.create_index("jobs_of_business", "jobs", ["business_id", "created_at"])
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("business_id", ID),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("before", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True))
    op.create_index("audit_of_business", "audit", ["business_id", "number"])
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRESQL_GUARD:
            op.execute(statement)
    else:
        for what in ("UPDATE", "DELETE"):
            op.execute(SQLITE_GUARD.format(what=what))
