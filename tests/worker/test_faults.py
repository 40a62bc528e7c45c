"""A job with a fault at each of its places: it ends once, and leaves a bundle with its name or nothing."""
from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from sqlalchemy import select

from machikoba import files
from machikoba.desk import bundles
from machikoba.errors import DataError, StorageError
from machikoba.pack.bundle import open_bundle
from machikoba.store import audit, jobs
from machikoba.store.database import Database
from machikoba.store.tables import Entry
from machikoba.worker import run
from machikoba.worker import tune as tuning
from machikoba.worker.run import Worker
from tests.faults import HOWS, Fault, dies
from tests.worker.conftest import BUSINESS
from tests.worker.test_worker import add, look, uploads


@pytest.fixture
def quick(made, monkeypatch):
    """In place of a tuning: a bundle that was made before is written as a tuning writes its own."""

    def written(_upload, _options, out, *_args, **_more):
        with files.draft_folder(out) as draft:
            for path in made.path.rglob("*"):
                if path.is_file():
                    (draft / path.relative_to(made.path)).parent.mkdir(exist_ok=True)
                    files.write(draft / path.relative_to(made.path), path.read_bytes())

    monkeypatch.setattr(tuning, "tune", written)


def at_every_place(home, database, how):
    for at in itertools.count(1):
        job = add(home, database, name=f"b{at}")
        (home / "businesses" / BUSINESS / "uploads" / "u.csv").rename(home / "businesses" / BUSINESS / "uploads" / f"{at}.csv")
        with database.writing() as session:
            held = session.get(jobs.Job, job)
            held.options = {**held.options, "upload": f"{at}.csv"}

        def work():
            own = Database(database.url.render_as_string())
            if lease := jobs.take(own, "victim"):
                Worker(home, own, "victim").work(lease)

        if how == "killed":
            database.close()
            went_off = dies(work, at)
        else:
            with Fault(at, how) as fault, suppress(StorageError):
                work()
            went_off = fault.went_off
        jobs.release(database, "victim")
        while lease := jobs.take(database, "next"):
            Worker(home, database, "next").work(lease)
        found, folder = look(database, job), home / "businesses" / BUSINESS / "bundles" / f"{job}.bundle"
        with database.reading() as session:
            assert audit.verify(session) is None
            told = session.scalars(select(Entry.action).where(Entry.subject == f"job:{job}")).all()
            named = [entry for entry in bundles.listed(session, BUSINESS) if entry.name == f"b{at}"]
        assert sorted(told) == ["job.add", f"job.{found.state}"], f"place {at}"
        if found.state == "done":
            assert [bundles.folder_of(one, home) for one in named] == [folder]
            open_bundle(folder)
        else:
            assert how != "killed"
            assert found.state == "failed"
            assert found.error["code"].startswith("disk_"), found.error
            assert named == []
            assert not folder.exists(), "texts of customers that no name leads to"
        assert not list(folder.parent.glob(".*")), "drafts"
        left = [path.name for path in uploads(home)]
        assert left == [] or (how != "full" and left == [f"{at}.csv"]), f"place {at}"
        for path in uploads(home):  # of a job that has ended: nobody will ask for it
            path.unlink()
        if not went_off:
            assert found.state == "done"
            return at
    raise AssertionError


@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_of_a_job(home, database, quick, how, monkeypatch):
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.01)
    assert at_every_place(home, database, how) > 30


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_of_a_tuning(home, database, how, monkeypatch):
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.01)
    assert at_every_place(home, database, how) > 30


@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_where_a_job_is_given_back(home, database, how):
    job, where = add(home, database), database.url.render_as_string()
    for at in itertools.count(1):
        attempt = jobs.take(database, "victim").attempt

        def give_back(attempt=attempt):
            own = Database(where)
            jobs.Lease(own, job, BUSINESS, "tune", {}, "person:1", attempt).give_back()

        if how == "killed":
            database.close()
            went_off = dies(give_back, at)
        else:
            with Fault(at, how) as fault, suppress(StorageError):
                give_back()
            went_off = fault.went_off
        jobs.release(database, "victim")
        with database.writing() as session:
            session.get(jobs.Job, job).crashes = 0
        lease = jobs.take(database, "next")
        assert (lease.job_id, lease.attempt) == (job, attempt + 1)
        lease.give_back()
        if not went_off:
            break
    assert at >= 3


def test_a_worker_that_lost_its_job_leaves_the_file_to_the_one_that_has_it(home, database, worker):
    def loses(lease, _say, _home):
        jobs.release(database, "w")
        assert jobs.take(database, "other").attempt == lease.attempt + 1
        raise DataError("no_rows", "x")

    worker.kinds["tune"] = loses
    job = add(home, database)
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, len(uploads(home))) == ("running", 1)


@pytest.mark.parametrize("code", run.STORE)
def test_a_store_that_fails_fails_no_job(home, database, worker, quick, monkeypatch, code):
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "add", lambda *_args: (_ for _ in ()).throw(StorageError(code, "x")))
        job = add(home, database)
        worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, len(uploads(home))) == ("queued", 1)
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, uploads(home)) == ("done", [])


def test_a_file_that_cannot_be_deleted_ends_no_worker(home, database, worker, quick, monkeypatch):
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_args, **_more: (_ for _ in ()).throw(PermissionError(13, "denied")))
    job = add(home, database)
    worker.work(jobs.take(database, "w"))
    assert look(database, job).state == "done"
