"""Proofs repeated, bundles exported and backups made by the worker: once, through every kind of end."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, exports
from machikoba.engine.explain import explain
from machikoba.engine.prove import replay_proof
from machikoba.engine.runtime import Engine
from machikoba.errors import BundleError
from machikoba.pack import export as exporting
from machikoba.pack.bundle import open_bundle
from machikoba.pack.export import export
from machikoba.store import archive, backup, jobs
from machikoba.store.tables import Entry, Job
from machikoba.worker import run
from tests.worker.conftest import BUSINESS

pytestmark = pytest.mark.usefixtures("in_use")
KINDS = {"replay": {}, "export": {}, "backup": {"keep_days": 30}}


def add(database, kind):
    with database.writing() as session:
        entry = bundles.find(session, BUSINESS, "受付")
        options = KINDS[kind] or {"name": "受付", "bundle": entry.id}
        return jobs.add(session, BUSINESS, kind, options, "person:1").id


def look(database, job):
    with database.reading() as session:
        return session.get(Job, job)


def done(database, worker, kind):
    job = add(database, kind)
    worker.work(jobs.take(database, "w"))
    found = look(database, job)
    assert found.state == "done", found.error
    return job, found.result


def left(home):
    """What jobs leave on the disk."""
    return sorted(path for pattern in ("businesses/*/exports/*", "businesses/*/exports/.*", "backups/*", "backups/.*")
                  for path in home.glob(pattern))


def test_a_proof_repeated(home, database, worker):
    job, result = done(database, worker, "replay")
    assert result == {"bundle": "受付", "rows": result["rows"], "changed": 0, "stands": True, "status": "qualified"}
    assert (look(database, job).total, left(home)) == (0, [])


def test_progress_is_told_in_blocks_that_leave_the_answers_as_they_are(made, monkeypatch):
    service = Engine(made.path.parent / "home").load(made.path, check_machine=False)
    rows = len(service.bundle.proof()["certify_rows"])
    said = []
    assert replay_proof(service, lambda *now: said.append(now))["stands"]
    assert said == [("replay", 0, rows), ("replay", rows, rows)]


def test_an_exported_bundle(home, database, worker, made, tmp_path):
    job, result = done(database, worker, "export")
    file = exports.place(home, BUSINESS, job)
    assert left(home) == [file]
    assert result == {"bundle": "受付", "bytes": file.stat().st_size, "days": 7}
    with zipfile.ZipFile(file) as packed:
        packed.extractall(tmp_path / "there")
        assert packed.testzip() is None
    there = open_bundle(tmp_path / "there" / "受付.bundle")
    assert there.examples() == []
    assert (there.path / "NOTICE").read_bytes() == (made.path / "NOTICE").read_bytes()
    assert (there.path / "card.md").exists()
    content = b"".join(path.read_bytes() for path in there.path.rglob("*") if path.is_file())
    bundle = open_bundle(made.path)
    for example in bundle.examples():
        assert example["id"].encode() not in content
        assert example["group"].encode() not in content
        assert example["text"].encode() not in content
    here = Engine(tmp_path).load(made.path)
    service = Engine(tmp_path).load(there.path)
    texts = [example["text"] for example in bundle.examples()][:50]
    assert service.predict(texts) == here.predict(texts)
    assert explain(service, texts[0]).neighbours == []
    assert not replay_proof(service)["stands"], "without its messages nothing can be proved again"


def test_on_another_kind_of_machine_an_export_is_an_apprentice(made, tmp_path, monkeypatch):
    export(made.path, tmp_path / "a.zip")
    shutil.unpack_archive(tmp_path / "a.zip", tmp_path)
    assert Engine(tmp_path).load(tmp_path / "a.bundle").qualified
    monkeypatch.setattr("machikoba.engine.replays.machine", lambda: "another")
    service = Engine(tmp_path).load(tmp_path / "a.bundle")
    assert not service.qualified
    assert any(one.would_answer and not one.answered for one in service.predict(["無料の駐車場 車 台"] * 3))


def test_exported_twice_the_bytes_are_the_same(made, tmp_path):
    first, second = (export(made.path, tmp_path / f"{n}.zip", "a") for n in "12")
    assert Path(first["file"]).read_bytes() == Path(second["file"]).read_bytes()


def test_a_damaged_bundle_is_not_exported(made, tmp_path):
    shutil.copytree(made.path, tmp_path / "a.bundle")
    (tmp_path / "a.bundle" / "card.md").write_text("x")
    with pytest.raises(BundleError):
        export(tmp_path / "a.bundle", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_exports_that_nobody_fetched_go(home, database, worker):
    old, new = (exports.place(home, BUSINESS, done(database, worker, "export")[0]) for _ in range(2))
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    exports.clear(home)
    assert left(home) == [new]


@pytest.mark.parametrize("passphrase", [None, "yama kawa umi sora"])
def test_a_backup(home, database, worker, monkeypatch, passphrase):
    if passphrase:
        monkeypatch.setenv("MACHIKOBA_PASSPHRASE", passphrase)
    job, result = done(database, worker, "backup")
    file = home / "backups" / result["file"]
    assert left(home) == [file]
    assert (result["bytes"], result["encrypted"], result["bundles"]) == (file.stat().st_size, passphrase is not None, 1)
    assert archive.verify(file, passphrase)["id"] == job
    assert BUSINESS not in str(result)
    with database.reading() as session:
        [one] = backup.known(session, home)
        assert session.scalars(select(Entry.actor).where(Entry.action == "backup.add")).one() == "person:1"
    assert one.id == job


def test_a_passphrase_that_is_too_short(home, database, worker, monkeypatch):
    monkeypatch.setenv("MACHIKOBA_PASSPHRASE", "short")
    job = add(database, "backup")
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, look(database, job).error["code"]) == ("failed", "passphrase_unusable")


def test_a_bundle_that_was_replaced_or_is_gone(home, database, worker, made):
    job = add(database, "export")
    other = home / "businesses" / BUSINESS / "bundles" / "2.bundle"
    shutil.copytree(made.path, other)
    with database.writing() as session:
        bundles.add(session, BUSINESS, "受付", other, home, "console")
    worker.work(jobs.take(database, "w"))
    assert look(database, job).state == "done", "what was asked for is exported, not what has its name now"
    job = add(database, "replay")
    shutil.rmtree(other)
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, look(database, job).error["code"]) == ("failed", "bundle_missing")


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_an_earlier_start_finished_is_not_made_again(home, database, worker, monkeypatch, kind):
    job = add(database, kind)
    monkeypatch.setattr(jobs.Lease, "finish", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        worker.work(jobs.take(database, "w"))  # it dies before the commit
    monkeypatch.undo()
    before = [(path, path.stat().st_mtime_ns) for path in left(home)]
    jobs.release(database, "w")
    os.environ["MACHIKOBA_HOME"] = str(home)
    worker.work(jobs.take(database, "w"))
    assert look(database, job).state == "done"
    assert [(path, path.stat().st_mtime_ns) for path in left(home)] == before


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("at", [1, 2, 3])
def test_cancelled_in_the_middle_nothing_stays(home, database, worker, monkeypatch, kind, at):
    job, count = add(database, kind), [0]
    lease = jobs.take(database, "w")
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, job), "person:1")

    def say(_heart, _doing, _done, _total):
        count[0] += 1
        if count[0] == at:
            raise jobs.CancelledError

    monkeypatch.setattr(run.Heart, "say", say)
    worker.work(lease)
    found = look(database, job)
    assert found.state == "cancelled", "at the latest where its end would be told"
    assert left(home) == []


def test_killed_workers_lose_nothing_and_leave_nothing(home, database, worker):
    made_by = []
    for number, delay in enumerate((1.0, 1.5, 2.0)):
        for kind in KINDS:
            made_by.append((kind, add(database, kind)))
        process = subprocess.Popen([sys.executable, "-m", "machikoba", "worker", "--name", f"victim{number}"],
                                   env=os.environ | {"MACHIKOBA_HOME": str(home)}, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        jobs.release(database, f"victim{number}")
        while lease := jobs.take(database, "w"):
            worker.work(lease)
    assert {look(database, job).state for _kind, job in made_by} == {"done"}
    assert len(left(home)) == 6
    assert not [path for path in left(home) if path.name.startswith(".")]
    for kind, job in made_by:
        if kind == "backup":
            archive.verify(home / "backups" / look(database, job).result["file"], None)


def test_a_full_disk_fails_the_export(home, database, worker, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.zipfile, "ZipFile", full)
    job = add(database, "export")
    worker.work(jobs.take(database, "w"))
    assert (look(database, job).state, look(database, job).error["code"], left(home)) == ("failed", "disk_full", [])
