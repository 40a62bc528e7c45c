"""What is kept no longer than it is needed: swept away when the worker starts, and every hour.

    of each business with a number of days   items of the desk, corrections, ended tasks and the messages in bundles that are
                                             older
    of every business                        files that no task waits for, folders of bundles out of use, answers to
                                             idempotency keys that ran out, unfinished work of tunings
    unfinished bundles                       get their task to be made again, should it be missing

A clock that is wrong deletes nothing. One that is behind the newest entry of the audit is wrong; one that is days ahead of
it may be: that is noted, and an hour later believed.
"""
from __future__ import annotations

import logging
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from machikoba import files
from machikoba.desk import versions
from machikoba.desk.bundles import folder_of
from machikoba.desk.forget import Found, remake_later
from machikoba.errors import BundleError, OptionError
from machikoba.language import _
from machikoba.pack import erased
from machikoba.pack.bundle import EXAMPLES, open_bundle
from machikoba.sort.folder import place, remove
from machikoba.store import audit
from machikoba.store.database import Database
from machikoba.store.jobs import DRAFT_DAYS, KEPT, OPEN
from machikoba.store.tables import (
    WRITES_KEPT_HOURS,
    BundleEntry,
    Business,
    Correction,
    Entry,
    Item,
    Job,
    Version,
    Write,
    now,
)
from machikoba.work import clear_old

log = logging.getLogger("machikoba.desk")
GRACE = timedelta(hours=1)  # for files that are just being written, and bundles that somebody still asks
MOST_SILENT = timedelta(days=2)  # since the newest entry of the audit; a clock further ahead is not believed at once
MOST_DAYS = 36_500


def set_days(session: Session, business: Business, days: int | None, actor: str) -> None:
    """How many days a business keeps texts; None: for ever. Raises OptionError."""
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise OptionError("days_wrong", _("This number of days cannot be used."),
                          expected=_("1 to {n}, or none").format(n=MOST_DAYS), found=str(days), next=_("Choose another number."))
    business.retention_days = days
    audit.record(session, actor, "retention.set", f"business:{business.id}", business.id, {"days": days})


def sweep(database: Database, home: Path) -> Counter[str]:
    """Deletes what is over its time, a transaction for each business; how many of each. Raises StorageError."""
    swept: Counter[str] = Counter()
    moment = now()
    with database.writing() as session:
        if not _believed(session, moment):
            return swept
        businesses = list(session.scalars(select(Business.id)))
    for business in businesses:
        with database.writing() as session:
            audit.alone(session)
            gone = _business(session, business, home, moment)
            if gone:
                audit.record(session, "worker", "sweep", f"business:{business}", business, gone)
        swept.update(gone)
        _finish_later(database, business, home)
    with database.writing() as session:  # nobody changes places meanwhile
        audit.alone(session)
        for folder in (home / "bundles", *(home / "businesses").glob("*/bundles")):
            erased.settle_all(folder)
    for folder in (home, home / "backups", *(home / "businesses").glob("*/exports")):
        files.clear_drafts(folder)
    for folder in (home / "work", *(home / "businesses").glob("*/work")):
        clear_old(folder)
    if swept:
        database.scrub(anew=False)
    return swept


def _believed(session: Session, moment: datetime) -> bool:
    newest = session.scalar(select(func.max(Entry.at)))
    if newest is not None and moment < newest:
        log.warning("the clock is behind the newest entry of the audit: nothing was swept")
        return False
    if newest is not None and moment > newest + MOST_SILENT:
        audit.record(session, "worker", "clock.ahead", "home")
        return False
    return True


