"""The desk as a browser without a script uses it, and what programs put on it."""
from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from machikoba.desk import promotion
from machikoba.store.tables import Correction, Item, Watch
from tests.conftest import messages
from tests.web.visitor import signed_in

DESK = "/desk/inquiries"


@pytest.fixture
def staff(app, shop, inn):
    return signed_in(app, shop, inn, "staff")


def items(shop):
    with shop.database.reading() as session:
        return list(session.scalars(select(Item).order_by(Item.created_at, Item.id)))


def put(visitor, *texts):
    return visitor.get(DESK + "/add").send(texts="\n".join(texts))


def unclear(n):
    """Messages that fit nothing."""
    return [f"{'xyz' * 9} {i} qqq" for i in range(n)]


def item_of(visitor):
    found = re.search(r'name="item" value="([0-9a-f]{32})"', visitor.page.text)
    return found[1] if found else None


def decided(visitor, label, **more):
    return visitor.send(DESK, item=item_of(visitor), label=label, **more)


def test_day_at_the_desk(staff, shop):
    put(staff, *unclear(3), "  ", "")
    assert "3 messages went to the desk" in staff.text
    staff.get(DESK)
    assert "3 messages wait" in staff.text
    first = item_of(staff)
    decided(staff, "parking", seconds="2.5")
    assert staff.path == DESK
    assert "2 messages wait" in staff.text
    assert "decided today: 1" in staff.text
    staff.send(DESK, undo="1")
    assert item_of(staff) == first
    decided(staff, "food")
    staff.send(DESK, **{"item": item_of(staff), "pass": "1"})
    decided(staff, "bath")
    assert "Nothing waits" in staff.text
    with shop.database.reading() as session:
        assert sorted(one.label for one in session.scalars(select(Correction))) == ["bath", "food"]
    assert sorted(one.state for one in items(shop)) == ["done", "done", "passed"]
    staff.get(DESK + "/all?words=qqq&state=done")
    assert "the sorter had said" in staff.text
    assert staff.page.text.count("qqq") >= 2


def sure(client, inn):
    """A message that the bundle answers."""
    texts = [text for text, _label in messages(200)]
    told = client.post("/v1/bundles/inquiries/predict", json={"texts": texts}, headers=inn.staff).json()["predictions"]
    return next(text for text, one in zip(texts, told, strict=True) if one["answered"])


def test_a_blind_one_tells_nothing(staff, shop, monkeypatch, client, inn):
    monkeypatch.setattr(promotion, "QUALIFIED_SHARE", 1.0)
    put(staff, sure(client, inn))
    (item,) = items(shop)
    assert item.probability == 1.0
    staff.get(DESK)
    assert "No suggestion this time" in staff.text
    assert 'class="suggested"' not in staff.page.text
    for page in (DESK + "/all", DESK + f"/all?kind={item.said}"):
        assert "the sorter had said" not in staff.get(page).text
    assert item.text not in staff.get(DESK + f"/all?kind={item.said}").text


def test_two_people_and_a_message_that_is_gone(app, shop, inn, staff):
    other = signed_in(app, shop, inn, "staff", "b@example.jp")
    put(staff, *unclear(2))
    mine, theirs = item_of(staff.get(DESK)), item_of(other.get(DESK))
    assert mine != theirs
    other.send(DESK, item=mine, label="food")
    assert other.page.status_code == 409
    assert "Somebody else is at this message" in other.text
    assert item_of(other) == theirs, "the next one is there at once"
    assert [one.state for one in items(shop)] == ["open", "open"]


