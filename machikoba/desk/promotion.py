"""How a bundle stands at work: an apprentice is promoted, and whoever errs too often suspended, by audits made blind.

    apprentice ── audits prove it ──> qualified ── audits say otherwise ──> suspended ── the owner mends ──> apprentice
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from machikoba.prove.certificate import spent_level
from machikoba.prove.monitor import Monitor
from machikoba.store import audit
from machikoba.store.database import Database
from machikoba.store.tables import BundleEntry, Item, Mark, Watch, now
from machikoba.tasks.classify import Prediction

APPRENTICE_SHARE, QUALIFIED_SHARE = 0.3, 0.1  # audited blind: an apprentice has everything to prove, and people look anyway
CHANGED = "version"  # what of a mark: another version answers from then on
UNDO_MINUTES = 2  # until a decision counts for the monitor, which takes nothing back


def watch(session: Session, entry: BundleEntry, facts: dict[str, Any]) -> Watch:
    """How a bundle stands, in the caller's transaction; begun where it never was at work. facts: bundle.json."""
    found = session.get(Watch, entry.id)
    if found is None:
        qualified = facts["threshold"] is not None
        share = QUALIFIED_SHARE if qualified else APPRENTICE_SHARE
        monitor = _monitor(facts, share, 1)
        found = Watch(bundle_id=entry.id, business_id=entry.business_id, state="qualified" if qualified else "apprentice",
                      share=share, monitor=monitor.to_dict(), number=1)
        session.add(found)
        session.flush()
        _mark(session, found, "start", monitor)
    return found


def states(session: Session, bundle_ids: Sequence[str]) -> dict[str, str]:
    """The states of those bundles that were at work."""
    return {watch.bundle_id: watch.state for watch in session.scalars(select(Watch).where(Watch.bundle_id.in_(bundle_ids)))}


def as_it_stands(predictions: Sequence[Prediction], state: str) -> list[Prediction]:
    """Predictions as they may be told: one who is suspended answers nothing, a promoted apprentice what it is sure of; without
    a state as they are."""
    if state in ("suspended", "apprentice"):
        return [replace(one, answered=False) for one in predictions]
    return [replace(one, answered=one.would_answer) for one in predictions] if state == "qualified" else list(predictions)


def settle(session: Session, bundle_id: str) -> str | None:
    """Tells the monitor of audits that nobody can take back any more; the state that changed, None where none did."""
    due = list(session.scalars(select(Item).where(
        Item.bundle_id == bundle_id, Item.probability.is_not(None), ~Item.counted,
        Item.decided_at < now() - timedelta(minutes=UNDO_MINUTES)).order_by(Item.decided_at, Item.id)))
    found = session.get(Watch, bundle_id, with_for_update=True) if due else None
    if found is None:
        return None
    monitor, before = Monitor.from_dict(found.monitor), found.state
    began = session.scalar(select(func.max(Mark.at)).where(Mark.bundle_id == bundle_id, Mark.what == CHANGED))
    for item in due:
        item.counted = True
        if began is not None and item.created_at < began:  # another version had said that
            continue
        if item.label is None or item.state != "done":  # passed over: nobody knows whether it was right
            continue
        monitor.update(item.label != item.said, item.probability or 1.0)
        state = "suspended" if monitor.suspended else "qualified" if monitor.qualified else found.state
        changed = state != found.state
        if changed:
            found.state, found.since = state, now()
            audit.record(session, "monitor", f"bundle.{state}", f"bundle:{bundle_id}", found.business_id, {
                "audited": monitor.audited, "wrong": monitor.wrong, "upper": round(monitor.upper_bound, 4),
                "lower": round(monitor.lower_bound, 4)})
        _mark(session, found, state if changed else "audit", monitor)
    found.monitor = monitor.to_dict()
    return found.state if found.state != before else None


def settle_all(database: Database) -> None:
    """`settle` for every bundle at work: after the last decision of a day nobody else would. Raises StorageError."""
    with database.reading() as session:
        ids = list(session.scalars(select(Watch.bundle_id)))
    for bundle_id in ids:
        with database.writing() as session:
            settle(session, bundle_id)


def begin_again(session: Session, found: Watch, facts: dict[str, Any], actor: str) -> None:
    """What was suspended becomes an apprentice again, with a monitor of its own that has less risk left to spend."""
    found.state, found.share, found.number, found.since = "apprentice", APPRENTICE_SHARE, found.number + 1, now()
    monitor = _monitor(facts, APPRENTICE_SHARE, found.number)
    found.monitor = monitor.to_dict()
    audit.record(session, actor, "bundle.begin_again", f"bundle:{found.bundle_id}", found.business_id, {"number": found.number})
    _mark(session, found, "start", monitor)


def begin_with(session: Session, entry: BundleEntry, facts: dict[str, Any], suspended: bool) -> None:
    """Another version of the bundle answers from now on, as its own certificate says, with a monitor of its own; a bundle that
    never was at work begins there as any. facts: its bundle.json; suspended: it erred too often when it was at work before.

    Who was suspended at work, or the bundle before it without having proved itself since, begins as an apprentice: a certificate
    is of messages that were there before, and at work it has not held.
    """
    found = session.get(Watch, entry.id, with_for_update=True)
    if found is None:
        return
    last = session.scalars(select(Mark.what).where(Mark.bundle_id == entry.id, Mark.what.in_(("qualified", "suspended")))
                           .order_by(Mark.at.desc(), Mark.audited.desc()).limit(1)).first()
    qualified = facts["threshold"] is not None and not suspended and last != "suspended" and found.state != "suspended"
    found.state, found.since = "qualified" if qualified else "apprentice", now()
    found.share, found.number = QUALIFIED_SHARE if qualified else APPRENTICE_SHARE, found.number + 1
    monitor = _monitor(facts, found.share, found.number)
    found.monitor = monitor.to_dict()
    _mark(session, found, CHANGED, monitor)


def timeline(session: Session, bundle_id: str) -> list[Mark]:
    """All points, oldest first."""
    return list(session.scalars(select(Mark).where(Mark.bundle_id == bundle_id).order_by(Mark.at, Mark.audited)))


def _monitor(facts: dict[str, Any], share: float, number: int) -> Monitor:
    """The monitor of this number: all that a bundle ever has together spend the risk that its confidence leaves."""
    return Monitor(facts["target_error"], spent_level(facts["confidence"], number), share)


def _mark(session: Session, found: Watch, what: str, monitor: Monitor) -> None:
    session.add(Mark(bundle_id=found.bundle_id, business_id=found.business_id, what=what, audited=monitor.audited,
                     wrong=monitor.wrong, upper=monitor.upper_bound, lower=monitor.lower_bound))
