"""Which bundles a business has, by name. A name is a business's own: another's bundle of that name is another bundle."""
from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from machikoba.errors import BundleError, OptionError
from machikoba.language import _
from machikoba.pack.bundle import SUFFIX
from machikoba.store import audit
from machikoba.store.tables import BundleEntry, Version, now

NAME, UNUSABLE = re.compile(r"[\w.\-（）() ]{1,100}"), re.compile(r"[^\w.\-（）() ]")


def find(session: Session, business_id: str, name: str) -> BundleEntry:
    """The bundle of this name. Raises BundleError, bundle_unknown, the same for one that another business has."""
    found = session.scalars(select(BundleEntry).where(
        BundleEntry.business_id == business_id, BundleEntry.name == name, BundleEntry.removed_at.is_(None))).first()
    if found is None:
        raise _unknown(name)
    return found


def by_id(session: Session, business_id: str, bundle_id: str) -> BundleEntry:
    """The bundle that a business had when it was named, also where another has its name now. Raises BundleError."""
    found = session.get(BundleEntry, bundle_id)
    if found is None or found.business_id != business_id:
        raise _unknown(bundle_id)
    return found


def listed(session: Session, business_id: str) -> list[BundleEntry]:
    """The bundles of a business, by name."""
    return list(session.scalars(select(BundleEntry).where(
        BundleEntry.business_id == business_id, BundleEntry.removed_at.is_(None)).order_by(BundleEntry.name)))


def add(session: Session, business_id: str, name: str, folder: Path, home: Path, actor: str) -> BundleEntry:
    """Gives a bundle a name in a business; one that had it goes. Raises OptionError."""
    check_name(name)
    old = session.scalars(select(BundleEntry).where(
        BundleEntry.business_id == business_id, BundleEntry.name == name, BundleEntry.removed_at.is_(None))).first()
    if old is not None:
        remove(session, old, actor)
        session.flush()
    entry = BundleEntry(business_id=business_id, name=name, folder=kept_as(folder, home))
    session.add(entry)
    session.flush()
    audit.record(session, actor, "bundle.add", f"bundle:{entry.id}", business_id)
    return entry


def remove(session: Session, entry: BundleEntry, actor: str) -> None:
    """Takes a bundle out of use, with all its versions; the folders stay until they are cleared away."""
    entry.removed_at = now()
    session.execute(update(Version).where(Version.bundle_id == entry.id, Version.removed_at.is_(None)).values(
        removed_at=entry.removed_at))
    audit.record(session, actor, "bundle.remove", f"bundle:{entry.id}", entry.business_id)


def adopt(session: Session, business_id: str, paths: list[Path], home: Path) -> None:
    """Names bundles that lie in the home or were given at the start, where they have no name yet."""
    known = {*session.scalars(select(BundleEntry.folder)), *session.scalars(select(Version.folder))}
    for path in paths:
        if kept_as(path, home) not in known:
            name = UNUSABLE.sub("_", path.name.removesuffix(SUFFIX)[:100]).strip(". ") or "bundle"
            add(session, business_id, name, path, home, "console")


def folder_of(entry: BundleEntry, home: Path) -> Path:
    """Where a bundle lies."""
    return home / entry.folder  # an absolute folder stays what it is


def kept_as(path: Path, home: Path) -> str:
    """A folder as the store names it."""
    return (path.relative_to(home) if path.is_relative_to(home) else path).as_posix()


def check_name(name: str) -> None:
    """Raises OptionError for a name that could be taken for a path or cannot be read."""
    if not NAME.fullmatch(name) or name.strip(". ") != name:
        raise OptionError("name_unusable", _("This name cannot be used."),
                          expected=_("letters, digits, spaces and - _ . ( ), at most 100"), found=name[:100],
                          next=_("Choose another name."))


def _unknown(name: str) -> BundleError:
    return BundleError("bundle_unknown", _("There is no bundle of this name."), found=name[:100],
                       next=_("GET /v1/bundles lists those that are here."))