def test_with_a_script_only_the_message_comes(staff):
    put(staff, *unclear(2))
    staff.get(DESK)
    answer = staff.client.post(DESK, data={"csrf": re.search(r'name="csrf" content="([^"]*)"', staff.page.text)[1],
                                           "item": item_of(staff), "label": "food"}, headers={"Accept": "application/json"})
    told = answer.json()["html"]
    assert "1 message waits" in told
    assert "<html" not in told
    wrong = staff.client.post(DESK, data={"csrf": "x"}, headers={"Accept": "application/json"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "csrf_missing")


def test_what_a_program_asks_comes_to_the_desk_if_it_wants(client, shop, inn):
    asked = {"texts": unclear(2)}
    assert client.post("/v1/bundles/inquiries/predict", json=asked, headers=inn.viewer).status_code == 200
    assert items(shop) == []
    assert client.post("/v1/bundles/inquiries/predict", json=asked | {"desk": True}, headers=inn.viewer).status_code == 403
    told = client.post("/v1/bundles/inquiries/predict", json=asked | {"desk": True}, headers=inn.staff).json()
    assert set(told["predictions"][0]) == {"label", "confidence", "answered", "would_answer"}
    assert [one.origin for one in items(shop)] == ["api"] * 2


def test_whoever_is_suspended_answers_nothing_and_may_begin_again(app, shop, inn, client):
    owner = signed_in(app, shop, inn)
    text = sure(client, inn)
    put(owner, text)
    assert text in owner.text, "what it answered is shown"
    with shop.database.writing() as session:
        watch = session.scalars(select(Watch)).one()
        for _ in range(14):
            session.add(Item(business_id=inn.id, bundle_id=watch.bundle_id, text=text, origin="api", said="parking",
                             would_answer=True, answered=True, probability=watch.share, state="done", label="food",
                             decided_at=promotion.now() - timedelta(minutes=5)))
        session.flush()
        assert promotion.settle(session, watch.bundle_id) == "suspended"
    shop.states.forget()
    told = client.post("/v1/bundles/inquiries/predict", json={"texts": [text]}, headers=inn.staff).json()["predictions"][0]
    assert (told["answered"], told["would_answer"]) == (False, True)
    owner.get("/bundles/inquiries")
    assert "It erred too often" in owner.text
    assert "<svg" in owner.page.text
    assert "answers about" not in owner.text, "the test's promise is not made while it is suspended"
    owner.send("/bundles/inquiries/again")
    assert "promoted once" in owner.text
    with shop.database.reading() as session:
        assert session.scalars(select(Watch)).one().state == "apprentice"


def test_a_message_for_one_person(app, shop, inn, staff):
    other = signed_in(app, shop, inn, "staff", "b@example.jp")
    put(staff, *unclear(1))
    staff.get(DESK + "/all?state=open")
    person = re.findall(r'<option value="([0-9a-f]{32})"', staff.page.text)
    (item,) = items(shop)
    staff.send(f"{DESK}/assign/{item.id}", person=person[0])
    assert staff.path == DESK + "/all"
    assert [item_of(one.get(DESK)) is not None for one in (staff, other)].count(True) == 1
    staff.get(DESK + "/all").send(f"{DESK}/assign/{item.id}", person="0" * 32)
    assert staff.page.status_code == 404


def test_a_viewer_and_another_business_stay_outside(app, shop, inn, clinic, staff):
    put(staff, *unclear(1))
    viewer = signed_in(app, shop, inn, "viewer", "v@example.jp")
    for path in (DESK, DESK + "/all", DESK + "/add"):
        assert viewer.get(path).page.status_code == 403
    other = signed_in(app, shop, clinic, "staff", "c@example.jp")
    (item,) = items(shop)
    assert "qqq" not in other.get(DESK).text + other.get(DESK + "/all").text
    other.get(DESK).send(DESK, item=item.id, label="food")
    assert other.page.status_code == 409
    other.get(DESK).send(f"{DESK}/assign/{item.id}", person="")
    assert other.page.status_code == 409
    assert items(shop)[0].state == "open"


def test_messages_sent_twice_come_once(staff, shop, client, inn):
    staff.get(DESK + "/add")
    once = re.search(r'name="once" value="(\w+)"', staff.page.text)[1]
    for _ in range(2):  # the page loaded again
        staff.send(texts="\n".join(unclear(2)), once=once)
        assert "2 messages went to the desk" in staff.text
    assert len(items(shop)) == 2
    for _ in range(2):
        told = client.post("/v1/bundles/inquiries/predict", json={"texts": unclear(1), "desk": True},
                           headers=inn.staff | {"Idempotency-Key": "a"})
        assert told.status_code == 200
    assert len(items(shop)) == 3


def test_too_many_at_once_are_not_cut(staff, shop):
    put(staff, *(["x"] * 1_001))
    assert staff.page.status_code == 422
    assert "too much at once" in staff.text
    assert staff.page.text.count("\nx") >= 1_000, "nothing typed is lost"
    put(staff, "x" * 20_001)
    assert staff.page.status_code == 422
    assert items(shop) == []
