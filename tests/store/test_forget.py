"""Texts of a person go from the store, on both databases, and from their files; another business's stay."""
from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from machikoba.desk import bundles, corrections, forget
from machikoba.desk.receipt import receipt
from machikoba.errors import RequirementError
from machikoba.pack import erased
from machikoba.pack.bundle import MANIFEST, open_bundle
from machikoba.records.person import Person
from machikoba.store import audit, jobs, people
from machikoba.store.tables import BundleEntry, Correction, Job, Write, now

NAME = "貉山鼬子"


def add(session, business, home, made, n=3):
    """A bundle in use and n corrections that speak of the person."""
    folder = shutil.copytree(made.path, home / "businesses" / business / "bundles" / "1.bundle")
    entry = bundles.add(session, business, "inquiries", folder, home, "console")
    for i in range(n):
        made_ = corrections.add(session, entry, f"{i} {NAME}です", "parking", "person:1")
        session.add(Write(business_id=business, key=f"k{i}", digest="d" * 64, status=201, answer={"id": made_.id}))
    corrections.add(session, entry, "風呂", "bath", "person:1")
    return entry


def erase(database, business, home, texts, at_most=50):
    person = Person.known_by(texts)
    with database.writing() as session:
        audit.alone(session)
        found = forget.find(session, business, person, home)
        forget.few_enough([found], at_most)
        forget.erase(session, found, person, "console", home)
        return forget.note(session, [found], "console", business)


def texts(database, business):
    with database.reading() as session:
        return [one.text for one in session.scalars(select(Correction).where(Correction.business_id == business))]


def test_one_business_is_never_another(database, business, home, made):
    with database.writing() as session:
        other = people.add_business(session, "Clinic", "console").id
        for one in (business, other):
            add(session, one, home, made)
    erase(database, business, home, [NAME])
    assert texts(database, business) == ["風呂"]
    assert len(texts(database, other)) == 4
    with database.reading() as session:
        assert {one.business_id for one in session.scalars(select(Write))} == {other}


def test_an_id_of_a_correction_or_of_a_message(database, business, home, made):
    with database.writing() as session:
        entry = add(session, business, home, made)
        path = bundles.folder_of(entry, home)
        wanted = session.scalars(select(Correction).where(Correction.text == "風呂")).one().id
    example = open_bundle(path).examples()[5]["id"]
    erase(database, business, home, [wanted, example])
    assert len(texts(database, business)) == 3
    assert example not in {one["id"] for one in open_bundle(path).examples()}
    assert erased.unfinished(path)


def test_a_word_of_every_message_is_refused(database, business, home, made):
    with database.writing() as session:
        path = bundles.folder_of(add(session, business, home, made), home)
    before = (path / MANIFEST).read_bytes()
    with pytest.raises(RequirementError) as caught:
        erase(database, business, home, ["です"])
    assert caught.value.code == "forget_too_many"
    assert (path / MANIFEST).read_bytes() == before
    assert len(texts(database, business)) == 4


def test_a_damaged_bundle_with_the_person_goes(database, business, home, made):
    with database.writing() as session:
        path = bundles.folder_of(add(session, business, home, made), home)
    (path / "examples.jsonl").write_text(f'{{"id": "1", "text": "{NAME}", "label": "x"}}\n{{"id"', encoding="utf-8")
    person = Person.known_by(["〔none〕", "山本"])
    with database.reading() as session:
        assert forget.find(session, business, person, home).unsearched == ["inquiries"]
    erase(database, business, home, [NAME])
    assert not path.exists()
    with database.reading() as session:
        assert session.scalars(select(BundleEntry)).one().removed_at is not None


def test_names_that_somebody_chose_are_told(database, business, home):
    with database.writing() as session:
        people.add_key(session, business, f"{NAME}のパソコン", "staff", "console")
        found = forget.find(session, business, Person.known_by([NAME]), home)
        assert [kind for kind, _id in found.named] == ["key"]
        told = receipt(session, [found], Person.known_by([NAME]), home)
        assert any("key" in note for note in told["notes"])
        assert NAME not in str(told)


def test_backups_that_may_hold_it(database, business, home):
    with database.writing() as session:
        for id, days in (("a" * 32, 1), ("b" * 32, 30), ("c" * 32, None)):
            audit.record(session, "worker", "backup.add", f"backup:{id}", None, {
                "made_at": (now() - timedelta(days=3)).isoformat(), "keep_days": days, "here": False, "bytes": 1,
                "encrypted": False})
        found = forget.find(session, business, Person.known_by([NAME]), home)
        told = receipt(session, [found], Person.known_by([NAME]), home)
    assert [(one["id"][0], one["until"] is None) for one in told["backups"]] == [("a", False), ("b", False), ("c", True)]
    assert any("until you delete them" in note for note in told["notes"])


def test_a_stopped_job_is_not_done(database, business):
    with database.writing() as session:
        job = jobs.add(session, business, "tune", {}, "person:1").id
    lease = jobs.take(database, "w")
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, job), "person:1")
    with pytest.raises(jobs.CancelledError):
        lease.finish({})
    lease.stopped()


def files_of(database):
    """The bytes of all that the database has written."""
    if database.sqlite:
        path = Path(database.url.database)
        return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CHECKPOINT"))
        folder = Path(connection.execute(text("SHOW data_directory")).scalar())
        number = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar()
    try:
        return b"".join(one.read_bytes() for one in (folder / "base" / str(number)).iterdir() if one.is_file())
    except PermissionError:
        pytest.skip("the server's files belong to another user")


def test_deleted_rows_are_overwritten(database, business, home, made):
    with database.writing() as session:
        add(session, business, home, made, n=40)
    assert NAME.encode() in files_of(database)
    erase(database, business, home, [NAME], at_most=200)
    database.scrub()
    assert NAME.encode() not in files_of(database)
    assert texts(database, business) == ["風呂"]
    with database.writing() as session:  # the connection works as before
        session.get(Job, "none")
        audit.record(session, "console", "x", "y")


def test_sqlite_overwrites_without_being_told(tmp_path):
    """Also what is deleted for other reasons does not lie in the file, only in its log until that is emptied."""
    from machikoba.store.database import Database, default_url
    from machikoba.store.migrations import upgrade

    database = Database(default_url(tmp_path))
    upgrade(database)
    with database.writing() as session:
        business = people.add_business(session, NAME, "console")
    with database.writing() as session:
        session.get(type(business), business.id).name = "x"
    database.close()
    with sqlite3.connect(tmp_path / "machikoba.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert NAME.encode() not in (tmp_path / "machikoba.sqlite").read_bytes()
