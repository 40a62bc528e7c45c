"""Versions of a bundle: used and gone back to whole, never to trust that was lost, kept as long as they are told to be."""
from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, corrections, forget, promotion, queue, retention, versions
from machikoba.errors import RequirementError
from machikoba.pack.bundle import EXAMPLES, open_bundle, read_facts, seal, write_file
from machikoba.prove.monitor import Monitor
from machikoba.records.origin import AUDIT, HANDOFF
from machikoba.records.person import Person
from machikoba.store import audit, backup, jobs, restore
from machikoba.store.database import Database, default_url
from machikoba.store.tables import BundleEntry, Business, Correction, Entry, Item, Mark, Version, Watch, now
from machikoba.tasks.classify import Prediction
from tests.store.kept import code

SURE = Prediction("parking", 0.9, True, True)


@pytest.fixture
def own(business, home):
    return home / "businesses" / business / "bundles"


@pytest.fixture
def entry(database, business, home, made, own):
    """A bundle in use that was proved."""
    folder = shutil.copytree(made.path, own / "first.bundle")
    with database.writing() as session:
        return bundles.add(session, business, "inquiries", folder, home, "console")


def learn(database, home, entry, made, own, use=True, proved=True, **facts):
    """A further version, as the worker writes it down; its number."""
    with database.writing() as session:
        found = session.get(BundleEntry, entry.id)
        job = jobs.add(session, entry.business_id, "again", {"name": "inquiries"}, "person:1")
        folder = shutil.copytree(made.path, own / f"{job.id}.bundle")
        if not proved:
            write_file(folder, "bundle.json", {**read_facts(folder).facts, "threshold": None})
            seal(folder)
        job.state = "done"
        version = versions.add(session, found, folder, home, "person:1", job, {"why": "as_good", **facts})
        if use:
            versions.use(session, found, version, home, "person:1")
        return version.number


def use(database, home, entry, number):
    with database.writing() as session:
        found = session.get(BundleEntry, entry.id)
        versions.use(session, found, versions.find(session, found, number, home), home, "person:1")


def state(database, entry):
    with database.reading() as session:
        return session.get(Watch, entry.id).state


def look(database, home, entry):
    """{number: (folder, in use, kept)}."""
    with database.reading() as session:
        return {one.number: (one.folder, one.since is not None, one.removed_at is None)
                for one in versions.history(session, session.get(BundleEntry, entry.id), home)}


def at_work(database, home, entry):
    with database.writing() as session:
        found = session.get(BundleEntry, entry.id)
        promotion.watch(session, found, read_facts(bundles.folder_of(found, home)).facts)


def err(database, entry, wrong=True, n=20):
    """Audits that suspend it, or with wrong=False are all right."""
    with database.writing() as session:
        watch = session.get(Watch, entry.id)
        for _ in range(n):
            session.add(Item(business_id=entry.business_id, bundle_id=entry.id, text="x", origin="api", said="parking",
                             would_answer=True, answered=True, probability=watch.share, state="done",
                             label="food" if wrong else "parking", decided_at=now() - timedelta(minutes=5)))
        session.flush()
        return promotion.settle(session, entry.id)


def test_the_first_version_is_the_bundle_itself(database, home, entry):
    assert look(database, home, entry) == {1: (entry.folder, True, True)}
    with database.reading() as session:
        assert session.scalars(select(Version)).all() == []
        (first,) = versions.history(session, entry, home)
        assert first.facts["qualified"]
        assert first.facts["messages"] > 400
    use(database, home, entry, 1)
    assert code(RequirementError, use, database, home, entry, 2) == "version_unknown"


