"""What must survive, as tables. Every row but people and moments of the audit belongs to one business.

    businesses ── memberships ── people ── sign_ins
        ├── invitations, keys            who may come in
        ├── bundles ── corrections       what answers, and what a person changed
        │      └── versions              what it was before, and can be again
        ├── jobs                         what the worker does
        ├── writes                       answers already given to an idempotency key
        └── audit                        who did what, when; ids, never text
"""
from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

ID = String(32)
OPEN, HELD = text("state = 'open'"), text("held_by IS NOT NULL")  # of items, for their indexes
AUDITED = text("probability IS NOT NULL")
WRITES_KEPT_HOURS = 24  # answers to idempotency keys


def new_id() -> str:
    """A random id, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC, aware of it on both databases: SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "moments are in UTC"
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    type_annotation_map = {datetime: Moment, dict[str, Any]: JSON, str: Text}


class Business(Table):
    """A business of its own: nothing of one is ever seen by another. retention_days: how long texts are kept; None: for ever."""

    __tablename__ = "businesses"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    retention_days: Mapped[int | None]


class Person(Table):
    """Somebody with a password. password: Argon2id, with its parameters."""

    __tablename__ = "people"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    mail: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str]
    password: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]


class Membership(Table):
    """What a person may do in a business: owner, staff or viewer."""

    __tablename__ = "memberships"
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))


class Invitation(Table):
    """A door for one person, once. token: SHA-256 of what was shown."""

    __tablename__ = "invitations"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    role: Mapped[str] = mapped_column(String(16))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    made_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SignIn(Table):
    """A browser in which a person is signed in. token: SHA-256 of its cookie. device: what the browser says it is."""

    __tablename__ = "sign_ins"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    token: Mapped[str] = mapped_column(String(64), unique=True)
    device: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Key(Table):
    """A program's way in, for one business. token: SHA-256 of the secret, which was shown once. start: its first
    characters, by which its owner knows it again."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"), index=True)
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    start: Mapped[str] = mapped_column(String(16))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    made_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Attempt(Table):
    """A sign-in that failed. subject: SHA-256 of the mail or the address it came from."""

    __tablename__ = "attempts"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    subject: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("attempts_by_subject", "subject", "at"),)


class BundleEntry(Table):
    """A bundle that a business uses. folder: where it lies, relative to the home where it lies there."""

    __tablename__ = "bundles"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    name: Mapped[str] = mapped_column(String(100))
    folder: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]
    __table_args__ = (
        Index("bundles_by_name", "business_id", "name", unique=True, sqlite_where=text("removed_at IS NULL"),
              postgresql_where=text("removed_at IS NULL")),)


class Version(Table):
    """What a bundle is or was: each time it learnt anew there is one more. number: 1, 2, 3 … of the bundle. made_at: the moment
    up to which corrections are in it. job_id: of the work that made it. since: in use since then, None while another is.
    suspended: it erred too often at work while it was in use. facts: figures of its test and of the comparison with the one
    before, numbers and codes only. removed_at: its folder is not kept any more."""

    __tablename__ = "versions"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"))
    number: Mapped[int] = mapped_column(Integer)
    folder: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=now)
    made_by: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(ID)
    facts: Mapped[dict[str, Any]]
    since: Mapped[datetime | None]
    suspended: Mapped[bool] = mapped_column(default=False)
    removed_at: Mapped[datetime | None]
    __table_args__ = (Index("versions_in_order", "bundle_id", "number"), Index("versions_of_business", "business_id"))


class Correction(Table):
    """What a person made of a message. predicted, confidence: what the bundle had said, where it was asked."""

    __tablename__ = "corrections"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"))
    text: Mapped[str]
    label: Mapped[str]
    predicted: Mapped[str | None]
    confidence: Mapped[float | None] = mapped_column(Double)
    made_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("corrections_in_order", "business_id", "bundle_id", "created_at"),)


