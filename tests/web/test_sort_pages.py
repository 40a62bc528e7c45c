"""From a file without kinds to a sorter, as a browser without a script does it."""
from __future__ import annotations

import html
import os
import re
import time

import numpy as np
import pytest
from sqlalchemy import select

from machikoba.desk.forget import erase, find, totals
from machikoba.desk.retention import sweep
from machikoba.records.person import Person
from machikoba.sort import folder as place
from machikoba.sort import kept
from machikoba.store import audit, jobs
from machikoba.store.tables import Job
from machikoba.web.pages import outlooks
from machikoba.worker import sort as worker_sort
from machikoba.worker.run import Worker
from tests.conftest import WORDS, messages
from tests.web.visitor import signed_in

ROWS = messages(160)


class Reader:
    """Stands for a base: messages of one kind lie together."""

    def layers(self, texts):
        kinds = dict(ROWS)
        rng = np.random.default_rng(0)
        centres = {kind: rng.normal(size=16) for kind in WORDS}
        return {"last": np.stack([centres[kinds.get(text, "bath")] + 0.5 * rng.normal(size=16) for text in texts])}

    def rest(self):
        pass


@pytest.fixture
def owner(app, shop, inn, monkeypatch):
    monkeypatch.setattr(worker_sort, "readers", lambda *_: [Reader()])
    return signed_in(app, shop, inn)


def work(shop):
    worker = Worker(shop.home, shop.database, "w")
    while (lease := jobs.take(shop.database, "w")) is not None:
        worker.work(lease)


def begun(owner, shop, rows=ROWS):
    """A sorting that waits for its first kind; its address."""
    file = "本文,日付\n" + "".join(f"{text},2026-02-{1 + i % 28:02}\n" for i, (text, _kind) in enumerate(rows))
    owner.get("/start").send("/start", files={"file": ("受付.csv", file.encode())})
    assert "No column says what kind" in owner.text
    owner.send(owner.path + "/sort", text="本文", sheet="")
    assert "waits" in owner.text
    work(shop)
    owner.get(owner.path)
    (address,) = re.findall(r'href="(/sort/\w+)"', owner.page.text)
    return owner.get(address).path.removesuffix("/kinds")


def shown(owner):
    """The message that is asked."""
    item = re.search(r'name="item" value="([^"]+)"', owner.page.text)[1]
    text = html.unescape(re.search(r"<blockquote[^>]*>(.*?)</blockquote>", owner.page.text, re.S)[1])
    return item, text


def labels(owner):
    """Name of each kind on its button → its number."""
    found = re.findall(r'<button name="label" value="(\d+)" class="quiet"[^>]*>(?:<kbd>.</kbd> )?([^<]+?) ?<span',
                       owner.page.text)
    return {html.unescape(name): number for number, name in found}


def sat(owner, address, n):
    kinds = dict(ROWS)
    owner.get(address)
    for _turn in range(n):
        item, text = shown(owner)
        known = labels(owner)
        kind = kinds[text]
        owner.send(address, item=item, seconds="3", **({"label": known[kind]} if kind in known else {"new": kind}))
        assert owner.page.status_code == 200, owner.text


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_from_a_file_without_kinds_to_a_sorter(owner, shop, inn):
    address = begun(owner, shop)
    assert owner.path == address + "/kinds", "kinds are proposed first"
    proposed = re.findall(r'id="name-(\d+)" name="name-\d+" value="([^"]+)"', owner.page.text)
    assert len(proposed) >= 2
    assert len({name for _number, name in proposed}) == len(proposed)
    owner.send(address + "/kinds", do="take", chosen=["0"], **{"name-0": "parking"})
    assert owner.path == address
    sat(owner, address, 60)
    assert "60 messages sorted" in owner.text
    assert "3 minutes" in owner.text
    sitting = shop.sortings._open[place.place(shop.home, inn.id, address.rpartition("/")[2])].session
    until(lambda: sitting.lesson is not None and sitting.lesson.steps > 10)
    owner.get(address)
    assert "picked by chance" in owner.text
    owner.send(address + "/make")
    assert owner.heading == "受付 (sorted).csv"
    look = owner.path
    assert "60 messages were read" in owner.text
    owner.send(look, text="Message", label="Kind", name="受付", target_error="0.05", rungs="words", none_label="")
    assert owner.path == look + "/cost"
    owner.send(look + "/run")
    work(shop)
    with shop.database.reading() as session:
        job = session.get(Job, look.rpartition("/")[2])
        assert job.state == "done", job.error
    assert owner.get("/bundles/受付").page.status_code == 200
    assert "受付.csv" in owner.get("/").text, "the sorting is still there, to go on"


