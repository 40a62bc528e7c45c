"""What is handed to whoever asked that a person be forgotten: what went, what is still to be done, what remains and where.

The receipt never repeats what was asked for; its number is that of the audit's entry.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from machikoba.desk.forget import Found, totals
from machikoba.language import _
from machikoba.records.person import Person
from machikoba.store import backup, restore
from machikoba.store.backup import Known
from machikoba.store.tables import now

MASKED = {"phone", "mail", "line_id"}  # kinds that are masked before a message is kept


def receipt(session: Session, found: Sequence[Found], person: Person, home: Path, number: str | None = None) -> dict[str, Any]:
    """The receipt, without what becomes of the bundles. number: None for a look that changed nothing."""
    kept = backup.known(session, home)  # also past its date: it lies there until the next backup deletes it
    aside = [path.name for path in restore.put_aside(home)]
    unsearched = sorted({name for one in found for name in one.unsearched})
    named = [{"kind": kind, "id": id} for one in found for kind, id in one.named]
    return {"receipt": number, "at": now().isoformat(timespec="seconds"), "found": totals(found),
            "stopped": [job.id for one in found for job in one.stopped], "unsearched": unsearched, "named": named,
            "backups": [{"id": one.id, "made": one.made_at.isoformat(timespec="seconds"),
                         "until": one.kept_until and one.kept_until.isoformat(timespec="seconds")} for one in kept],
            "put_aside": aside,
            "notes": _notes(any(one.rows or one.unused for one in found), person, unsearched, named, kept, aside,
                            session.get_bind().dialect.name)}


def _notes(anything: bool, person: Person, unsearched: list[str], named: list[dict[str, str]], kept: list[Known],
           aside: list[str], database: str) -> list[str]:
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
        ends = [one.kept_until for one in kept if one.kept_until]
        notes.append((_("{n} backups may still hold it; the first backup after {until} deletes the last of them. Ask for the "
                        "same again after restoring one.").format(n=len(kept), until=max(ends).date().isoformat()))
                     if len(ends) == len(kept) else
            _("{n} backups may still hold it, until you delete them. Ask for the same again after restoring one.").format(
                n=len(kept)))
    if aside:
        notes.append(_("Restores put old data aside, which is still there: {names}. Delete these folders.").format(
            names=", ".join(aside)))
    notes.append(_("Your own files, and copies of bundles that you gave away, are not touched."))
    if database == "postgresql":
        notes.append(_("PostgreSQL's own log, its backups and replicas keep deleted rows until they are recycled."))
    return notes