class Item(Table):
    """A message that a person decides: handed over by a bundle, or drawn for the audit. said, confidence, would_answer: what the
    bundle says; answered: told automatically already. others: further likely labels. probability: with which it was drawn for
    the audit, None where it was not; then what the bundle says is not shown until it is decided. counted: the audit's outcome
    was told to the monitor, and can no longer be taken back. seconds: from shown to decided."""

    __tablename__ = "items"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"))
    text: Mapped[str]
    origin: Mapped[str] = mapped_column(String(16))
    said: Mapped[str | None]
    confidence: Mapped[float | None] = mapped_column(Double)
    would_answer: Mapped[bool] = mapped_column(default=False)
    answered: Mapped[bool] = mapped_column(default=False)
    others: Mapped[list[Any]] = mapped_column(JSON, default=list)
    probability: Mapped[float | None] = mapped_column(Double)
    state: Mapped[str] = mapped_column(String(16), default="open")
    created_at: Mapped[datetime] = mapped_column(default=now)
    assigned_to: Mapped[str | None] = mapped_column(ID)
    held_by: Mapped[str | None] = mapped_column(String(64))
    held_until: Mapped[datetime | None]
    label: Mapped[str | None]
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]
    seconds: Mapped[float | None] = mapped_column(Double)
    correction_id: Mapped[str | None] = mapped_column(ID)
    counted: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (
        Index("items_open", "business_id", "bundle_id", "created_at", "id", sqlite_where=OPEN, postgresql_where=OPEN),
        Index("items_held", "held_by", "business_id", "bundle_id", sqlite_where=HELD, postgresql_where=HELD),
        Index("items_by", "decided_by", "decided_at"),
        Index("items_decided", "business_id", "bundle_id", "decided_at"),
        Index("items_audited", "bundle_id", "counted", "decided_at", sqlite_where=AUDITED, postgresql_where=AUDITED))


class Watch(Table):
    """How a bundle stands at work. state: apprentice, qualified or suspended. share: of its automatic answers (an apprentice's
    would-be ones) audited blind. monitor: what the audits say so far; number: which monitor of this bundle it is."""

    __tablename__ = "watches"
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"), primary_key=True)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    state: Mapped[str] = mapped_column(String(16))
    share: Mapped[float] = mapped_column(Double)
    monitor: Mapped[dict[str, Any]]
    number: Mapped[int] = mapped_column(Integer, default=1)
    since: Mapped[datetime] = mapped_column(default=now)


class Mark(Table):
    """A point of a bundle's timeline: after each audit, and at each change of its state."""

    __tablename__ = "marks"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"))
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    at: Mapped[datetime] = mapped_column(default=now)
    what: Mapped[str] = mapped_column(String(16))
    audited: Mapped[int] = mapped_column(Integer)
    wrong: Mapped[int] = mapped_column(Integer)
    upper: Mapped[float] = mapped_column(Double)
    lower: Mapped[float] = mapped_column(Double)
    __table_args__ = (Index("marks_in_order", "bundle_id", "at"),)


class Tally(Table):
    """How many messages a bundle answered by itself and handed over on a day (UTC)."""

    __tablename__ = "tallies"
    bundle_id: Mapped[str] = mapped_column(ForeignKey("bundles.id"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    answered: Mapped[int] = mapped_column(Integer, default=0)
    handed_over: Mapped[int] = mapped_column(Integer, default=0)


class Write(Table):
    """The answer that a write with an idempotency key got. digest: of the request; status, answer: of the response."""

    __tablename__ = "writes"
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(Table):
    """What the worker does. state: draft until somebody starts it, then queued, running, done, failed or cancelled. steps: of
    the ladder, while it is climbed. attempt: grows with every start and tells a
    worker that has lost its lease from the one that has it; crashes: starts whose worker vanished."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    business_id: Mapped[str] = mapped_column(ForeignKey("businesses.id"))
    kind: Mapped[str] = mapped_column(String(32))
    options: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    doing: Mapped[str] = mapped_column(default="")
    done: Mapped[int] = mapped_column(Integer, default=0)
    total: Mapped[int] = mapped_column(Integer, default=0)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    steps: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    made_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    cancel_wanted: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (Index("jobs_to_do", "state", "created_at"), Index("jobs_of_business", "business_id", "created_at"))


class Entry(Table):
    """One line of the audit. number: 1, 2, 3 … without a gap; before: hash of the entry before; hash: of this one with it.

    actor, action, subject: who did what to which (ids); facts: more ids and numbers, never a text that somebody wrote.
    """

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    business_id: Mapped[str | None] = mapped_column(ID)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    facts: Mapped[str]
    before: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (UniqueConstraint("hash"), Index("audit_of_business", "business_id", "number"))
