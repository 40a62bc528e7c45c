"""A sorter learns from what people decided: begun on its page, followed, told in words, and taken back."""
from __future__ import annotations

import asyncio
import re
import shutil

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, promotion, versions
from machikoba.language import use_language
from machikoba.pack.bundle import open_bundle
from machikoba.store import jobs
from machikoba.store.tables import Entry, Item, Job, Mark, Version, Watch
from machikoba.tasks.classify import Prediction
from machikoba.web.bundles import state_of, to_the_desk
from machikoba.web.pages.versions import why
from machikoba.worker.run import Worker
from tests.conftest import messages
from tests.web.conftest import owner_key
from tests.web.visitor import signed_in

NEW = messages(760)[700:]  # the bundle was made of the 700 before


@pytest.fixture
def owner(app, shop, inn):
    return signed_in(app, shop, inn)


def work(shop):
    worker = Worker(shop.home, shop.database, "w")
    while (lease := jobs.take(shop.database, "w")) is not None:
        worker.work(lease)


def correct(client, inn, rows):
    for text, label in rows:
        answer = client.post("/v1/bundles/inquiries/corrections", headers=inn.staff, json={"text": text, "label": label})
        assert answer.status_code == 201, answer.text


def test_it_learns_is_told_and_taken_back(owner, client, shop, inn):
    assert "Learn from the decisions" not in owner.get("/bundles/inquiries").text, "there is nothing to learn yet"
    assert owner.send("/bundles/inquiries/learn").page.status_code == 409
    assert "Nobody has decided a message" in owner.text
    correct(client, inn, NEW)
    assert f"{len(NEW)} messages were decided since this version was made" in owner.get("/bundles/inquiries").text
    owner.send("/bundles/inquiries/learn")
    job = owner.path
    assert job.startswith("/work/")
    assert "waits for its turn" in owner.get("/").text
    owner.get("/bundles/inquiries").send("/bundles/inquiries/learn")
    assert owner.path == job, "what is learning already is followed"
    work(shop)
    owner.get(job)
    assert f"New messages: {len(NEW)}." in owner.text
    assert re.search(r"The new version is (in use|kept, but not in use)\.", owner.text)
    with shop.database.reading() as session:
        first, second = session.scalars(select(Version).order_by(Version.number))
        facts, used = second.facts, second.since is not None
        assert (second.number, first.facts["why"]) == (2, versions.ORIGINAL)
        assert facts["messages"] > first.facts["messages"]
        assert used == (facts["why"] == versions.AS_GOOD)
        assert facts["comparison"]["rows"] > 100
    owner.get("/bundles/inquiries/versions")
    assert owner.page.text.count("Let this one answer") == 1
    other = 1 if used else 2
    owner.send("/bundles/inquiries/versions", number=str(other))
    assert owner.path == "/bundles/inquiries/versions"
    with shop.database.reading() as session:
        entry = bundles.find(session, inn.id, "inquiries")
        assert [one.number for one in session.scalars(select(Version).where(Version.since.is_not(None)))] == [other]
        assert entry.folder == session.scalars(select(Version.folder).where(Version.number == other)).one()
        assert session.scalars(select(Entry).where(Entry.action == "bundle.use")).all()
    answer = client.post("/v1/bundles/inquiries/predict", headers=inn.staff, json={"texts": ["駐車場はありますか"]})
    assert answer.status_code == 200
    owner.get("/bundles/inquiries/versions").send("/bundles/inquiries/versions", number="9")
    assert "There is no version of this number" in owner.text


def test_only_an_owner_lets_it_learn_or_go_back(app, client, shop, inn):
    correct(client, inn, NEW[:3])
    staff = signed_in(app, shop, inn, "staff", "s@example.jp")
    assert "Learn from them" not in staff.get("/bundles/inquiries").text
    assert staff.send("/bundles/inquiries/learn").page.status_code == 403
    assert staff.get("/bundles/inquiries/versions").page.status_code == 200
    assert staff.send("/bundles/inquiries/versions", number="1").page.status_code == 403
    for path in ("tune-again", "versions/1/use"):
        assert client.post(f"/v1/bundles/inquiries/{path}", headers=inn.staff).status_code == 403


