"""Learning from corrections as a job: once, through every kind of end; its versions kept, swept, forgotten, backed up."""
from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, corrections, promotion, retention, versions
from machikoba.desk.forget import erase, find, remake_later
from machikoba.errors import RequirementError
from machikoba.pack.bundle import open_bundle
from machikoba.records.person import Person
from machikoba.store import audit, backup, jobs, restore
from machikoba.store.database import Database, default_url
from machikoba.store.tables import BundleEntry, Correction, Entry, Job, Mark, Version, Watch
from machikoba.worker import again as worker_again
from tests.conftest import messages
from tests.store.kept import code
from tests.worker.conftest import BUSINESS

pytestmark = pytest.mark.usefixtures("in_use")
PERSON = "山吹色の傘"
NEW = [*messages(760)[700:], (f"駐車場に{PERSON}を忘れました", "parking")]


def entry_of(session):
    return bundles.find(session, BUSINESS, "受付")


def put(database, home, rows=NEW):
    with database.writing() as session:
        entry = entry_of(session)
        for text, label in rows:
            corrections.add(session, entry, text, label, "person:1")
    with database.writing() as session:
        return jobs.add(session, BUSINESS, "again", versions.options(session, entry_of(session), home), "person:1").id


def learnt(database, home, worker, rows=NEW):
    job = put(database, home, rows)
    worker.work(jobs.take(database, "w"))
    with database.reading() as session:
        found = session.get(Job, job)
    assert found.state == "done", found.error
    return found.result


def all_of(database, table):
    with database.reading() as session:
        return list(session.scalars(select(table)))


def go(database, home, number):
    with database.writing() as session:
        entry = entry_of(session)
        versions.use(session, entry, versions.find(session, entry, number, home), home, "person:1")


def test_what_was_corrected_is_learnt_and_the_bundle_keeps_its_name(home, database, worker):
    result = learnt(database, home, worker)
    first, second = sorted(all_of(database, Version), key=lambda one: one.number)
    assert (first.number, second.number) == (1, 2)
    assert result["used"] == (second.since is not None) == (first.since is None)
    (entry,) = all_of(database, BundleEntry)
    assert entry.folder == (second if result["used"] else first).folder
    assert len(all_of(database, Correction)) == len(NEW), "they stay with the bundle"
    assert [one["origin"] for one in open_bundle(home / second.folder).examples() if PERSON in one["text"]] == ["handoff"]
    with database.reading() as session:
        assert audit.verify(session) is None
        text = " ".join(one.facts for one in session.scalars(select(Entry)))
    assert PERSON not in text


def test_what_an_earlier_start_finished_is_not_made_again(home, database, worker, monkeypatch):
    made = []
    whole = worker_again.again
    monkeypatch.setattr(worker_again, "again", lambda *told: made.append(whole(*told)))
    monkeypatch.setattr(worker_again, "_into_use", lambda *_: 1 / 0)
    job = put(database, home)
    worker.work(jobs.take(database, "w"))
    monkeypatch.undo()
    monkeypatch.setattr(worker_again, "again", lambda *_: pytest.fail("made twice"))
    with database.writing() as session:
        assert session.get(Job, job).state == "failed"
        assert not session.scalars(select(Version)).all()
        session.get(Job, job).state = "queued"
    worker.work(jobs.take(database, "w"))
    with database.reading() as session:
        assert session.get(Job, job).state == "done"
    assert len(made) == 1
    assert len(all_of(database, Version)) == 2


def test_stopped_at_its_very_end_it_leaves_nothing(home, database, worker, monkeypatch):
    whole = worker_again.compare

    def stopped(*told):
        with database.writing() as session:
            jobs.cancel(session, session.get(Job, job), "person:1")
        return whole(*told)

    monkeypatch.setattr(worker_again, "compare", stopped)
    job = put(database, home)
    worker.work(jobs.take(database, "w"))
    with database.reading() as session:
        assert session.get(Job, job).state == "cancelled"
    assert not all_of(database, Version)
    assert [path.name for path in (home / "businesses" / BUSINESS / "bundles").iterdir()] == ["1.bundle"]


def test_a_bundle_that_was_replaced_meanwhile_takes_nothing_over(home, database, worker, made):
    job = put(database, home)
    with database.writing() as session:
        other = home / "businesses" / BUSINESS / "bundles" / "2.bundle"
        shutil.copytree(made.path, other)
        bundles.add(session, BUSINESS, "受付", other, home, "person:1")
    worker.work(jobs.take(database, "w"))
    with database.reading() as session:
        assert session.get(Job, job).error["code"] == "bundle_unknown"
        assert entry_of(session).folder.endswith("2.bundle")


