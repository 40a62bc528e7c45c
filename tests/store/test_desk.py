"""The desk: nothing lost, nothing seen twice, audits blind and counted once."""
from __future__ import annotations

import itertools
import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from machikoba.desk import bundles, promotion, queue
from machikoba.errors import RequirementError
from machikoba.prove.monitor import Monitor
from machikoba.store import audit
from machikoba.store.tables import Correction, Item, Mark, Tally, Watch, now
from machikoba.tasks.classify import Prediction
from machikoba.worker.run import Worker
from tests.store.kept import code

FACTS = {"threshold": 0.8, "target_error": 0.05, "confidence": 0.95}
SURE, UNSURE = Prediction("parking", 0.9, True, True), Prediction("food", 0.4, False, False)


@pytest.fixture
def entry(database, business, tmp_path):
    with database.writing() as session:
        return bundles.add(session, business, "inquiries", tmp_path / "a.bundle", tmp_path, "console")


def put(database, entry, said, facts=FACTS, draw=lambda: 1.0, texts=None):
    with database.writing() as session:
        watch = promotion.watch(session, entry, facts)
        found = promotion.as_it_stands(said, watch.state)
        texts = texts or [f"message {i}" for i in range(len(said))]
        return [item.id for item in queue.take_in(session, entry, watch, texts, found, [["bath"]] * len(said), "api", draw)]


def shown(database, entry, who="person:a", label=None):
    with database.writing() as session:
        item = queue.next_item(session, entry, who, label)
        return item.id if item else None


def decide(database, entry, item, label="parking", who="person:a", seconds=3.0):
    with database.writing() as session:
        return queue.decide(session, entry, item, label, who, seconds)


def later(database, minutes=promotion.UNDO_MINUTES):
    with database.writing() as session:
        for item in session.scalars(select(Item).where(Item.decided_at.is_not(None))):
            item.decided_at -= timedelta(minutes=minutes, seconds=1)


def test_what_is_not_answered_comes_to_the_desk(database, entry):
    assert len(put(database, entry, [SURE, UNSURE, SURE, UNSURE])) == 2
    with database.reading() as session:
        tally = session.scalars(select(Tally)).one()
        assert (tally.answered, tally.handed_over) == (2, 2)
        assert {item.probability for item in session.scalars(select(Item))} == {None}


def test_an_apprentice_answers_nothing_and_everything_comes(database, entry):
    made = put(database, entry, [SURE, UNSURE], FACTS | {"threshold": None})
    assert len(made) == 2
    with database.reading() as session:
        assert [item.answered for item in session.scalars(select(Item))] == [False, False]
        assert session.get(Watch, entry.id).state == "apprentice"


def test_the_audit_is_drawn_before_anybody_sees_it(database, entry):
    draws = itertools.cycle([0.05, 0.5])
    made = put(database, entry, [SURE] * 10 + [UNSURE], draw=lambda: next(draws))
    assert len(made) == 6, "five of ten answered drawn, and one handed over"
    with database.reading() as session:
        audited = list(session.scalars(select(Item).where(Item.probability.is_not(None))))
        assert {item.probability for item in audited} == {promotion.QUALIFIED_SHARE}
        assert all(item.answered for item in audited)
    assert shown(database, entry, label="parking") is None, "a filter must not tell what a blind one would say"


def test_two_people_never_get_the_same(database, entry):
    put(database, entry, [UNSURE] * 40)
    seen: list[str] = []

    def work(who):
        while (item := shown(database, entry, who)) is not None:
            seen.append(item)
            decide(database, entry, item, "food", who)

    people = [threading.Thread(target=work, args=(f"person:{i}",)) for i in range(4)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert len(seen) == len(set(seen)) == 40
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Correction)) == 40
        assert audit.verify(session) is None


def test_what_one_has_another_cannot_decide(database, entry):
    put(database, entry, [UNSURE] * 2)
    mine = shown(database, entry, "person:a")
    assert shown(database, entry, "person:a") == mine, "the page loaded again shows the same"
    other = shown(database, entry, "person:b")
    assert other != mine
    assert code(RequirementError, decide, database, entry, mine, "food", "person:b") == "item_held"
    decide(database, entry, mine, "food", "person:a")
    decide(database, entry, mine, "food", "person:a")  # sent twice
    assert code(RequirementError, decide, database, entry, mine, "bath", "person:b") == "item_gone"
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Correction)) == 1


def test_what_somebody_left_lying_comes_back(database, entry):
    put(database, entry, [UNSURE])
    mine = shown(database, entry, "person:a")
    assert shown(database, entry, "person:b") is None
    with database.writing() as session:
        session.get(Item, mine).held_until = now() - timedelta(seconds=1)
    assert shown(database, entry, "person:b") == mine


def test_assigned_is_for_one(database, entry):
    first, second = put(database, entry, [UNSURE] * 2)
    with database.writing() as session:
        queue.assign(session, entry, first, "b", "person:a")
        queue.assign(session, entry, second, "b", "person:a")
    assert shown(database, entry, "person:a") is None
    assert shown(database, entry, "person:b") in (first, second)


