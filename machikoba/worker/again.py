"""A bundle learns from its corrections as a job: a new version, taken into use where nothing speaks against it."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from machikoba.desk import bundles, corrections, versions
from machikoba.desk.versions import AS_GOOD, CHANGED, FEW, UNKNOWN, UNPROVED, WORSE
from machikoba.errors import BundleError, MachikobaError
from machikoba.language import _
from machikoba.pack.bundle import SUFFIX, Bundle, open_bundle
from machikoba.store import audit
from machikoba.store.jobs import CancelledError, Lease
from machikoba.store.tables import Job, Watch
from machikoba.tune.again import again, learn
from machikoba.tune.compare import Comparison, compare
from machikoba.tune.ladder import Say


def tune_again(lease: Lease, say: Say, home: Path) -> None:
    """options["bundle"] is the bundle's id, options["folder"] what it was when the job was made. What an earlier start of the job
    finished is not made again; corrections that came after the job are for the next one."""
    own = home / "businesses" / lease.business_id
    out, work_in = own / "bundles" / f"{lease.job_id}{SUFFIX}", own / "work"
    with lease.database.reading() as session:
        job = session.get(Job, lease.job_id)
        assert job is not None
        entry = bundles.by_id(session, lease.business_id, lease.options["bundle"])
        given = corrections.lessons(session, entry, job.created_at)
    old = open_bundle(home / lease.options["folder"])
    lesson = learn(old, given)
    if not out.exists():
        try:
            again(old, lesson, out, lease.options["name"], say, work_in, lease.attempt > 1,
                  lambda steps: lease.tell([step.to_dict() for step in steps]))
        except MachikobaError:
            if not out.exists():  # a worker that had lost the job may have finished it in the meantime
                raise
    try:
        new = open_bundle(out)
        _into_use(lease, home, old, new, compare(old, new, say, work_in), lesson.counts)
    except (CancelledError, BundleError):
        shutil.rmtree(out, ignore_errors=True)  # perhaps of somebody who is to be forgotten
        raise


def _into_use(lease: Lease, home: Path, old: Bundle, new: Bundle, found: Comparison | None, learnt: dict[str, int]) -> None:
    """Writes the version down, decides whether it answers from now on, and ends the job, all in one transaction."""
    with lease.database.writing() as session:
        audit.alone(session)
        job = session.get(Job, lease.job_id)
        assert job is not None
        entry = bundles.by_id(session, lease.business_id, lease.options["bundle"])
        session.refresh(entry, with_for_update=True)
        if entry.removed_at is not None:
            raise BundleError("bundle_unknown", _("There is no bundle of this name."), found=entry.name,
                              next=_("It was replaced or taken out of use in the meantime. Let the new one learn."))
        watch = session.get(Watch, entry.id)
        alone = watch.state == "qualified" if watch else old.facts["threshold"] is not None
        why = _why(found, alone, new, home / entry.folder == old.path)
        facts: dict[str, Any] = {**versions.facts_of(new), "learnt": learnt, "why": why,
                                 "comparison": found.to_dict() if found else None}
        made = versions.add(session, entry, new.path, home, lease.made_by, job, facts)
        if why == AS_GOOD:
            versions.use(session, entry, made, home, lease.made_by)
        lease.finish({"bundle": entry.name, "number": made.number, "used": why == AS_GOOD, **facts}, session)


def _why(found: Comparison | None, alone: bool, new: Bundle, same: bool) -> str:
    """alone: the one in use answers by itself; same: it is still the one that was compared with."""
    if not same:
        return CHANGED
    if found is None:
        return UNKNOWN
    if not found.as_good:
        return WORSE if found.enough else FEW
    # As often right, but without a proof: to take it would end the automatic answers, which a person must want.
    return UNPROVED if alone and new.facts["threshold"] is None else AS_GOOD
