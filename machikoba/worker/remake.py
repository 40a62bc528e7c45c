"""A bundle that lost a message is made again without it, and takes its own place; where that cannot be, it goes.

The new one is made beside the old, which answers until then. Whether it is of all that is left is looked at in the same
transaction in which they change places, so that what is forgotten in the meantime is not brought back.
"""
from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from machikoba import files
from machikoba.desk import bundles, versions
from machikoba.desk.bundles import kept_as
from machikoba.errors import BaseError, BundleError, DataError, OptionError
from machikoba.language import _
from machikoba.pack import erased
from machikoba.pack.bundle import MANIFEST, Bundle, open_bundle
from machikoba.store import audit
from machikoba.store.database import Database
from machikoba.store.jobs import Lease
from machikoba.store.tables import BundleEntry
from machikoba.tune.ladder import Say
from machikoba.tune.remake import remake

FINAL = (DataError, BaseError, BundleError, OptionError)  # another attempt would end the same; what else fails may be tried again


@dataclass(frozen=True)
class Remade:
    """What became of a bundle. before, after: fingerprints; status: "qualified", "apprentice", "void" or, where there was
    nothing to do, "unchanged"; why: of a void one."""

    bundle: str
    before: str | None
    after: str | None
    status_before: str | None
    status: str
    why: str = ""


def remake_job(lease: Lease, say: Say, home: Path) -> None:
    """The job: options["folder"] is the bundle's, as the store names it."""
    path = home / lease.options["folder"]
    made = renewed(lease.database, path, home, lease.made_by, say, home / "businesses" / lease.business_id / "work",
                   lambda session, made: lease.finish(asdict(made), session), bool(lease.options.get("void")))
    if made.status == "unchanged":
        lease.finish(asdict(made))


def renewed(database: Database, path: Path, home: Path, actor: str, say: Say, work_in: Path,
            finish: Callable[[Session, Remade], None] = lambda _session, _made: None, void: bool = False) -> Remade:
    """Makes the bundle at `path` again where it lost a message. finish: called in the transaction in which it changes.

    void: it goes without an attempt. Raises StorageError, RequirementError where another attempt may do.
    """
    while True:
        with database.writing() as session:
            audit.alone(session)
            erased.settle(path)  # an earlier start may have died between two names
        try:
            bundle = open_bundle(path)
        except BundleError as error:
            if error.code == "bundle_newer" or not path.parent.exists():  # a disk that is not there now is no reason
                raise
            return _voided(database, path, home, actor, finish, None, error.message)
        if not erased.unfinished(path) and not void:
            return Remade(path.name, _fingerprint(path), _fingerprint(path), None, "unchanged")
        if void:
            return _voided(database, path, home, actor, finish, bundle, _("as you wished"))
        new = erased.beside(path)
        if new.exists() and not _of_all_left(new, bundle):
            shutil.rmtree(new)
        try:
            if not new.exists():
                remake(bundle, new, say, work_in)
        except FINAL as error:
            return _voided(database, path, home, actor, finish, bundle, error.message)
        with database.writing() as session:
            audit.alone(session)
            if not _of_all_left(new, bundle):
                continue  # somebody else was forgotten in the meantime
            made = Remade(path.name, _fingerprint(path), _fingerprint(new), bundle.proof()["status"],
                          open_bundle(new).proof()["status"])
            entries = _entries(session, path, home)
            audit.record(session, actor, "bundle.remake", f"bundle:{entries[0].id if entries else made.before}",
                         entries[0].business_id if entries else None, {"before": made.before, "after": made.after})
            finish(session, made)
            erased.swap(path)
        with database.writing() as session:
            audit.alone(session)
            erased.settle(path)
        return made


def _voided(database: Database, path: Path, home: Path, actor: str, finish: Callable[[Session, Remade], None],
            bundle: Bundle | None, why: str) -> Remade:
    """Takes the bundle out of use everywhere, and deletes it."""
    made = Remade(path.name, _fingerprint(path) if bundle else None, None, bundle.proof()["status"] if bundle else None, "void",
                  why)
    with database.writing() as session:
        audit.alone(session)
        for entry in _entries(session, path, home):
            bundles.remove(session, entry, actor)
        versions.forget_folder(session, kept_as(path, home))
        finish(session, made)
        shutil.rmtree(erased.beside(path), ignore_errors=True)
        if path.exists():
            erased.take_away(path)
        erased.settle(path)
    return made


def _of_all_left(new: Path, old: Bundle) -> bool:
    """Whether the bundle at `new` is whole, and made of just what is left of `old`."""
    try:
        return open_bundle(new).examples() == erased.left(old)
    except BundleError:
        return False


def _entries(session: Session, path: Path, home: Path) -> list[BundleEntry]:
    """The names under which the bundle is in use."""
    return list(session.scalars(select(BundleEntry).where(
        BundleEntry.folder == kept_as(path, home), BundleEntry.removed_at.is_(None)).order_by(BundleEntry.created_at)))


def _fingerprint(path: Path) -> str:
    return files.digest(path / MANIFEST)[:16]
