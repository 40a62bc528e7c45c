"""A store that is not there, too old, too new, changed from outside, or whose tasks nobody does."""
from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from machikoba.desk import bundles
from machikoba.doctor import store
from machikoba.doctor.finding import BAD, OK, WARN
from machikoba.store import jobs
from machikoba.store.tables import Job, now
from tests.store.test_audit import unguard


@pytest.fixture
def look(home, url, monkeypatch):
    """Examines the test's database."""
    monkeypatch.setenv("MACHIKOBA_DATABASE", url)
    return lambda: store.examine(home)


def states(found):
    return [(finding.name, finding.state) for finding in found.findings]


def test_a_store_in_order(look, database, business, home):
    with database.writing() as session:
        bundles.add(session, business, "a", home / "bundles" / "a.bundle", home, "console")
        bundles.remove(session, bundles.add(session, business, "b", home / "b", home, "console"), "console")
    found = look()
    assert states(found) == [("store", OK), ("audit", OK), ("tasks", OK)]
    assert found.bundles == [home / "bundles" / "a.bundle"]
    assert now() - found.newest_entry < timedelta(minutes=1)


def test_none_is_made(home, monkeypatch):
    assert states(store.examine(home)) == [("store", OK)]
    assert not home.exists()


def test_an_empty_one_is_brought_up_to_date_at_the_start(look, url):
    found = look()
    assert states(found) == [("store", OK if url.startswith("sqlite") else WARN)]


def test_of_a_newer_version(look, database):
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert states(look()) == [("store", BAD)]


def test_not_reachable(home, monkeypatch):
    monkeypatch.setenv("MACHIKOBA_DATABASE", "postgresql://nobody:secret-word@127.0.0.1:9/none")
    finding = store.examine(home).findings[0]
    assert (finding.name, finding.state) == ("store", BAD)
    assert "secret-word" not in str(finding)
    monkeypatch.setenv("MACHIKOBA_DATABASE", "mysql://a")
    assert states(store.examine(home)) == [("store", BAD)]


def test_a_damaged_file(home, monkeypatch):
    home.mkdir()
    (home / "machikoba.sqlite").write_bytes(b"no database " * 1_000)
    finding = store.examine(home).findings[0]
    assert (finding.name, finding.state) == ("store", BAD)
    assert finding.next


def test_an_audit_that_was_changed(look, database, business):
    with database.writing() as session:
        jobs.add(session, business, "tune", {}, "console")
    with database.writing() as session:
        unguard(session, database)
        session.execute(text("UPDATE audit SET actor = 'somebody' WHERE number = 1"))
    found = look()
    assert ("audit", BAD) in states(found)
    assert "entry 1 " in found.findings[1].found


@pytest.mark.parametrize(("state", "lease", "waited", "expected"), [
    ("queued", None, 0, OK), ("queued", None, 600, BAD), ("running", 30, 600, OK), ("running", -10, 600, OK),
    ("running", -120, 600, BAD), ("running", None, 600, BAD), ("done", None, 600, OK)])
def test_tasks_that_nobody_does(look, database, business, state, lease, waited, expected):
    with database.writing() as session:
        job = jobs.add(session, business, "tune", {}, "console")
        job.state, job.created_at = state, now() - timedelta(seconds=waited)
        job.lease_until = None if lease is None else now() + timedelta(seconds=lease)
        job.ended_at = now() if state == "done" else None
    found = look()
    assert states(found)[2] == ("tasks", expected)
    assert ("machikoba worker" in found.findings[2].next) == (expected == BAD)


def test_one_that_waits_while_another_is_done(look, database, business):
    with database.writing() as session:
        for _ in range(2):
            jobs.add(session, business, "tune", {}, "console").created_at = now() - timedelta(hours=1)
    assert jobs.take(database, "worker") is not None
    assert states(look())[2] == ("tasks", OK)
    with database.reading() as session:
        assert session.query(Job).count() == 2