def test_taken_back(database, entry):
    put(database, entry, [UNSURE] * 3)
    first = shown(database, entry)
    decide(database, entry, first, "bath")
    second = shown(database, entry)
    with database.writing() as session:
        assert queue.undo(session, entry, "person:b") is None
        assert queue.undo(session, entry, "person:a").id == first
        assert session.scalar(select(func.count()).select_from(Correction)) == 0
    assert shown(database, entry) == first
    assert shown(database, entry, "person:b") == second, "what was shown in between is free again"
    decide(database, entry, first, "food")
    later(database)
    with database.writing() as session:
        assert queue.undo(session, entry, "person:a") is None, "too late"


def test_passed_over_is_nobodys_mistake(database, entry):
    (item,) = put(database, entry, [SURE], draw=lambda: 0.0)
    decide(database, entry, item, None)
    later(database)
    with database.writing() as session:
        promotion.settle(session, entry.id)
        assert Monitor.from_dict(session.get(Watch, entry.id).monitor).audited == 0
        assert session.scalar(select(func.count()).select_from(Correction)) == 0


def audits(database, entry, labels, facts=FACTS):
    """Blind decisions, one after the other, each beyond recall."""
    for label in labels:
        (item,) = put(database, entry, [SURE], facts, draw=lambda: 0.0)
        decide(database, entry, item, label)
    later(database)
    with database.writing() as session:
        return promotion.settle(session, entry.id)


def test_an_apprentice_is_promoted_and_whoever_errs_suspended(database, entry):
    apprentice = FACTS | {"threshold": None}
    assert audits(database, entry, ["parking"] * 20, apprentice) is None
    assert audits(database, entry, ["parking"] * 100, apprentice) == "qualified"
    assert promotion.as_it_stands([SURE, UNSURE], "qualified") == [SURE, UNSURE]
    assert audits(database, entry, ["food"] * 12, apprentice) == "suspended"
    with database.writing() as session:
        watch = session.get(Watch, entry.id)
        assert [one.answered for one in promotion.as_it_stands([SURE], watch.state)] == [False]
        marks = promotion.timeline(session, entry.id)
        assert [mark.what for mark in marks if mark.what != "audit"] == ["start", "qualified", "suspended"]
        assert (marks[-1].audited, marks[-1].wrong) == (132, 12) or marks[-1].what in ("audit", "suspended")
        told = [entry_.action for entry_ in session.scalars(select(audit.Entry)) if entry_.actor == "monitor"]
        assert told == ["bundle.qualified", "bundle.suspended"]
        promotion.begin_again(session, watch, apprentice, "person:a")
        assert (watch.state, watch.number, Monitor.from_dict(watch.monitor).audited) == ("apprentice", 2, 0)
        assert Monitor.from_dict(watch.monitor).confidence_level == pytest.approx(1 - 0.05 / 6)


def test_each_audit_counts_once_and_only_when_it_is_beyond_recall(database, entry):
    (item,) = put(database, entry, [SURE], draw=lambda: 0.0)
    decide(database, entry, item, "food")
    with database.writing() as session:
        promotion.settle(session, entry.id)
        assert Monitor.from_dict(session.get(Watch, entry.id).monitor).audited == 0
    later(database)
    for _ in range(2):
        with database.writing() as session:
            promotion.settle(session, entry.id)
            monitor = Monitor.from_dict(session.get(Watch, entry.id).monitor)
            assert (monitor.audited, monitor.wrong) == (1, 1)
            assert session.scalar(select(func.count()).select_from(Mark).where(Mark.what == "audit")) == 1


def test_search_finds_words_and_tells_no_blind_one(database, entry):
    put(database, entry, [SURE, UNSURE], draw=lambda: 0.0, texts=["駐車場 100% _ある?", "朝食は 何時"])
    with database.reading() as session:
        assert [item.text for item in queue.search(session, entry, "朝食 何時")] == ["朝食は 何時"]
        assert [item.text for item in queue.search(session, entry, "100% _")] == ["駐車場 100% _ある?"]
        assert queue.search(session, entry, "", label="parking") == []
        assert len(queue.search(session, entry, "", label="food")) == 1


def test_the_pace_with_and_without_a_suggestion(database, entry):
    blind, plain = put(database, entry, [SURE, UNSURE], draw=lambda: 0.0)
    decide(database, entry, blind, "parking", seconds=8.0)
    decide(database, entry, plain, "food", seconds=2.5)
    with database.reading() as session:
        assert queue.pace(session, entry) == {"with": 2.5, "with_n": 1, "without": 8.0, "without_n": 1}


def test_what_the_log_knows(database, entry, business):
    put(database, entry, [SURE, UNSURE, UNSURE])
    with database.writing() as session:
        session.add(Tally(bundle_id=entry.id, day=(now() - timedelta(days=9)).date().isoformat(), business_id=business,
                          answered=10, handed_over=5))
        session.add(Tally(bundle_id=entry.id, day=(now() - timedelta(days=40)).date().isoformat(), business_id=business,
                          answered=99, handed_over=99))
    with database.reading() as session:
        assert queue.logged(session, entry) == {"answered": 11, "handed_over": 7, "days": 10}
        assert queue.waiting(session, entry) == 2


def test_the_last_audits_of_a_day_are_counted_too(database, entry, tmp_path):
    (item,) = put(database, entry, [SURE], draw=lambda: 0.0)
    decide(database, entry, item, "food")
    later(database)
    Worker(tmp_path, database, "w").sweep()
    with database.reading() as session:
        assert Monitor.from_dict(session.get(Watch, entry.id).monitor).wrong == 1