def test_kinds_are_renamed_merged_and_parted_at_will(owner, shop):
    address = begun(owner, shop)
    owner.send(address + "/kinds", do="new", name=" ja  ")
    owner.send(address + "/kinds", do="new", name="nein")
    sat_one = owner.get(address)
    for name in ("ja", "ja", "nein", "nein"):
        item, _text = shown(sat_one)
        owner.send(address, item=item, label=labels(owner)[name])
    known = labels(owner)
    owner.send(address + "/kinds", do="rename", label=known["ja"], name="yes")
    assert "yes" in owner.text
    owner.get(address + "/kinds").send(address + "/kinds", do="rename", label=known["ja"], name="NEIN")
    assert owner.page.status_code == 409, "a name is there once"
    owner.send(address + "/kinds", do="merge", label=known["nein"], into=known["ja"])
    assert set(labels(owner.get(address))) == {"yes"}
    first = owner.get(f"{address}/kinds/{known['ja']}")
    ids = re.findall(r'name="message" value="(\w+)"', first.page.text)
    assert len(ids) == 4
    owner.send(f"{address}/kinds/{known['ja']}", name="again", message=ids[:1])
    assert set(labels(owner.get(address))) == {"yes", "again"}
    owner.get(f"{address}/kinds/{known['ja']}").send(f"{address}/kinds/{known['ja']}", name="all", message=ids[1:])
    assert owner.page.status_code == 409, "a kind does not lose all its messages"
    assert owner.get(f"{address}/kinds/99").page.status_code == 404
    owner.get(address + "/kinds").send(address + "/kinds", do="new", name="  ")
    assert "needs a name" in owner.text


def test_what_cannot_be_done_is_told_and_changes_nothing(owner, shop):
    address = begun(owner, shop)
    owner.send(address + "/kinds", do="new", name="x")
    item, _text = shown(owner.get(address))
    for form in ({"item": item, "label": "7"}, {"item": "nothing", "label": "0"}, {"item": item, "label": "a"}, {"item": item},
                 {"item": item, "new": "y" * 61}):
        owner.get(address).send(address, **form)
        assert owner.page.status_code == 409, form
        assert shown(owner)[0] == item
    owner.get(address).send(address + "/make")
    assert owner.page.status_code == 409
    assert "Not enough is sorted yet" in owner.text
    answer = owner.client.post(address, headers={"Accept": "application/json"}, data={
        "csrf": re.search(r'name="csrf" value="([^"]*)"', owner.page.text)[1], "item": item, "label": "0"})
    assert shown(owner.get(address))[0] in answer.json()["html"], "the script shows what the page would"
    owner.send(address, undo="1")
    assert shown(owner)[0] == item


def test_who_may_sort(app, shop, inn, owner):
    address = begun(owner, shop)
    owner.send(address + "/kinds", do="new", name="x")
    staff, viewer = signed_in(app, shop, inn, "staff", "s@example.jp"), signed_in(app, shop, inn, "viewer", "v@example.jp")
    assert staff.get(address).page.status_code == 200
    assert shown(staff)[0] != shown(owner.get(address))[0], "two people never get the same"
    assert staff.send(address + "/make").page.status_code == 403
    assert staff.get(address).send(address + "/delete").page.status_code == 403
    assert viewer.get(address).page.status_code == 403
    assert "受付.csv" not in viewer.get("/").text
    assert owner.get("/sort/" + "0" * 32).page.status_code == 404


def test_a_sorting_is_deleted_with_its_messages(owner, shop, inn):
    address = begun(owner, shop)
    folder = place.place(shop.home, inn.id, address.rpartition("/")[2])
    assert folder.is_dir()
    owner.get(address + "/kinds").send(address + "/delete")
    assert owner.path == "/"
    assert not folder.exists()
    assert "受付.csv" not in owner.text
    assert owner.get(address).page.status_code == 409
    assert "no longer there" in owner.text


def test_who_is_forgotten_is_in_no_sorting(owner, shop, inn):
    rows = [*ROWS, ("山田花子です。予約を取り消してください", "room")]
    address = begun(owner, shop, rows)
    folder = place.place(shop.home, inn.id, address.rpartition("/")[2])
    assert "予約を取り消して" in (folder / place.MESSAGES).read_text()
    owner.get(address + "/kinds")
    person = Person.known_by(["予約を取り消して"])
    with shop.database.writing() as session:
        audit.alone(session)
        found = find(session, inn.id, person, shop.home)
        assert totals([found])["sortings"] == 1
        erase(session, found, person, "console", shop.home)
    assert all("予約を取り消して".encode() not in path.read_bytes() for path in folder.iterdir())
    assert owner.get(address + "/kinds").page.status_code == 200


def test_a_sorting_goes_with_its_task(owner, shop, inn):
    address = begun(owner, shop)
    folder = place.place(shop.home, inn.id, address.rpartition("/")[2])
    with shop.database.writing() as session:
        session.delete(session.scalars(select(Job).where(Job.kind == "sort")).one())
    sweep(shop.database, shop.home)
    assert folder.exists(), "perhaps it is just being made"
    os.utime(folder, (0, 0))
    sweep(shop.database, shop.home)
    assert not folder.exists()


def test_of_few_messages_no_kinds_are_called_alike(owner, shop, inn):
    """Chance looks like likeness there."""
    address = begun(owner, shop)
    for name in ("one", "other"):
        owner.send(address + "/kinds", do="new", name=name)
    folder = place.place(shop.home, inn.id, address.rpartition("/")[2])
    with shop.sortings.at(folder) as session:
        ids = session.pool.ids[:16]
        for i, message in enumerate(ids):
            session.do("a", {"do": "answer", "message": message, "label": i % 2})
        for n, known in ((16, True), (14, False)):
            for message in ids[n:]:
                session.do("a", {"do": "withdraw", "message": message})
            session.lesson = kept.Lesson(None, 0, {"mixed": [{"labels": [0, 1], "crossed": 6, "answers": 16, "share": 0.4}]})
            assert bool(outlooks.advice(session)["mixed"]) == known