def test_who_was_suspended_comes_back_as_an_apprentice(owner, client, shop, inn):
    """Going back is no way around a suspension."""
    correct(client, inn, NEW)
    owner.get("/desk/inquiries/add").send(texts="駐車場はありますか")  # at work
    with shop.database.writing() as session:
        found = session.scalars(select(Watch)).one()
        found.state = "suspended"
        session.add(Mark(bundle_id=found.bundle_id, business_id=inn.id, what="suspended", audited=40, wrong=9, upper=0.4,
                         lower=0.1))
    owner.get("/bundles/inquiries").send("/bundles/inquiries/learn")
    work(shop)
    for number in ("2", "1", "2", "1"):
        owner.get("/bundles/inquiries/versions").send("/bundles/inquiries/versions", number=number)
        with shop.database.reading() as session:
            assert session.scalars(select(Version.number).where(Version.since.is_not(None))).one() == int(number)
            assert session.scalars(select(Watch.state)).one() == "apprentice"
    answer = client.post("/v1/bundles/inquiries/predict", headers=inn.staff, json={"texts": [NEW[0][0]]})
    assert not answer.json()["predictions"][0]["answered"]


def test_by_the_api(client, shop, inn):
    owner = owner_key(shop.database)
    assert client.post("/v1/bundles/inquiries/tune-again", headers=owner).status_code in (404, 409)
    listed = client.get("/v1/bundles/inquiries/versions", headers=inn.viewer).json()["versions"]
    assert [(one["number"], one["kept"], one["facts"]["why"]) for one in listed] == [(1, True, "original")]
    assert client.get("/v1/bundles/none/versions", headers=inn.viewer).status_code == 404


def test_a_work_that_fails_says_why(owner, client, shop, inn):
    """Corrections that say what it knows already."""
    with shop.database.reading() as session:
        folder = shop.home / bundles.find(session, inn.id, "inquiries").folder
    known = [(one["text"], one["label"]) for one in open_bundle(folder).examples()[:3]]
    correct(client, inn, known)
    owner.get("/bundles/inquiries").send("/bundles/inquiries/learn")
    work(shop)
    owner.get(owner.path)
    assert "teach it nothing that it has not learnt already" in owner.text
    with shop.database.reading() as session:
        assert session.scalars(select(Job.state).where(Job.kind == "again")).one() == "failed"
        assert not session.scalars(select(Version)).all()


def test_a_version_that_was_just_replaced_answers_nothing_and_proves_nothing(shop, inn, made, monkeypatch):
    """Whoever still has it in hand, for a second."""
    with shop.database.writing() as session:
        entry = bundles.find(session, inn.id, "inquiries")
        old = shop.engine.open(bundles.folder_of(entry, shop.home))
        assert asyncio.run(state_of(shop, inn.id, "inquiries", old)) == ""
        entry.folder = bundles.kept_as(shutil.copytree(made.path, old.bundle.path.with_name("2.bundle")), shop.home)
    shop.states.forget()
    assert asyncio.run(state_of(shop, inn.id, "inquiries", old)) == "apprentice"
    monkeypatch.setattr(promotion, "QUALIFIED_SHARE", 1.0)
    said = [Prediction("parking", 0.9, False, True)]
    with shop.database.writing() as session:
        to_the_desk(session, shop, inn.id, "inquiries", old, ["a"], said, "api")
        assert [item.probability for item in session.scalars(select(Item))] == [None]
        new = shop.engine.open(old.bundle.path.with_name("2.bundle"))
        to_the_desk(session, shop, inn.id, "inquiries", new, ["b"], said, "api")
        assert session.scalars(select(Item.probability).where(Item.text == "b")).one() == 1.0


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("code", ["as_good", "worse", "few", "unknown", "unproved", "changed"])
def test_every_end_is_told_in_plain_words(language, code):
    use_language(language)
    try:
        found = why({"why": code, "comparison": None if code == "unknown" else {"rows": 300, "old_right": 280, "new_right": 285}})
    finally:
        use_language(None)
    assert found
    assert ("285" in found) == (code in ("as_good", "worse", "unproved"))
    assert not [word for word in ("out of fold", "interval", "bundle", "95%", "一式", "信頼区間") if word in found]
