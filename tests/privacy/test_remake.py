"""A bundle that lost a message is made again without it, and takes its own place, whatever happens meanwhile."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sqlalchemy import select

import machikoba
from machikoba.desk import bundles, corrections, forget
from machikoba.engine.runtime import Engine
from machikoba.errors import DataError, RequirementError, StorageError
from machikoba.pack import erased
from machikoba.pack.bundle import open_bundle
from machikoba.records.person import Person
from machikoba.store import audit, jobs
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import BundleEntry, Business, Entry, Job
from machikoba.tune.remake import options_of, remake
from machikoba.worker import remake as remaking
from machikoba.worker.remake import renewed
from machikoba.worker.run import Worker
from tests.conftest import messages, write_csv

BUSINESS = "b" * 32


def silent(*_args):
    pass


@pytest.fixture
def database(home):
    opened = Database(default_url(home))
    upgrade(opened)
    with opened.writing() as session:
        session.add(Business(id=BUSINESS, name="Inn"))
    yield opened
    opened.close()


@pytest.fixture
def path(home, database, made):
    """A bundle in use, with a correction."""
    folder = shutil.copytree(made.path, home / "businesses" / BUSINESS / "bundles" / "1.bundle")
    with database.writing() as session:
        entry = bundles.add(session, BUSINESS, "inquiries", folder, home, "console")
        corrections.add(session, entry, "大型バイク", "parking", "person:1")
    return folder


def lose(path, n=1, label=None):
    """Empties n messages; their ids."""
    ids = [example["id"] for example in erased.left(open_bundle(path)) if label in (None, example["label"])][:n]
    erased.erase(open_bundle(path), lambda example: example["id"] in ids)
    return ids


def again(database, path, home, **options):
    return renewed(database, path, home, "console", silent, home / "work", **options)


def test_everything_but_the_message_is_as_it_was(made, home, tmp_path):
    home.mkdir()
    shutil.copy(made.path.parent / "home" / "certified.jsonl", home)
    path = shutil.copytree(made.path, tmp_path / "a.bundle")
    before = {example["id"]: example for example in open_bundle(path).examples()}
    (gone,) = lose(path)
    old = open_bundle(path)
    summary = remake(old, tmp_path / "b.bundle", silent, home / "work")
    new = open_bundle(tmp_path / "b.bundle")
    assert {example["id"]: example for example in new.examples()} == {id: one for id, one in before.items() if id != gone}
    for name in ("labels", "none_label", "never_automatic", "rung", "target_error", "confidence"):
        assert new.facts[name] == old.facts[name], name
    assert options_of(new) == options_of(old)
    assert new.proof()["bundle"] == "a.bundle"
    assert (summary["status"], summary["certificate"]["k"]) == ("qualified", 2)
    assert "inquiries.csv" not in (new.path / "recipe.toml").read_text() + (new.path / "card.md").read_text()
    assert [row["id"] for row in new.proof()["certify_rows"]] == [row["id"] for row in old.proof()["certify_rows"]]
    assert not list((home / "work").glob("*"))


def test_a_frozen_base_reads_again(inquiries, tmp_path, tiny_encoder, home):
    path = machikoba.tune(inquiries, tmp_path / "a.bundle", rungs=("features",), bases=(str(tiny_encoder),)).path
    lose(path, 2)
    remake(open_bundle(path), tmp_path / "b.bundle", silent, home / "work")
    new, old = open_bundle(tmp_path / "b.bundle"), open_bundle(path)
    assert (new.facts["rung"], new.facts["base"]["sha256"]) == ("features", old.facts["base"]["sha256"])
    assert len(new.examples()) == 118
    assert machikoba.load(new.path).predict(["駐車場"])[0].label in new.facts["labels"]


def test_too_little_left_cannot_be_made_again(inquiries, tmp_path, home):
    path = machikoba.tune(inquiries, tmp_path / "a.bundle", rungs=("words",)).path
    lose(path, 26, "room")
    with pytest.raises(DataError) as caught:
        remake(open_bundle(path), tmp_path / "b.bundle", silent, home / "work")
    assert caught.value.code == "label_too_small"
    assert not (tmp_path / "b.bundle").exists()


def test_a_job_makes_it_again_in_its_place(home, database, path):
    engine = Engine(home)
    before = engine.open(path)
    lose(path)
    with database.writing() as session:
        found = forget.Found(BUSINESS, unfinished=[path])
        (job,) = forget.remake_later(session, found, "person:1", home)
        assert forget.remake_later(session, found, "person:1", home) == [job], "one task is enough"
    Worker(home, database, "w").work(jobs.take(database, "w"))
    with database.reading() as session:
        done = session.get(Job, job)
        assert done.state == "done", done.error
        assert done.result["status_before"] == "qualified"
        assert done.result["before"] != done.result["after"]
        entry = bundles.find(session, BUSINESS, "inquiries")
        assert [one.text for one in corrections.listed(session, entry)] == ["大型バイク"]
        told = session.scalars(select(Entry).where(Entry.action == "bundle.remake")).one()
        assert told.subject == f"bundle:{entry.id}"
        assert audit.verify(session) is None
    service = engine.open(path)
    assert service is not before
    assert service.predict(["無料の駐車場"])[0].label == "parking"
    assert not erased.unfinished(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert again(database, path, home).status == "unchanged"


def test_who_is_forgotten_meanwhile_does_not_come_back(home, database, path, monkeypatch):
    lose(path)
    more = []

    def slow(*arguments):
        made = remake(*arguments)
        if not more:
            more.extend(lose(path))
        return made

    monkeypatch.setattr(remaking, "remake", slow)
    assert again(database, path, home).status in ("qualified", "apprentice")
    assert not {example["id"] for example in open_bundle(path).examples()} & set(more)
    assert len(open_bundle(path).examples()) == 738


def test_too_little_left_puts_it_out_of_use(home, database, path):
    lose(path, 173, "bath")
    made = again(database, path, home)
    assert (made.status, made.after) == ("void", None)
    assert made.why
    assert list(path.parent.iterdir()) == []
    with database.reading() as session:
        assert session.scalars(select(BundleEntry)).one().removed_at is not None


def test_a_base_that_is_gone_puts_it_out_of_use(home, database, inquiries, tiny_encoder, tmp_path):
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    path = machikoba.tune(inquiries, home / "bundles" / "a.bundle", rungs=("features",), bases=(str(base),)).path
    shutil.rmtree(base)
    lose(path)
    assert again(database, path, home).status == "void"
    assert not path.exists()


def test_what_may_pass_is_tried_again(home, database, path, monkeypatch):
    lose(path)
    for error in (RequirementError("nothing_tried", "no memory"), StorageError("disk_full", "full")):
        def failing(*_args, error=error):
            raise error
        monkeypatch.setattr(remaking, "remake", failing)
        with pytest.raises(type(error)):
            again(database, path, home)
        assert Engine(home).load(path).predict(["無料の駐車場"])[0].label == "parking"
    monkeypatch.undo()
    os.environ["MACHIKOBA_HOME"] = str(home)
    assert again(database, path, home).status in ("qualified", "apprentice")


def test_the_store_is_lost_between_the_names_and_the_commit(home, database, path):
    lose(path)

    def finish(_session, _made):
        raise StorageError("store_unreachable", "gone")

    with pytest.raises(StorageError):
        again(database, path, home, finish=finish)
    assert erased.unfinished(path)
    assert erased.beside(path).exists(), "what was made is used at the next attempt"
    assert again(database, path, home).after
    assert not erased.unfinished(path)
    with pytest.raises(StorageError):
        again(database, path, home, finish=finish, void=True)
    assert again(database, path, home, void=True).status == "void"


def test_a_disk_that_is_not_there_is_no_reason_to_void(home, database, tmp_path):
    from machikoba.errors import BundleError

    with database.writing() as session:
        bundles.add(session, BUSINESS, "far", tmp_path / "unplugged" / "a.bundle", home, "console")
    with pytest.raises(BundleError):
        again(database, tmp_path / "unplugged" / "a.bundle", home)
    with database.reading() as session:
        assert session.scalars(select(BundleEntry)).one().removed_at is None


def test_a_tuning_that_is_stopped_at_its_very_end_is_not_kept(home, database, monkeypatch):
    uploads = home / "businesses" / BUSINESS / "uploads"
    uploads.mkdir(parents=True)
    write_csv(uploads / "u.csv", [*messages(120), ("貉山鼬子の車の駐車場", "parking")])
    with database.writing() as session:
        job = jobs.add(session, BUSINESS, "tune", {"name": "new", "upload": "u.csv", "rungs": "words"}, "person:1").id
    person = Person.known_by(["貉山鼬子"])
    real = bundles.add

    def late(session, *arguments):
        session.rollback()
        with database.writing() as other:  # the person is forgotten between the last step and the commit
            audit.alone(other)
            found = forget.find(other, BUSINESS, person, home)
            forget.erase(other, found, person, "person:1", home)
        return real(session, *arguments)

    monkeypatch.setattr(bundles, "add", late)
    Worker(home, database, "w").work(jobs.take(database, "w"))
    with database.reading() as session:
        assert session.get(Job, job).state == "cancelled"
        assert session.scalars(select(BundleEntry)).all() == []
    assert list((home / "businesses" / BUSINESS / "bundles").iterdir()) == []
    assert list(uploads.iterdir()) == []


def killed(home, name, delay):
    process = subprocess.Popen([sys.executable, "-m", "machikoba", "forget", name, "--yes"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=os.environ | {"MACHIKOBA_HOME": str(home)})
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_and_finish(home, database, path, delays):
    draw = np.random.default_rng(0)
    for delay in delays:
        gone = str(draw.choice([example["id"] for example in erased.left(open_bundle(path))]))
        killed(home, gone, delay)
        open_bundle(path)
        done = subprocess.run([sys.executable, "-m", "machikoba", "forget", gone, "--yes"], capture_output=True, check=False,
                              env=os.environ | {"MACHIKOBA_HOME": str(home)})
        assert done.returncode == 0, done.stderr
        assert gone not in {example["id"] for example in open_bundle(path).examples()}
        assert not erased.unfinished(path)
        assert [one.name for one in path.parent.iterdir()] == [path.name]
    with database.reading() as session:
        assert audit.verify(session) is None


def test_killed_at_any_moment_the_same_command_finishes(home, database, path):
    kill_and_finish(home, database, path, [1.2, 2.0, 2.8])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_thirty_moments_the_same_command_finishes(home, database, path):
    kill_and_finish(home, database, path, [0.6 + 0.1 * i for i in range(30)])
