"""Who did what, when: a list that only grows, each entry sealed with the hash of the one before.

    hash = SHA-256 of the entry before's hash and this entry's fields, as JSON

Ids and numbers, never a text that somebody wrote: what is forgotten elsewhere must not live on here.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from machikoba.store.tables import Entry, now

START = "0" * 64
LOCK = 0x6D616368  # of PostgreSQL: one writer of the chain at a time
AT_ONCE = 1_000
Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Broken:
    """The first entry that is not as it was written. why: "changed", "missing" or "cut" (fewer entries than were)."""

    number: int
    why: str


def record(session: Session, actor: str, action: str, subject: str, business_id: str | None = None,
           facts: Mapping[str, Fact] | None = None) -> Entry:
    """Adds an entry in the transaction of what it tells of, and gives it back. actor and subject: ids such as "person:…"."""
    alone(session)
    last = session.execute(select(Entry.number, Entry.hash).order_by(Entry.number.desc()).limit(1)).first()
    number, before = (last.number + 1, last.hash) if last else (1, START)
    entry = Entry(number=number, at=now(), business_id=business_id, actor=actor, action=action, subject=subject,
                  facts=json.dumps(dict(facts or {}), sort_keys=True, ensure_ascii=False), before=before)
    entry.hash = sealed(entry)
    session.add(entry)
    session.flush()
    return entry


def alone(session: Session) -> None:
    """Until the transaction ends nobody else writes what the audit tells of. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))


def sealed(entry: Entry) -> str:
    """The hash that `entry` must have."""
    fields = [entry.before, entry.number, entry.at.isoformat(timespec="microseconds"), entry.business_id, entry.actor,
              entry.action, entry.subject, entry.facts]
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()


def verify(session: Session, seen: tuple[int, str] | None = None) -> Broken | None:
    """The first broken entry, None where the chain is whole.

    seen: number and hash of an entry that was noted outside, as backups do: only so is a chain noticed whose end was cut
    off or which was written anew from there.
    """
    number, before = 0, START
    while True:
        entries = session.scalars(select(Entry).where(Entry.number > number).order_by(Entry.number).limit(AT_ONCE)).all()
        if not entries:
            break
        for entry in entries:
            if entry.number != number + 1:
                return Broken(number + 1, "missing")
            if entry.before != before or entry.hash != sealed(entry):
                return Broken(entry.number, "changed")
            if seen and entry.number == seen[0] and entry.hash != seen[1]:
                return Broken(entry.number, "changed")
            number, before = entry.number, entry.hash
        session.expunge_all()
    if seen and number < seen[0]:
        return Broken(number + 1, "cut")
    return None
