"""What is handed to whoever asked that a person be forgotten: what went, what is still to be done, what remains and where.

The receipt never repeats what was asked for; its number is that of the audit's entry.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from machikoba.desk.forget import Found, totals
from machikoba.language import _
from machikoba.records.person import Person
from machikoba.store.tables import Entry, now

MASKED = {"phone", "mail", "line_id"}  # kinds that are masked before a message is kept


@dataclass(frozen=True)
class Backup:
    """A copy of the home that was made earlier. until: when it will be deleted, None where nobody said so."""

    name: str
    made: str
    until: str | None


def receipt(session: Session, found: Sequence[Found], person: Person, home: Path, number: str | None = None) -> dict[str, Any]:
    """The receipt, without what becomes of the bundles. number: None for a look that changed nothing."""
    kept = backups(session, home, found[0].business if len(found) == 1 else None)
    unsearched = sorted({name for one in found for name in one.unsearched})
    named = [{"kind": kind, "id": id} for one in found for kind, id in one.named]
    return {"receipt": number, "at": now().isoformat(timespec="seconds"), "found": totals(found),
            "stopped": [job.id for one in found for job in one.stopped], "unsearched": unsearched, "named": named,
            "backups": [vars(backup) for backup in kept],
            "notes": _notes(any(one.rows or one.unused for one in found), person, unsearched, named, kept,
                            session.get_bind().dialect.name)}


def backups(session: Session, home: Path, business_id: str | None = None) -> list[Backup]:
    """Copies that are not deleted yet, as far as the audit and HOME/backups tell; the oldest first."""
    moment, told = now().isoformat(), []
    for entry in session.scalars(select(Entry).where(Entry.action == "backup.add")):
        facts = json.loads(entry.facts)
        until = next((str(value) for name, value in sorted(facts.items()) if "until" in name and value), None)
        if entry.business_id in (None, business_id) or business_id is None:
            told.append(Backup(str(facts.get("name", entry.subject)), str(facts.get("made", entry.at.isoformat())), until))
    names = {backup.name for backup in told}
    folder = home / "backups"
    lying = [Backup(path.name, datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds"), None)
             for path in (folder.iterdir() if folder.is_dir() else []) if path.name not in names]
    return sorted((one for one in [*told, *lying] if one.until is None or one.until > moment), key=lambda one: one.made)


def _notes(anything: bool, person: Person, unsearched: list[str], named: list[dict[str, str]], kept: list[Backup],
           database: str) -> list[str]:
    """What else the receiver must know, a sentence each."""
    notes = []
    if not anything:
        notes.append(_("Nothing was found."))
        if person.kinds & MASKED:
            notes.append(_("Phone numbers, mail addresses and LINE ids are masked before a message is kept, so they cannot be "
                           "found in it any more. Look for the name, or give the id of the message."))
        else:
            notes.append(_("Most names are masked before a message is kept. Try other spellings, or give the id of the message."))
    if unsearched:
        notes.append(_("These could not be looked into, because their messages were deleted or cannot be read: {names}").format(
            names=", ".join(unsearched)))
    if named:
        words = {"business": _("business"), "bundle": _("bundle"), "key": _("key"), "account": _("account")}
        notes.append(_("Names that you chose yourselves still hold it ({kinds}). Change them, or take the account out.").format(
            kinds=", ".join(words[kind] for kind in sorted({one["kind"] for one in named}))))
    if kept:
        ends = [backup.until for backup in kept if backup.until]
        notes.append((_("{n} backups may still hold it, until {until}. Ask for the same again after restoring one.").format(
            n=len(kept), until=max(ends)[:10])) if len(ends) == len(kept) else
            _("{n} backups may still hold it, until you delete them. Ask for the same again after restoring one.").format(
                n=len(kept)))
    notes.append(_("Your own files, and copies of bundles that you gave away, are not touched."))
    if database == "postgresql":
        notes.append(_("PostgreSQL's own log, its backups and replicas keep deleted rows until they are recycled."))
    return notes
