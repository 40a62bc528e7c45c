"""What a bundle was, is and can be again. Its name, desk and corrections stay with it; the folder that answers changes.

The first version is written down when there is a second: before, the bundle itself says all of it. The newest KEPT are kept, and
the one in use; folders of others go with the next sweep.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from machikoba.desk import bundles, corrections, promotion
from machikoba.errors import BundleError, RequirementError
from machikoba.language import _
from machikoba.pack import erased
from machikoba.pack.bundle import Bundle, open_bundle, read_facts
from machikoba.store import audit
from machikoba.store.jobs import OPEN
from machikoba.store.tables import BundleEntry, Job, Mark, Version, now

KEPT = 5
# Why a version was taken into use or not: codes, which pages put into words. The first one had none before it.
ORIGINAL, AS_GOOD, WORSE, FEW, UNKNOWN, UNPROVED, CHANGED = ("original", "as_good", "worse", "few", "unknown", "unproved",
                                                             "changed")


def history(session: Session, entry: BundleEntry, home: Path) -> list[Version]:
    """All versions, newest first; the only one of a bundle that never learnt anew is not in the store, and made up here."""
    found = list(session.scalars(select(Version).where(Version.bundle_id == entry.id).order_by(Version.number.desc())))
    return found or [_first(entry, home)]


def in_use(versions: Sequence[Version]) -> Version:
    """Of a bundle's history the version that answers."""
    return next(one for one in versions if one.since is not None)


def find(session: Session, entry: BundleEntry, number: int, home: Path) -> Version:
    """The version of this number. Raises RequirementError, version_unknown."""
    found = next((one for one in history(session, entry, home) if one.number == number), None)
    if found is None:
        raise RequirementError("version_unknown", _("There is no version of this number."), found=str(number),
                               next=_("Choose one from the list of versions."))
    return found


def add(session: Session, entry: BundleEntry, folder: Path, home: Path, actor: str, job: Job,
        facts: Mapping[str, Any]) -> Version:
    """Writes a version down that a job made, in the caller's transaction. It is kept, and not yet in use."""
    session.refresh(entry, with_for_update=True)
    number = session.scalar(select(func.max(Version.number)).where(Version.bundle_id == entry.id))
    if number is None:
        session.add(_first(entry, home))
        number = 1
    made = Version(business_id=entry.business_id, bundle_id=entry.id, number=number + 1, folder=bundles.kept_as(folder, home),
                   made_at=job.created_at, made_by=actor, job_id=job.id, facts=dict(facts), suspended=False)
    session.add(made)
    session.flush()
    audit.record(session, actor, "bundle.version", f"bundle:{entry.id}", entry.business_id, {
        "number": made.number, "version": made.id})
    _keep_newest(session, entry)
    return made


def use(session: Session, entry: BundleEntry, version: Version, home: Path, actor: str) -> None:
    """Lets `version` answer from now on, in the caller's transaction; how it stands at work begins anew.

    Raises RequirementError, version_gone; BundleError where it is damaged. One that is in use stays as it is.
    """
    audit.alone(session)
    session.refresh(entry, with_for_update=True)
    if version.since is not None or version.folder == entry.folder:
        return
    path = home / version.folder
    if entry.removed_at is not None or version.removed_at is not None or not path.is_dir() or erased.unfinished(path):
        raise RequirementError("version_gone", _("This version is not there any more."),
                               expected=_("one of the newest {n}").format(n=KEPT), found="",
                               next=_("Choose another one, or let the sorter learn again."))
    bundle = open_bundle(path)
    promotion.settle(session, entry.id)
    before = session.scalars(select(Version).where(Version.bundle_id == entry.id, Version.since.is_not(None))).first()
    if before is not None:
        assert before.since is not None
        erred = session.scalar(select(Mark.id).where(Mark.bundle_id == entry.id, Mark.what == "suspended",
                                                     Mark.at >= before.since).limit(1))
        before.suspended, before.since = before.suspended or erred is not None, None
    entry.folder, version.since = version.folder, now()
    promotion.begin_with(session, entry, bundle.facts, version.suspended)
    audit.record(session, actor, "bundle.use", f"bundle:{entry.id}", entry.business_id, {
        "number": version.number, "before": before.number if before else None})
    _keep_newest(session, entry)


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """The figures of a bundle that its history tells."""
    proof = bundle.proof()
    certificate = proof["certificate"]
    return {"messages": proof["sets"]["train"], "right": proof["test"]["accuracy"], "tested": proof["test"]["n"],
            "qualified": bundle.facts["threshold"] is not None, "alone": certificate["coverage"] if certificate else None}


def options(session: Session, entry: BundleEntry, home: Path) -> dict[str, str]:
    """What the work is told that lets a bundle learn from its corrections. Raises RequirementError: learning_already,
    corrections_none."""
    if learning(session, entry) is not None:
        raise RequirementError("learning_already", _("It is learning already."), next=_("Wait until that has ended, or stop it."))
    if not corrections.since(session, entry, in_use(history(session, entry, home)).made_at):
        raise RequirementError("corrections_none", _("Nobody has decided a message since it was made."),
                               expected=_("decisions at the desk, or corrections by a program"),
                               next=_("Work the desk first."))
    return {"bundle": entry.id, "folder": entry.folder, "name": entry.name}


def learning(session: Session, entry: BundleEntry) -> Job | None:
    """The work under way that lets a bundle learn anew."""
    return next((job for job in session.scalars(select(Job).where(
        Job.business_id == entry.business_id, Job.kind == "again", Job.state.in_(OPEN)).order_by(Job.created_at))
        if job.options.get("bundle") == entry.id), None)


def folders(session: Session, business_id: str, home: Path) -> set[Path]:
    """Where the versions lie that a business keeps, in use or not."""
    kept = session.scalars(select(Version.folder).where(Version.business_id == business_id, Version.removed_at.is_(None)))
    return {home / folder for folder in kept}


def forget_folder(session: Session, folder: str) -> None:
    """Notes of the version whose folder goes that it cannot be used again. folder: as the store names it."""
    session.execute(update(Version).where(Version.folder == folder, Version.removed_at.is_(None)).values(removed_at=now()))


def _first(entry: BundleEntry, home: Path) -> Version:
    """The version that a bundle is which never learnt anew."""
    try:
        facts = facts_of(read_facts(bundles.folder_of(entry, home)))
    except (BundleError, OSError, ValueError, KeyError):  # damaged: the page tells so where it is opened
        facts = {}
    return Version(business_id=entry.business_id, bundle_id=entry.id, number=1, folder=entry.folder, made_at=entry.created_at,
                   made_by="", facts={**facts, "why": ORIGINAL}, since=entry.created_at, suspended=False)


def _keep_newest(session: Session, entry: BundleEntry) -> None:
    session.flush()
    kept = session.scalars(select(Version).where(Version.bundle_id == entry.id, Version.removed_at.is_(None))
                           .order_by(Version.number.desc())).all()
    for old in kept[KEPT:]:
        if old.since is None:
            old.removed_at = now()
    session.flush()