def _business(session: Session, business_id: str, home: Path, moment: datetime) -> Counter[str]:
    gone: Counter[str] = Counter()
    business = session.get(Business, business_id)
    assert business is not None
    if business.retention_days is not None:
        gone.update(_old(session, business, home, moment - timedelta(days=business.retention_days)))
    gone["answers"] = session.execute(delete(Write).where(  # type: ignore[attr-defined]
        Write.business_id == business_id, Write.created_at < moment - timedelta(hours=WRITES_KEPT_HOURS))).rowcount
    gone["drafts"] = session.execute(delete(Job).where(  # type: ignore[attr-defined]
        Job.business_id == business_id, Job.state == "draft", Job.created_at < moment - timedelta(days=DRAFT_DAYS))).rowcount
    folder, old = home / "businesses" / business_id, moment - GRACE
    wanted = {job.options.get("upload") for job in session.scalars(
        select(Job).where(Job.business_id == business_id, Job.state.in_(KEPT)))}
    for path in _older(folder / "uploads", old):
        if path.name not in wanted:
            path.unlink()
            gone["files"] += 1
    sorting = set(session.scalars(select(Job.id).where(Job.business_id == business_id, Job.kind == "sort")))
    for path in _older(place(home, business_id, ""), old):
        if path.name not in sorting:
            remove(path)
            gone["sortings"] += 1
    used = {folder_of(entry, home) for entry in session.scalars(select(BundleEntry).where(BundleEntry.business_id == business_id))
            if entry.removed_at is None or entry.removed_at > old}
    used |= {home / one.folder for one in session.scalars(select(Version).where(Version.business_id == business_id))
             if one.removed_at is None or one.removed_at > old}
    making = {job.id for job in session.scalars(select(Job).where(Job.business_id == business_id, Job.state.in_(OPEN)))}
    for path in _older(folder / "bundles", old):
        if path not in used and not any(path.name.lstrip(".").startswith(one) for one in making) and not _place_of(path, used):
            shutil.rmtree(path, ignore_errors=True)
            gone["folders"] += 1
    return +gone


def _old(session: Session, business: Business, home: Path, before: datetime) -> Counter[str]:
    """Deletes texts that came before a moment."""
    gone: Counter[str] = Counter()
    for name, table, when in (("items", Item, Item.created_at), ("corrections", Correction, Correction.created_at),
                              ("tasks", Job, Job.ended_at)):
        gone[name] = session.execute(delete(table).where(  # type: ignore[attr-defined]
            table.business_id == business.id, when < before)).rowcount
    entries = session.scalars(select(BundleEntry).where(
        BundleEntry.business_id == business.id, BundleEntry.created_at < before)).all()
    # Every version holds what the first one learnt from, so all are as old as that.
    kept = session.scalars(select(Version.folder).where(Version.bundle_id.in_([entry.id for entry in entries])))
    for path in sorted({*(folder_of(entry, home) for entry in entries), *(home / folder for folder in kept)}):
        if (path / EXAMPLES).exists() and not erased.unfinished(path):  # else it is made again first
            try:
                gone["messages"] += erased.erase_all(open_bundle(path))
            except BundleError:
                (path / EXAMPLES).unlink()  # of a damaged one, that answers nothing anyway
                gone["messages"] += 1
    return gone


def _finish_later(database: Database, business_id: str, home: Path) -> None:
    """Sees to it that bundles which lost a message are made again."""
    with database.reading() as session:
        folders = {folder_of(entry, home) for entry in session.scalars(select(BundleEntry).where(
            BundleEntry.business_id == business_id, BundleEntry.removed_at.is_(None)))}
        folders |= versions.folders(session, business_id, home)
    unfinished = [folder for folder in sorted(folders) if erased.unfinished(folder)]
    if unfinished:
        with database.writing() as session:
            audit.alone(session)
            remake_later(session, Found(business_id, unfinished=unfinished), "worker", home)


def _place_of(path: Path, used: set[Path]) -> bool:
    """Whether a folder waits to take the place of a bundle in use."""
    return any(path == erased.beside(bundle) for bundle in used)


def _older(folder: Path, moment: datetime) -> list[Path]:
    """What was last changed before `moment`."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if datetime.fromtimestamp(path.stat().st_mtime, UTC) < moment]
