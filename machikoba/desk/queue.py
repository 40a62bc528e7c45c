"""The desk: messages that a person decides, one after the other; two people never get the same."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from machikoba.desk import corrections
from machikoba.desk.promotion import UNDO_MINUTES, settle
from machikoba.errors import RequirementError
from machikoba.language import _
from machikoba.store import audit
from machikoba.store.tables import BundleEntry, Item, Tally, Watch, now
from machikoba.tasks.classify import Prediction

HOLD_MINUTES = 10  # an item that was shown and not decided comes back to the others
MOST_SECONDS = 600.0  # beyond it somebody went away; the time then tells nothing
SHOWN = 50
MOST_COUNTED = 1_000
TIMED = 2_000  # newest decisions of which the pace is told
Draw = Callable[[], float]


def take_in(session: Session, entry: BundleEntry, watch: Watch, texts: Sequence[str], said: Sequence[Prediction],
            others: Sequence[Sequence[str]], origin: str, draw: Draw = random.random) -> list[Item]:
    """Puts on the desk what a person shall decide, in the caller's transaction; the items.

    Handed over is all that was not answered. Of what was answered, or an apprentice would have, a share is drawn for the audit,
    with the probability stored, before anybody sees it. others: further likely labels of each text.
    """
    made, answered = [], 0
    for text, one, likely in zip(texts, said, others, strict=True):
        drawn = one.would_answer and draw() < watch.share
        answered += one.answered
        if one.answered and not drawn:
            continue
        made.append(Item(business_id=entry.business_id, bundle_id=entry.id, text=text, origin=origin, said=one.label,
                         confidence=one.confidence, would_answer=one.would_answer, answered=one.answered, others=list(likely),
                         probability=watch.share if drawn else None))
    session.add_all(made)
    day = now().date().isoformat()
    tally = session.get(Tally, (entry.id, day), with_for_update=True)
    if tally is None:
        tally = Tally(bundle_id=entry.id, day=day, business_id=entry.business_id, answered=0, handed_over=0)
        session.add(tally)
    tally.answered += answered
    tally.handed_over += len(texts) - answered
    session.flush()
    return made


def next_item(session: Session, bundle: BundleEntry, who: str, label: str | None = None) -> Item | None:
    """The item that `who` shall see now, held for HOLD_MINUTES: one held already, else the oldest that nobody holds.

    label: only those of which the bundle says so; an audit drawn blind is never among them, for it must not be told.
    """
    moment = now()
    wanted = select(Item).where(Item.business_id == bundle.business_id, Item.bundle_id == bundle.id, Item.state == "open")
    if label is not None:
        wanted = wanted.where(Item.said == label, Item.probability.is_(None))
    held = wanted.where(Item.held_by == who)
    free = wanted.where(or_(Item.held_by.is_(None), Item.held_until < moment),
                        or_(Item.assigned_to.is_(None), Item.assigned_to == _person(who)))
    found = None
    for some in (held, free.order_by(Item.created_at, Item.id)):  # each by an index of its own, however many wait
        found = found or session.scalars(some.limit(1).with_for_update(skip_locked=True)).first()
    if found is not None:
        found.held_by, found.held_until = who, moment + timedelta(minutes=HOLD_MINUTES)
    return found


def decide(session: Session, bundle: BundleEntry, item_id: str, label: str | None, who: str, seconds: float | None) -> Item:
    """Keeps what `who` made of an item; None passes it over. Raises RequirementError: item_gone, item_held."""
    item = _own(session, bundle, item_id)
    if item.state != "open":
        if item.decided_by == who and item.label == label:  # sent twice
            return item
        raise RequirementError("item_gone", _("Somebody has decided this message already."), next=_("Go on with the next one."))
    if item.held_by not in (None, who) and item.held_until is not None and item.held_until > now():
        raise RequirementError("item_held", _("Somebody else is at this message."), next=_("Go on with the next one."))
    item.state, item.label, item.decided_by, item.decided_at = "done" if label is not None else "passed", label, who, now()
    item.seconds = seconds if seconds is not None and 0 <= seconds <= MOST_SECONDS else None
    item.held_by = item.held_until = None
    if label is not None:
        item.correction_id = corrections.add(session, bundle, item.text, label, who, item.said, item.confidence).id
    else:
        audit.record(session, who, "item.pass", f"item:{item.id}", bundle.business_id)
    settle(session, bundle.id)
    return item


def undo(session: Session, bundle: BundleEntry, who: str) -> Item | None:
    """Takes back the last decision of `who`, which then is at that item again; None where there is none any more."""
    item = session.scalars(select(Item).where(
        Item.business_id == bundle.business_id, Item.bundle_id == bundle.id, Item.decided_by == who, ~Item.counted,
        Item.state != "open", Item.decided_at > now() - timedelta(minutes=UNDO_MINUTES)).order_by(Item.decided_at.desc())
        .limit(1).with_for_update()).first()
    if item is None:
        return None
    if item.correction_id is not None:
        corrections.remove(session, item.correction_id, who)
    # What was shown in the meantime goes back to the others.
    session.execute(update(Item).where(Item.bundle_id == bundle.id, Item.held_by == who).values(held_by=None, held_until=None))
    item.state = "open"
    item.label = item.decided_by = item.decided_at = item.seconds = item.correction_id = None
    item.held_by, item.held_until = who, now() + timedelta(minutes=HOLD_MINUTES)
    audit.record(session, who, "item.undo", f"item:{item.id}", bundle.business_id)
    return item


def counts(session: Session, bundle: BundleEntry, who: str) -> dict[str, int]:
    """How many wait (see `waiting`), and how many `who` decided since midnight UTC."""
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    today = select(func.count()).select_from(Item).where(
        Item.decided_by == who, Item.decided_at >= midnight, Item.bundle_id == bundle.id)
    return {"open": waiting(session, bundle), "today": session.scalar(today) or 0}


def waiting(session: Session, bundle: BundleEntry) -> int:
    """How many messages wait for a person; beyond MOST_COUNTED it is not counted on, and nobody minds."""
    some = select(Item.id).where(Item.business_id == bundle.business_id, Item.bundle_id == bundle.id,
                                 Item.state == "open").limit(MOST_COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def logged(session: Session, bundle: BundleEntry, days: int = 30) -> dict[str, int]:
    """What the bundle did in the last `days`: answered, handed_over, and over how many days since its first message then."""
    first = (now() - timedelta(days=days)).date().isoformat()
    rows = list(session.scalars(select(Tally).where(Tally.bundle_id == bundle.id, Tally.day > first).order_by(Tally.day)))
    since = (now().date() - date.fromisoformat(rows[0].day)).days + 1 if rows else 0
    return {"answered": sum(row.answered for row in rows), "handed_over": sum(row.handed_over for row in rows), "days": since}


def search(session: Session, bundle: BundleEntry, words: str, state: str | None = None, label: str | None = None) -> list[Item]:
    """The newest items in which all of `words` stand. What an open audit would say is not looked at."""
    wanted = select(Item).where(Item.business_id == bundle.business_id, Item.bundle_id == bundle.id)
    for word in words.split():
        wanted = wanted.where(Item.text.contains(word, autoescape=True))
    if state:
        wanted = wanted.where(Item.state == state)
    if label:
        told = (Item.said == label) & Item.probability.is_(None) & (Item.state == "open")
        wanted = wanted.where(or_(Item.label == label, told))
    return list(session.scalars(wanted.order_by(Item.created_at.desc(), Item.id).limit(SHOWN)))


def assign(session: Session, bundle: BundleEntry, item_id: str, person_id: str | None, actor: str) -> None:
    """Gives an open item to one person, with None to whoever comes first. Raises RequirementError, item_gone."""
    item = _own(session, bundle, item_id)
    if item.state != "open":
        raise RequirementError("item_gone", _("Somebody has decided this message already."), next=_("Go on with the next one."))
    item.assigned_to, item.held_by, item.held_until = person_id, None, None
    audit.record(session, actor, "item.assign", f"item:{item.id}", bundle.business_id, {"to": person_id})


def pace(session: Session, bundle: BundleEntry) -> dict[str, Any]:
    """Seconds for a decision, with what the bundle says shown and without, at the median; None where too few were timed."""
    newest = session.execute(select(Item.seconds, Item.probability, Item.state).where(
        Item.business_id == bundle.business_id, Item.bundle_id == bundle.id, Item.decided_at.is_not(None))
        .order_by(Item.decided_at.desc()).limit(TIMED)).all()
    found: dict[str, Any] = {}
    for name, blind in (("with", False), ("without", True)):
        rows = sorted(seconds for seconds, probability, state in newest
                      if seconds is not None and state == "done" and (probability is not None) == blind)
        found[name] = rows[len(rows) // 2] if rows else None
        found[f"{name}_n"] = len(rows)
    return found


def _own(session: Session, bundle: BundleEntry, item_id: str) -> Item:
    item = session.get(Item, item_id, with_for_update=True)
    if item is None or item.business_id != bundle.business_id or item.bundle_id != bundle.id:
        raise RequirementError("item_unknown", _("There is no such message here."), next=_("Go on with the next one."))
    return item


def _person(who: str) -> str:
    return who.partition(":")[2]