def test_there_and_back(database, home, entry, made, own):
    at_work(database, home, entry)
    second = learn(database, home, entry, made, own, proved=False)
    found = look(database, home, entry)
    assert (second, [found[n][1:] for n in (1, 2)]) == (2, [(False, True), (True, True)])
    with database.reading() as session:
        assert session.get(BundleEntry, entry.id).folder == found[2][0]
        watch = session.get(Watch, entry.id)
        assert (watch.state, watch.share, watch.number) == ("apprentice", promotion.APPRENTICE_SHARE, 2)
        assert [mark.what for mark in promotion.timeline(session, entry.id)] == ["start", "version"]
    use(database, home, entry, 1)
    use(database, home, entry, 1)
    with database.reading() as session:
        assert session.get(BundleEntry, entry.id).folder == found[1][0]
        watch = session.get(Watch, entry.id)
        assert (watch.state, watch.number) == ("qualified", 3), "its certificate is as it was, with less risk left to spend"
        told = [one.facts for one in session.scalars(select(Entry).where(Entry.action == "bundle.use").order_by(Entry.number))]
        assert told == ['{"before": 1, "number": 2}', '{"before": 2, "number": 1}']
        assert audit.verify(session) is None


def test_nobody_goes_back_to_trust_that_was_lost(database, home, entry, made, own):
    at_work(database, home, entry)
    assert err(database, entry) == "suspended"
    learn(database, home, entry, made, own)
    assert state(database, entry) == "apprentice", "its certificate is of messages like those that did not hold at work"
    use(database, home, entry, 1)
    assert state(database, entry) == "apprentice"
    use(database, home, entry, 2)
    with database.writing() as session:
        session.add(Mark(business_id=entry.business_id, bundle_id=entry.id, what="qualified", audited=90, wrong=0, upper=0.04,
                         lower=0.0))
        session.get(Watch, entry.id).state = "qualified"
    use(database, home, entry, 1)
    assert state(database, entry) == "apprentice", "what another version proved says nothing of it"
    learn(database, home, entry, made, own)
    assert state(database, entry) == "qualified"


def test_begun_again_is_not_trusted_again(database, home, entry, made, own):
    at_work(database, home, entry)
    err(database, entry)
    with database.writing() as session:
        promotion.begin_again(session, session.get(Watch, entry.id), read_facts(home / entry.folder).facts, "person:1")
    learn(database, home, entry, made, own)
    use(database, home, entry, 1)
    assert state(database, entry) == "apprentice"


def test_what_the_one_before_said_is_not_told_to_the_new_ones_monitor(database, home, entry, made, own):
    at_work(database, home, entry)
    with database.writing() as session:
        found = session.get(BundleEntry, entry.id)
        watch = session.get(Watch, entry.id)
        open_, late = queue.take_in(session, found, watch, ["a", "b"], [SURE] * 2, [[]] * 2, "api", lambda: 0.0)
        for item in (open_, late):
            item.held_by = None
        queue.decide(session, found, late.id, "food", "person:1", 1.0)
    learn(database, home, entry, made, own)
    with database.writing() as session:
        queue.decide(session, session.get(BundleEntry, entry.id), open_.id, "food", "person:1", 1.0)
        for item in session.scalars(select(Item)):
            item.decided_at -= timedelta(minutes=5)
        promotion.settle(session, entry.id)
        assert Monitor.from_dict(session.get(Watch, entry.id).monitor).audited == 0
        assert all(item.counted for item in session.scalars(select(Item)))
    err(database, entry, wrong=False, n=2)
    with database.reading() as session:
        assert Monitor.from_dict(session.get(Watch, entry.id).monitor).audited == 2


def test_where_a_correction_comes_from(database, home, entry):
    at_work(database, home, entry)
    with database.writing() as session:
        found, watch = session.get(BundleEntry, entry.id), session.get(Watch, entry.id)
        unsure = Prediction("food", 0.1, False, False)
        for item in queue.take_in(session, found, watch, ["drawn", "handed"], [SURE, unsure], [[]] * 2, "api", lambda: 0.0):
            queue.decide(session, found, item.id, "bath", "person:1", 1.0)
        corrections.add(session, found, "told", "room", "key:1")
        moment = now()
        corrections.add(session, found, "later", "room", "key:1").created_at = moment + timedelta(seconds=1)
        assert {one.text: one.origin for one in corrections.lessons(session, found, moment)} == {
            "drawn": AUDIT, "handed": HANDOFF, "told": HANDOFF}
        assert corrections.since(session, found, moment) == 1


