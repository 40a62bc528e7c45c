"""What a person changed: becomes an example of the next tuning."""
from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from machikoba.records.origin import AUDIT, HANDOFF, Given
from machikoba.store import audit
from machikoba.store.tables import BundleEntry, Correction, Item

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


def since(session: Session, bundle: BundleEntry, moment: datetime) -> int:
    """How many corrections of a bundle were made after a moment."""
    return session.scalar(select(func.count()).select_from(Correction).where(
        Correction.business_id == bundle.business_id, Correction.bundle_id == bundle.id, Correction.created_at > moment)) or 0


def lessons(session: Session, bundle: BundleEntry, until: datetime) -> list[Given]:
    """All corrections of a bundle up to a moment, with what may be done with them: only what was decided blind may prove."""
    rows = session.execute(
        select(Correction.text, Correction.label, Correction.created_at, Item.probability)
        .outerjoin(Item, Item.correction_id == Correction.id)
        .where(Correction.business_id == bundle.business_id, Correction.bundle_id == bundle.id, Correction.created_at <= until)
        .order_by(Correction.created_at, Correction.id))
    return [Given(text, label, HANDOFF if probability is None else AUDIT, at) for text, label, at, probability in rows]
