"""kill -9 of the server and of its worker at any moment: nothing that was accepted is lost, nothing is done twice."""
from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest
from sqlalchemy import select

from machikoba.pack.bundle import open_bundle
from machikoba.store import audit, jobs
from machikoba.store.database import Database, default_url
from machikoba.store.tables import BundleEntry, Entry, Job
from machikoba.web import serve
from tests.conftest import messages
from tests.web.conftest import owner_key
from tests.web.test_trouble import Clients, kept

# A vanished worker is noticed sooner than in earnest, so that a test of fifty does not wait for leases most of the time.
SOONER = """
from machikoba.store import jobs
from machikoba.web import serve
from machikoba.worker import run
jobs.LEASE_SECONDS, run.BEAT_SECONDS, serve.RESTART_SECONDS = 10, 1.0, 0.2
"""
MOST_OPEN = 3  # tunings at a time


def workers(home):
    """The worker processes of this home."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if "worker" in one.cmdline() and one.environ().get("MACHIKOBA_HOME") == str(home) and one.status() != "zombie":
                found.append(one)
    return found


class Tunings(Clients):
    """One client more, that starts small tunings; tasks: name by id of what was accepted."""

    def __init__(self, port, headers, database):
        super().__init__(port, headers, 2)
        self.database, self.tasks = database, {}

    def __enter__(self):
        super().__enter__()
        self._threads.append(threading.Thread(target=self._tune))
        self._threads[-1].start()
        return self

    def _tune(self):
        rows = "text,label\n" + "".join(f"{text},{label}\n" for text, label in messages(80))
        number = 0
        while not self._over.is_set():
            with self.database.reading() as session:
                busy = len(session.scalars(select(Job.id).where(Job.state.in_(jobs.OPEN))).all()) >= MOST_OPEN
            name = f"b{number}"
            with suppress(httpx.TransportError):
                answer = None if busy else httpx.post(
                    f"{self.url}/v1/tasks", headers={**self.headers, "Idempotency-Key": name}, timeout=30,
                    data={"name": name, "rungs": "words"}, files={"file": ("a.csv", rows.encode(), "text/csv")})
                if answer is not None and answer.status_code == 201:
                    self.tasks[answer.json()["id"]] = name
                    number += 1
            self._over.wait(0.2)


def fragile(database):
    """Whether a job was interrupted so often that one more time would give it up."""
    with database.reading() as session:
        return any(job.crashes >= jobs.MOST_CRASHES - 2 for job in session.scalars(select(Job).where(Job.state.in_(jobs.OPEN))))


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment(start, home, port, tmp_path, kills):
    (tmp_path / "sooner").mkdir()
    (tmp_path / "sooner" / "sitecustomize.py").write_text(SOONER)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "sooner"), os.environ.get("PYTHONPATH", "")])}
    database, log, draw = Database(default_url(home)), tmp_path / "log", random.Random(kills)
    headers = owner_key(database)
    process = start(log=log, env=env)
    with Tunings(port, headers, database) as clients:
        victims = [("web", "worker", "both")[number % 3] for number in range(kills)]
        draw.shuffle(victims)
        for victim in victims:
            time.sleep(draw.uniform(0.2, 5.0))
            while fragile(database):
                time.sleep(0.2)
            if victim != "worker":
                process.kill()
            if victim != "web":
                for one in workers(home):
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGKILL)
            if victim != "worker":
                process.wait()
                process = start(log=log, env=env)
        while not clients.tasks:
            time.sleep(0.1)
    deadline = time.monotonic() + 120
    while unfinished(database) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    assert process.wait(60) == 0
    deadline = time.monotonic() + 60
    while workers(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers(home) == [], "no worker outlives its server"
    kept(database, clients)
    done_once(database, home, clients.tasks)
    assert "Traceback" not in log.read_text()
    database.close()


def unfinished(database):
    with database.reading() as session:
        return session.scalars(select(Job.id).where(Job.state.in_(jobs.OPEN))).all()


def done_once(database, home, tasks):
    """Each task that was accepted is done, once, and left one bundle; of what was not accepted nothing is half there."""
    with database.reading() as session:
        assert audit.verify(session) is None
        rows = {job.id: job for job in session.scalars(select(Job))}
        assert set(tasks) <= set(rows), "lost"
        assert len(rows) - len(tasks) <= 1, "only what was under way at the end"
        assert {job.state for job in rows.values()} == {"done"}, [(job.state, job.error) for job in rows.values()]
        told = session.scalars(select(Entry.subject).where(Entry.action == "job.done")).all()
        assert sorted(told) == sorted(f"job:{job}" for job in rows), "done twice"
        named = {entry.name: entry for entry in session.scalars(select(BundleEntry).where(BundleEntry.removed_at.is_(None)))}
        assert len(session.scalars(select(BundleEntry)).all()) == len(named), "named twice"
    for job, row in rows.items():
        open_bundle(home / named[row.options["name"]].folder)
        assert named[row.options["name"]].folder.endswith(f"{job}.bundle")
    business = home / "businesses" / next(iter(rows.values())).business_id
    assert {path.name for path in (business / "bundles").iterdir()} == {f"{job}.bundle" for job in rows}, "drafts"
    # A file may be left whose server or worker was killed between its two steps. No task names it, so that it is swept.
    assert not {path.name for path in (business / "uploads").iterdir()} & {
        row.options["upload"] for row in rows.values() if row.state in jobs.OPEN}


def test_a_worker_ends_with_its_server(start, home, port, tmp_path):
    owner_key(Database(default_url(home)))
    process = start(log=tmp_path / "log")
    deadline = time.monotonic() + 60
    while not workers(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers(home)
    process.kill()
    process.wait()
    while workers(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers(home) == []


def test_a_supervisor_that_cannot_start_a_worker_tries_again(home, monkeypatch):
    monkeypatch.setattr(serve, "RESTART_SECONDS", 0.01)
    tried = []

    def none(command, **_options):
        tried.append(command)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(serve.subprocess, "Popen", none)
    supervisor = serve.Supervisor(Database(default_url(home)))
    supervisor.start()
    deadline = time.monotonic() + 10
    while len(tried) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    supervisor.end()
    assert len(tried) >= 3
    assert not supervisor.is_alive()