def test_the_newest_are_kept_and_the_one_in_use(database, home, entry, made, own):
    first = home / entry.folder
    for _ in range(6):
        learn(database, home, entry, made, own, use=False)
    found = look(database, home, entry)
    assert [number for number in sorted(found) if found[number][2]] == [1, 3, 4, 5, 6, 7], "the first is in use"
    for path in own.iterdir():
        os.utime(path, (time.time() - 7_200,) * 2)
    with database.writing() as session:
        for one in session.scalars(select(Version).where(Version.removed_at.is_not(None))):
            one.removed_at -= timedelta(hours=2)
    assert retention.sweep(database, home) == {"folders": 1}
    assert sorted(own.iterdir()) == sorted(home / found[n][0] for n in (1, 3, 4, 5, 6, 7))
    assert code(RequirementError, use, database, home, entry, 2) == "version_gone"
    use(database, home, entry, 7)
    assert not look(database, home, entry)[1][2]
    assert first.exists(), "for who still asks it, until the next sweep"
    with database.writing() as session:
        bundles.remove(session, session.get(BundleEntry, entry.id), "console")
    assert not any(kept for _folder, _in_use, kept in look(database, home, entry).values())


def test_a_person_is_forgotten_in_every_version(database, business, home, entry, made, own):
    learn(database, home, entry, made, own)
    second = home / look(database, home, entry)[2][0]
    (someone, *_others) = open_bundle(second).examples()
    with database.writing() as session:
        job = jobs.add(session, business, "again", {"name": "inquiries", "bundle": entry.id, "folder": "x"}, "person:1").id
        audit.alone(session)
        found = forget.find(session, business, Person.known_by([someone["id"]]), home)
        assert ([one.id for one in found.stopped], found.unused, found.unfinished) == ([job], [home / entry.folder], [second])
        forget.erase(session, found, Person.known_by([someone["id"]]), "console", home)
    assert not (home / entry.folder).exists()
    assert [one[1:] for _number, one in sorted(look(database, home, entry).items())] == [(False, False), (True, True)]
    assert code(RequirementError, use, database, home, entry, 1) == "version_gone"


def test_a_version_that_lies_elsewhere_is_found_once_and_never_adopted_anew(database, business, home, made, own):
    lying = shutil.copytree(made.path, home / "bundles" / "inquiries.bundle")
    with database.writing() as session:
        bundles.adopt(session, business, [lying], home)
        entry = bundles.find(session, business, "inquiries")
    learn(database, home, entry, made, own)
    with database.writing() as session:
        bundles.adopt(session, business, [lying], home)
        assert bundles.find(session, business, "inquiries").id == entry.id
        person = Person.known_by([open_bundle(lying).examples()[0]["id"]])
        found = forget.find(session, business, person, home)
        assert lying in found.unfinished, "it is somebody's own folder: made again, not deleted"
        assert forget.find_lying(session, person, home).rows == []


def test_old_messages_go_from_every_version(database, business, home, entry, made, own):
    learn(database, home, entry, made, own)
    with database.writing() as session:
        retention.set_days(session, session.get(Business, business), 30, "console")
        session.get(BundleEntry, entry.id).created_at -= timedelta(days=40)
    retention.sweep(database, home)
    folders = [home / folder for folder, _in_use, _kept in look(database, home, entry).values()]
    assert [(path.exists(), (path / EXAMPLES).exists()) for path in folders] == [(True, False)] * 2


def test_a_backup_holds_the_versions(database, home, entry, made, own, tmp_path):
    learn(database, home, entry, made, own)
    file = backup.make(home, database)["file"]
    new, target = Database(default_url(tmp_path / "new")), tmp_path / "new"
    restore.restore(tmp_path / file, target, new)
    assert look(new, target, entry) == look(database, home, entry)
    use(new, target, entry, 1)
    with new.reading() as session:
        assert session.get(BundleEntry, entry.id).folder == entry.folder
        assert session.scalars(select(Correction)).all() == []
    new.close()
