"""The store: reachable, of this version, its audit whole, its tasks under way."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from machikoba.doctor.finding import Finding, bad, ok, told, warn
from machikoba.errors import MachikobaError
from machikoba.language import _
from machikoba.store import audit, jobs
from machikoba.store.database import Database, here
from machikoba.store.migrations import current, newest, versions
from machikoba.store.tables import BundleEntry, Entry, Job, Version, now

PATIENCE = timedelta(minutes=5)  # that a task may wait although nobody works


@dataclass
class Examined:
    """bundles: folders that the store names; newest_entry: when the audit was last written."""

    findings: list[Finding] = field(default_factory=list)
    bundles: list[Path] = field(default_factory=list)
    newest_entry: datetime | None = None


def examine(home: Path) -> Examined:
    """The store of this installation. Nothing in it is changed, and none is made."""
    found = Examined()
    try:
        with closing(here()) as database:
            found.findings += _examined(database, home, found)
    except MachikobaError as error:
        found.findings.append(told("store", error))
    except DBAPIError as error:
        found.findings.append(_damaged(str(error.orig)))
    return found


def _examined(database: Database, home: Path, found: Examined) -> Iterator[Finding]:
    where = database.url.render_as_string(hide_password=True)
    if database.sqlite and not Path(str(database.url.database)).exists():
        yield ok("store", _("none yet: `machikoba serve` makes it"))
        return
    with database.reading() as session:
        version = current(session.connection())
        if version is not None and version not in versions():
            yield bad("store", _("The store was last used by a newer machikoba."),
                      _("Update machikoba: pip install --upgrade machikoba"))
            return
        if version != newest():
            yield warn("store", _("{where}: of an older version").format(where=where),
                       _("Nothing need be done: the next start brings it up to date. Make a backup first."))
            return
        if database.sqlite and (said := session.execute(text("PRAGMA quick_check(1)")).scalar_one()) != "ok":
            yield _damaged(f"{where}: {said}")
            return
        yield ok("store", _("{where}: answers, version {version}").format(where=where, version=version))
        found.bundles = [home / folder for table in (BundleEntry, Version) for folder in session.scalars(
            select(table.folder).where(table.removed_at.is_(None)))]
        found.newest_entry = session.scalar(select(func.max(Entry.at)))
        yield _audit(session)
        yield _tasks(session)


def _damaged(said: str) -> Finding:
    return bad("store", said, _("Stop the server and restore the last backup: the file is damaged."))


def _audit(session: Session) -> Finding:
    broken = audit.verify(session)
    if broken is None:
        return ok("audit", _("whole, {n:,} entries").format(n=session.scalar(select(func.count()).select_from(Entry)) or 0))
    return bad("audit", _("entry {n} is not as it was written ({why})").format(n=broken.number, why=broken.why),
               _("Somebody or something changed the store from outside: compare it with a backup, and find out who could."))


def _tasks(session: Session) -> Finding:
    """Whether what waits is being done."""
    moment = now()
    opened = session.scalars(select(Job).where(Job.state.in_(jobs.OPEN))).all()
    alive = any(job.lease_until is not None and job.lease_until >= moment for job in opened if job.state == "running")
    waited = [job for job in opened if job.state == "queued" and job.created_at < moment - PATIENCE]
    left = [job for job in opened if job.state == "running" and (
        job.lease_until is None or job.lease_until < moment - timedelta(seconds=jobs.LEASE_SECONDS))]
    last = session.scalar(select(func.max(Job.ended_at)))
    seen = (_("a worker is at work") if alive else _("a worker last ended one at {at}").format(
        at=last.astimezone().isoformat(sep=" ", timespec="minutes")) if last else _("no worker has ended one yet"))
    found = _("{n} tasks open; {seen}").format(n=len(opened), seen=seen)
    if (waited or left) and not alive:
        return bad("tasks", found, _("Nobody does them: start `machikoba worker`, or `machikoba serve` without --no-worker."))
    return ok("tasks", found)
