"""What a person changed: becomes an example of the next tuning."""
from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from machikoba.store import audit
from machikoba.store.tables import BundleEntry, Correction

AT_ONCE = 200


def add(session: Session, bundle: BundleEntry, text: str, label: str, actor: str, predicted: str | None = None,
        confidence: float | None = None) -> Correction:
    """Keeps what `actor` made of a message, in the caller's transaction."""
    made = Correction(business_id=bundle.business_id, bundle_id=bundle.id, text=text, label=label, predicted=predicted,
                      confidence=confidence, made_by=actor)
    session.add(made)
    session.flush()
    audit.record(session, actor, "correction.add", f"correction:{made.id}", bundle.business_id, {"bundle": bundle.id})
    return made


def remove(session: Session, correction_id: str, actor: str) -> None:
    """Takes back a correction whose maker thought again."""
    found = session.get(Correction, correction_id)
    if found is not None:
        session.delete(found)
        audit.record(session, actor, "correction.remove", f"correction:{found.id}", found.business_id)


def listed(session: Session, bundle: BundleEntry, after: str | None = None) -> list[Correction]:
    """Up to AT_ONCE corrections of a bundle, oldest first; `after` is the id of the last one seen."""
    wanted = select(Correction).where(Correction.business_id == bundle.business_id, Correction.bundle_id == bundle.id)
    if after is not None and (last := session.get(Correction, after)) is not None and last.bundle_id == bundle.id:
        wanted = wanted.where((Correction.created_at > last.created_at)
                              | ((Correction.created_at == last.created_at) & (Correction.id > last.id)))
    return list(session.scalars(wanted.order_by(Correction.created_at, Correction.id).limit(AT_ONCE)))
