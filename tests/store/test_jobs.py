"""Jobs: none lost, none ended twice, whatever becomes of workers and clocks."""
from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from machikoba.errors import DataError
from machikoba.store import audit, jobs, migrations
from machikoba.store.database import Database
from machikoba.store.tables import Business, Entry, Job, now


def add(database, business, **options):
    with database.writing() as session:
        return jobs.add(session, business, "tune", options, "person:1").id


def look(database, job):
    with database.reading() as session:
        return session.get(Job, job)


def test_from_queued_to_done(database, business):
    job = add(database, business, file="a.csv")
    lease = jobs.take(database, "w1")
    assert (lease.job_id, lease.kind, lease.options, lease.attempt) == (job, "tune", {"file": "a.csv"}, 1)
    assert jobs.take(database, "w2") is None
    lease.beat("features", 3, 10)
    assert (look(database, job).doing, look(database, job).done) == ("features", 3)
    lease.finish({"bundle": "b"})
    found = look(database, job)
    assert (found.state, found.result, found.lease_until) == ("done", {"bundle": "b"}, None)
    with pytest.raises(jobs.LostError):
        lease.finish({"bundle": "again"})


def test_a_failure_keeps_its_words(database, business):
    job = add(database, business)
    jobs.take(database, "w").fail(DataError("no_rows", "The file is empty.", next="Choose another."))
    assert look(database, job).error["code"] == "no_rows"


def test_a_vanished_worker_loses_its_job_and_cannot_end_it(database, business, monkeypatch):
    job = add(database, business)
    first = jobs.take(database, "w1")
    later = now() + timedelta(seconds=jobs.LEASE_SECONDS + 1)
    monkeypatch.setattr(jobs, "now", lambda: later)
    second = jobs.take(database, "w2")
    assert (second.job_id, second.attempt) == (job, 2)
    for action in (first.beat, lambda: first.finish({}), first.stopped, first.give_back, lambda: first.fail(DataError("x", "x"))):
        with pytest.raises(jobs.LostError):
            action()
    second.finish({})
    assert look(database, job).crashes == 1


def test_a_job_that_kills_its_workers_is_given_up(database, business):
    job = add(database, business)
    for _ in range(jobs.MOST_CRASHES):
        assert jobs.take(database, "w")
        assert jobs.release(database, "w") == 1
    assert jobs.take(database, "w") is None
    assert (look(database, job).state, look(database, job).error["code"]) == ("failed", "job_crashed")


def test_a_shutdown_is_no_crash(database, business):
    job = add(database, business)
    for _ in range(jobs.MOST_CRASHES + 2):
        jobs.take(database, "w").give_back()
    assert (look(database, job).state, look(database, job).crashes) == ("queued", 0)


def test_cancelling(database, business):
    waits, runs = add(database, business), add(database, business)
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, waits), "person:1")
    lease = jobs.take(database, "w")
    assert (look(database, waits).state, lease.job_id) == ("cancelled", runs)
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, runs), "person:1")
    with pytest.raises(jobs.CancelledError):
        lease.beat()
    lease.stopped()
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, runs), "person:1")
    assert look(database, runs).state == "cancelled"


def test_a_wanted_end_survives_a_crash(database, business):
    job = add(database, business)
    jobs.take(database, "w")
    with database.writing() as session:
        jobs.cancel(session, session.get(Job, job), "person:1")
    jobs.release(database, "w")
    assert jobs.take(database, "w") is None
    assert look(database, job).state == "cancelled"


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_loses_no_job(database, business, monkeypatch, hours):
    job = add(database, business)
    lease = jobs.take(database, "w1")
    jumped = now() + timedelta(hours=hours)
    monkeypatch.setattr(jobs, "now", lambda: jumped)
    second = jobs.take(database, "w2")
    assert second.job_id == job
    with pytest.raises(jobs.LostError):
        lease.finish({})
    second.beat()
    assert jobs.take(database, "w3") is None
    second.finish({})


def test_many_workers_share_the_jobs(database, business):
    wanted = {add(database, business) for _ in range(12)}
    taken = []

    def work(name):
        while lease := jobs.take(database, name):
            taken.append(lease.job_id)
            lease.finish({})

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # On PostgreSQL a worker passes over rows that another looks at, so one may stop early; the next look finds them.
    work("last")
    assert sorted(taken) == sorted(wanted)


class Workers(RuleBasedStateMachine):
    """Workers that work, vanish, come back from the dead and shut down, under a clock that jumps."""

    def __init__(self):
        super().__init__()
        self.clock, self.held, self.ended, self.added = now(), [], {}, []
        self.database = self.make()
        migrations.upgrade(self.database)
        with self.database.writing() as session:
            session.add(Business(id="b" * 32, name="Inn"))
        jobs.now = lambda: self.clock

    def make(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        return Database(f"sqlite:///{self.folder.name}/a.sqlite")

    def teardown(self):
        jobs.now = now
        self.database.close()
        self.folder.cleanup()

    @rule()
    def add(self):
        self.added.append(add(self.database, "b" * 32))

    @rule()
    def take(self):
        if lease := jobs.take(self.database, "w"):
            self.held.append(lease)

    @rule(seconds=st.sampled_from([1, 30, 61, 100_000, -30, -100_000]))
    def pass_time(self, seconds):
        self.clock += timedelta(seconds=seconds)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["beat", "finish", "fail", "give_back", "stopped"]))
    def speak(self, data, how):
        lease = data.draw(st.sampled_from(self.held))
        says = {"beat": lease.beat, "finish": lambda: lease.finish({}), "give_back": lease.give_back, "stopped": lease.stopped,
                "fail": lambda: lease.fail(DataError("x", "x"))}[how]
        try:
            says()
        except jobs.LostError:
            return
        except jobs.CancelledError:
            lease.stopped()
            how = "stopped"
        if how not in ("beat", "give_back"):
            assert lease.job_id not in self.ended, "ended twice"
            self.ended[lease.job_id] = how

    @precondition(lambda self: self.added)
    @rule(data=st.data())
    def cancel(self, data):
        with self.database.writing() as session:
            jobs.cancel(session, session.get(Job, data.draw(st.sampled_from(self.added))), "person:1")

    @invariant()
    def nothing_is_lost(self):
        with self.database.reading() as session:
            rows = {job.id: job for job in session.scalars(select(Job))}
            assert set(rows) == set(self.added)
            for job, how in self.ended.items():
                assert rows[job].state == {"finish": "done", "fail": "failed", "stopped": "cancelled"}[how]
            assert audit.verify(session) is None
            told = [entry.subject for entry in session.scalars(select(Entry).where(Entry.action == "job.done"))]
            assert len(told) == len(set(told))


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
