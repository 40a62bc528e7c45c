"""The worker: from a file to a bundle with a name, through every kind of end."""
from __future__ import annotations

import os
import threading
import time

import pytest
from sqlalchemy import select

from machikoba.desk import bundles
from machikoba.engine.runtime import Engine
from machikoba.store import jobs
from machikoba.store.tables import BundleEntry, Job
from machikoba.worker import run
from machikoba.worker import tune as tuning
from tests.conftest import messages, write_csv
from tests.worker.conftest import BUSINESS


def add(home, database, rows=None, **options):
    """A tuning of some messages, as the API leaves it."""
    folder = home / "businesses" / BUSINESS / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "u.csv", messages(120) if rows is None else rows)
    with database.writing() as session:
        return jobs.add(session, BUSINESS, "tune", {"name": "new", "upload": "u.csv", "rungs": "words", **options}, "person:1").id


def look(database, job):
    with database.reading() as session:
        return session.get(Job, job)


def uploads(home):
    return list((home / "businesses" / BUSINESS / "uploads").iterdir())


def test_a_file_becomes_a_bundle_that_answers(home, database, worker):
    job = add(home, database)
    worker.work(jobs.take(database, "w"))
    found = look(database, job)
    assert found.state == "done", found.error
    assert found.result["bundle"] == "new"
    with database.reading() as session:
        entry = bundles.find(session, BUSINESS, "new")
    service = Engine(home).open(bundles.folder_of(entry, home))
    assert service.predict(["無料の駐車場"])[0].label == "parking"
    assert uploads(home) == []


def test_a_file_that_cannot_be_used(home, database, worker):
    job = add(home, database, rows=[("a", "b")])
    worker.work(jobs.take(database, "w"))
    found = look(database, job)
    assert found.state == "failed"
    assert set(found.error) == {"code", "message", "expected", "found", "next"}
    assert uploads(home) == []
    assert not list((home / "businesses" / BUSINESS).glob("bundles/*"))


def test_an_unforeseen_error_ends_the_job_and_not_the_worker(home, database, worker):
    def broken(_lease, _say, _home):
        raise ZeroDivisionError

    worker.kinds["tune"] = broken
    job = add(home, database)
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, look(database, job).error["code"]) == ("failed", "unforeseen")


def test_what_an_earlier_start_finished_is_not_made_again(home, database, worker, monkeypatch):
    job = add(home, database)
    monkeypatch.setattr(bundles, "add", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        worker.work(jobs.take(database, "w"))  # it dies between the rename and the commit
    monkeypatch.undo()
    os.environ["MACHIKOBA_HOME"] = str(home)
    jobs.release(database, "w")
    monkeypatch.setattr(tuning, "tune", lambda *_args, **_options: pytest.fail("tuned again"))
    worker.work(jobs.take(database, "w"))
    assert look(database, job).state == "done"
    with database.reading() as session:
        assert len(session.scalars(select(BundleEntry)).all()) == 1


def at_work(home, database, worker):
    """A job that speaks until it is told to stop, and the thread that works on it."""
    said = threading.Event()

    def work(_lease, say, _home):
        said.set()
        for _ in range(2_000):
            say("x", 0, 1)
            time.sleep(0.005)

    worker.kinds["tune"] = work
    job = add(home, database)
    thread = threading.Thread(target=worker.work, args=(jobs.take(database, "w"),))
    thread.start()
    said.wait(5)
    return job, thread


def test_a_shutdown_gives_the_job_back(home, database, worker):
    job, thread = at_work(home, database, worker)
    worker.stop.set()
    thread.join(10)
    assert (look(database, job).state, look(database, job).crashes) == ("queued", 0)
    assert len(uploads(home)) == 1


@pytest.mark.parametrize("how", ["cancel", "lose"])
def test_a_heart_that_hears_of_the_end_stops_the_work(home, database, worker, monkeypatch, how):
    monkeypatch.setattr(run, "BEAT_SECONDS", 0.01)
    job, thread = at_work(home, database, worker)
    if how == "cancel":
        with database.writing() as session:
            jobs.cancel(session, session.get(Job, job), "person:1")
    else:
        jobs.release(database, "w")
        assert jobs.take(database, "other").attempt == 2
    thread.join(10)
    assert not thread.is_alive()
    assert look(database, job).state == ("cancelled" if how == "cancel" else "running")
