"""The businesses of an installation, as whoever looks after it sees them: named, added, found. No route leads here."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from machikoba.errors import OptionError
from machikoba.language import _
from machikoba.store import people
from machikoba.store.tables import BundleEntry, Business, Key, Membership

MOST_CHARACTERS = 100


def add(session: Session, name: str, made_by: str) -> Business:
    """A further business, with nobody in it yet. Raises OptionError: business_name, business_taken."""
    name = name.strip()
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable():
        raise OptionError("business_name", _("This cannot be the name of a business."),
                          expected=_("1 to {n} printable characters").format(n=MOST_CHARACTERS),
                          found=_("{n} characters").format(n=len(name)), next=_("Choose another name."))
    if name in _names(session):
        raise OptionError("business_taken", _("There is a business of this name already."), expected=_("a name of its own"),
                          found=name, next=_("Choose another name."))
    return people.add_business(session, name, made_by)


def find(session: Session, name: str | None) -> Business | None:
    """The business of this name or id, without one the first there was; None where there is none at all.

    Raises OptionError, business_not_here.
    """
    if name is None:
        return session.scalars(select(Business).order_by(Business.created_at).limit(1)).first()
    found = session.scalars(select(Business).where((Business.name == name.strip()) | (Business.id == name))
                            .order_by(Business.created_at)).all()
    if len(found) != 1:  # two of one name: older stores had them
        raise OptionError("business_not_here", _("It is not clear which business is meant."),
                          expected=", ".join(one.id for one in found) or ", ".join(_names(session)) or _("one that was added"),
                          found=name[:MOST_CHARACTERS], next=_("`machikoba businesses` lists them; an id may be given too."))
    return found[0]


def listed(session: Session) -> list[dict[str, Any]]:
    """Every business with how many people, keys and bundles it has, the first there was first."""
    def of(table: type[Membership] | type[Key] | type[BundleEntry], *wanted: Any) -> dict[str, int]:
        rows = session.execute(select(table.business_id, func.count()).where(*wanted).group_by(table.business_id))
        return {row[0]: row[1] for row in rows}

    members, keys, bundles = of(Membership), of(Key, Key.ended_at.is_(None)), of(BundleEntry, BundleEntry.removed_at.is_(None))
    return [{"id": one.id, "name": one.name, "created_at": one.created_at.isoformat(timespec="seconds"),
             "people": members.get(one.id, 0), "keys": keys.get(one.id, 0), "bundles": bundles.get(one.id, 0)}
            for one in session.scalars(select(Business).order_by(Business.created_at))]


def _names(session: Session) -> Sequence[str]:
    return session.scalars(select(Business.name).order_by(Business.created_at)).all()