def test_it_learns_once_at_a_time_and_only_where_there_is_something(home, database):
    with database.reading() as session:
        assert code(RequirementError, versions.options, session, entry_of(session), home) == "corrections_none"
    put(database, home)
    with database.reading() as session:
        assert code(RequirementError, versions.options, session, entry_of(session), home) == "learning_already"


def test_only_the_newest_are_kept_and_the_one_in_use(home, database, worker, made):
    learnt(database, home, worker)
    go(database, home, 1)
    with database.writing() as session:
        entry = entry_of(session)
        job = session.scalars(select(Job)).first()
        for number in range(3, 9):
            folder = home / "businesses" / BUSINESS / "bundles" / f"{number}.bundle"
            shutil.copytree(made.path, folder)
            versions.add(session, entry, folder, home, "person:1", job, {"why": versions.FEW})
    kept = sorted(one.number for one in all_of(database, Version) if one.removed_at is None)
    assert kept == [1, 4, 5, 6, 7, 8], "the first is in use"
    retention.sweep(database, home)
    assert (home / "businesses" / BUSINESS / "bundles" / "3.bundle").exists(), "somebody may be asking it just now"
    with database.writing() as session:
        for one in session.scalars(select(Version).where(Version.removed_at.is_not(None))):
            one.removed_at -= timedelta(hours=2)
    for path in (home / "businesses" / BUSINESS / "bundles").iterdir():
        os.utime(path, (0, 0))
    retention.sweep(database, home)
    left = {path.name for path in (home / "businesses" / BUSINESS / "bundles").iterdir()}
    assert left == {"1.bundle", "4.bundle", "5.bundle", "6.bundle", "7.bundle", "8.bundle"}
    with pytest.raises(RequirementError):
        go(database, home, 2)
    go(database, home, 8)
    assert {one.number for one in all_of(database, Version) if one.since} == {8}


def test_how_it_stands_begins_anew_and_a_suspension_is_not_got_around(home, database, worker):
    learnt(database, home, worker)
    go(database, home, 1)
    with database.writing() as session:
        entry = entry_of(session)
        found = promotion.watch(session, entry, open_bundle(home / entry.folder).facts)
        assert found.state == "qualified"
    go(database, home, 2)
    (found,) = all_of(database, Watch)
    assert found.number == 2
    certified = open_bundle(home / all_of(database, BundleEntry)[0].folder).facts["threshold"] is not None
    assert found.state == ("qualified" if certified else "apprentice")
    with database.writing() as session:
        watch = session.scalars(select(Watch)).one()
        watch.state = "suspended"
        session.add(Mark(bundle_id=watch.bundle_id, business_id=BUSINESS, what="suspended", audited=9, wrong=5, upper=0.9,
                         lower=0.2))
    for number in (1, 2, 1):
        go(database, home, number)
        assert all_of(database, Watch)[0].state == "apprentice"


def test_who_is_forgotten_is_in_no_version(home, database, worker):
    learnt(database, home, worker)
    for number in (1, 2):  # whichever is in use
        go(database, home, number)
    go(database, home, 1)
    person = Person.known_by([PERSON])
    with database.writing() as session:
        audit.alone(session)
        found = find(session, BUSINESS, person, home)
        erase(session, found, person, "console", home)
        remake_later(session, found, "console", home)
    second = next(one for one in all_of(database, Version) if one.number == 2)
    assert second.removed_at is not None
    assert not (home / second.folder).exists()
    with pytest.raises(RequirementError):
        go(database, home, 2)
    for path in (home / "businesses").rglob("*"):
        assert not path.is_file() or PERSON.encode() not in path.read_bytes(), path


def test_versions_are_backed_up_and_come_back(home, database, worker, tmp_path):
    result = learnt(database, home, worker)
    file = backup.make(home, database)["file"]
    other, elsewhere = tmp_path / "other", Database(default_url(tmp_path / "other"))
    restore.restore(Path(file), other, elsewhere)
    assert {one.number for one in all_of(elsewhere, Version)} == {1, 2}
    number = 1 if result["used"] else 2
    with elsewhere.writing() as session:
        entry = entry_of(session)
        versions.use(session, entry, versions.find(session, entry, number, other), other, "person:1")
    assert open_bundle(other / all_of(elsewhere, BundleEntry)[0].folder).examples()
    elsewhere.close()
