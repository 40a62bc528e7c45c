"""What is over its time goes; what a wrong clock says does not count."""
from __future__ import annotations

import os
import shutil
from datetime import timedelta

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, corrections, retention
from machikoba.engine.runtime import Engine
from machikoba.errors import OptionError
from machikoba.pack import erased
from machikoba.pack.bundle import EXAMPLES, open_bundle
from machikoba.store import audit, jobs, people
from machikoba.store.tables import BundleEntry, Business, Correction, Entry, Job, Write, now
from machikoba.work import WorkFolder


@pytest.fixture
def entry(database, business, home, made):
    """A bundle in use, made and corrected 40 days ago."""
    folder = shutil.copytree(made.path, home / "businesses" / business / "bundles" / "1.bundle")
    with database.writing() as session:
        found = bundles.add(session, business, "inquiries", folder, home, "console")
        found.created_at -= timedelta(days=40)
        for text, days in (("old", 40), ("new", 1)):
            corrections.add(session, found, text, "bath", "person:1").created_at -= timedelta(days=days)
        job = jobs.add(session, business, "tune", {}, "person:1")
        job.state, job.ended_at = "done", now() - timedelta(days=40)
    return found


def keep(database, business, days):
    with database.writing() as session:
        retention.set_days(session, session.get(Business, business), days, "console")


def texts(database):
    with database.reading() as session:
        return sorted(one.text for one in session.scalars(select(Correction)))


def test_without_a_number_of_days_nothing_goes(database, business, home, entry):
    assert retention.sweep(database, home) == {}
    assert texts(database) == ["new", "old"]
    assert len(open_bundle(home / entry.folder).examples()) == 740


def test_what_is_older_goes_and_the_bundle_still_answers(database, business, home, entry):
    keep(database, business, 30)
    assert retention.sweep(database, home) == {"corrections": 1, "tasks": 1, "messages": 740}
    assert texts(database) == ["new"]
    assert not (home / entry.folder / EXAMPLES).exists()
    assert Engine(home).load(home / entry.folder).predict(["無料の駐車場"])[0].label == "parking"
    with database.reading() as session:
        told = session.scalars(select(Entry).where(Entry.action == "sweep")).one()
        assert told.facts == '{"corrections": 1, "messages": 740, "tasks": 1}'
        assert audit.verify(session) is None
    assert retention.sweep(database, home) == {}


def test_only_the_business_that_wants_it(database, business, home, entry):
    with database.writing() as session:
        other = people.add_business(session, "Clinic", "console").id
    keep(database, other, 1)
    assert retention.sweep(database, home) == {}
    assert texts(database) == ["new", "old"]


def test_a_clock_that_is_behind_deletes_nothing(database, business, home, entry, monkeypatch):
    keep(database, business, 30)
    monkeypatch.setattr(retention, "now", lambda: now() - timedelta(hours=1))
    assert retention.sweep(database, home) == {}
    assert texts(database) == ["new", "old"]


def test_a_clock_that_leaps_ahead_is_believed_an_hour_later(database, business, home, entry, monkeypatch):
    keep(database, business, 90)
    leapt = now() + timedelta(days=60)
    for module in (retention, audit):
        monkeypatch.setattr(module, "now", lambda: leapt)
    assert retention.sweep(database, home) == {}
    assert texts(database) == ["new", "old"]
    with monkeypatch.context() as back:  # it was wrong, and was set right before the hour was over
        back.setattr(retention, "now", now)
        assert retention.sweep(database, home) == {}
    leapt += timedelta(hours=1)
    assert retention.sweep(database, home)["corrections"] == 1
    assert texts(database) == ["new"]


def old(path, days=1):
    when = (now() - timedelta(days=days)).timestamp()
    os.utime(path, (when, when))
    return path


def test_files_that_nobody_waits_for(database, business, home, entry, made):
    own = home / "businesses" / business
    (own / "uploads").mkdir()
    for name in ("waits.csv", "orphan.csv", ".0a0a0a0a.draft.csv", "fresh.csv"):
        (own / "uploads" / name).write_text("x")
    for name in ("waits.csv", "orphan.csv", ".0a0a0a0a.draft.csv"):
        old(own / "uploads" / name)
    with database.writing() as session:
        making = jobs.add(session, business, "tune", {"upload": "waits.csv"}, "person:1").id
        second = shutil.copytree(made.path, own / "bundles" / "2.bundle")
        assert bundles.add(session, business, "inquiries", second, home, "x").folder.endswith("2.bundle")
        session.add(Write(business_id=business, key="k", digest="d", status=201, answer={},
                          created_at=now() - timedelta(hours=25)))
        session.get(BundleEntry, entry.id).removed_at = now() - timedelta(hours=2)
    for name in ("1.bundle", "2.bundle", f"{making}.bundle", ".lost.bundle.1.2.draft", ".2.bundle.remade"):
        (own / "bundles" / name).mkdir(exist_ok=True)
        old(own / "bundles" / name)
    (own / "bundles" / ".gone.bundle.gone").mkdir()
    WorkFolder(home / "work" / "a").save("k", {})
    WorkFolder(own / "work" / "b").save("k", {})
    old(home / "work" / "a", 15)
    old(own / "work" / "b", 15)
    assert retention.sweep(database, home) == {"files": 2, "folders": 2, "answers": 1}
    assert sorted(path.name for path in (own / "uploads").iterdir()) == ["fresh.csv", "waits.csv"]
    assert sorted(path.name for path in (own / "bundles").iterdir()) == sorted([
        ".2.bundle.remade", "2.bundle", f"{making}.bundle"])
    assert [*(home / "work").iterdir(), *(own / "work").iterdir()] == []


def test_an_unfinished_bundle_gets_its_task_and_is_not_emptied_before(database, business, home, entry):
    keep(database, business, 30)
    path = home / entry.folder
    erased.erase(open_bundle(path), lambda example: "駐車場" in example["text"])
    retention.sweep(database, home)
    retention.sweep(database, home)
    assert (path / EXAMPLES).exists()
    with database.reading() as session:
        assert [(job.kind, job.options["folder"]) for job in session.scalars(select(Job).where(Job.state == "queued"))] == [
            ("remake", entry.folder)]


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_days_that_cannot_be(database, business, days):
    with pytest.raises(OptionError) as caught:
        keep(database, business, days)
    assert caught.value.code == "days_wrong"
