"""Work that outlives a request: taken by lease, kept by heartbeat, and ended by whoever holds the newest attempt.

    draft ── start ──> queued
    queued ── take ──> running ── finish ──> done
                          ├── fail ──> failed        ├── the worker vanished: its lease runs out, the job is taken again
                          └── stopped ──> cancelled  └── given back at a shutdown: queued
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from machikoba.errors import MachikobaError
from machikoba.language import _
from machikoba.store import audit
from machikoba.store.database import Database
from machikoba.store.tables import Job, now

LEASE_SECONDS = 60  # a worker that says nothing for so long is taken for gone
MOST_CRASHES = 5
OPEN = ("queued", "running")
KEPT = ("draft", *OPEN)  # whose file is still wanted
DRAFT_DAYS = 7  # until a draft that nobody started is deleted


class LostError(Exception):
    """The lease is not this worker's any more: what it was about to say is void."""


class CancelledError(Exception):
    """Somebody wants the job stopped."""


def add(session: Session, business_id: str, kind: str, options: Mapping[str, Any], made_by: str) -> Job:
    """A job for the worker, in the transaction of whatever asks for it."""
    job = Job(business_id=business_id, kind=kind, options=dict(options), made_by=made_by)
    session.add(job)
    session.flush()
    audit.record(session, made_by, "job.add", f"job:{job.id}", business_id, {"kind": kind})
    return job


def draft(session: Session, business_id: str, kind: str, options: Mapping[str, Any], made_by: str) -> Job:
    """A job that waits until somebody starts it, and goes after DRAFT_DAYS if nobody does."""
    job = Job(business_id=business_id, kind=kind, options=dict(options), made_by=made_by, state="draft")
    session.add(job)
    session.flush()
    audit.record(session, made_by, "job.draft", f"job:{job.id}", business_id, {"kind": kind})
    return job


def start(session: Session, job: Job, actor: str) -> bool:
    """Gives a draft to the worker; False for one that was started before."""
    session.refresh(job, with_for_update=True)
    if job.state != "draft":
        return False
    job.state, job.created_at, job.made_by = "queued", now(), actor
    audit.record(session, actor, "job.add", f"job:{job.id}", job.business_id, {"kind": job.kind})
    return True


def cancel(session: Session, job: Job, actor: str) -> None:
    """Stops a job: at once where nobody works on it, else as soon as its worker looks up. An ended job stays as it is."""
    session.refresh(job, with_for_update=True)
    if job.state not in KEPT or job.cancel_wanted:
        return
    job.cancel_wanted = True
    if job.state != "running":
        job.state, job.ended_at = "cancelled", now()
    audit.record(session, actor, "job.cancel", f"job:{job.id}", job.business_id)


@dataclass(frozen=True)
class Lease:
    """A job in one worker's hands. attempt: which start of it this is."""

    database: Database
    job_id: str
    business_id: str
    kind: str
    options: dict[str, Any]
    made_by: str
    attempt: int

    def beat(self, doing: str = "", done: int = 0, total: int = 0) -> None:
        """Says that the worker is alive, and how far. Raises LostError, CancelledError."""
        with self.database.writing() as session:
            job = self._mine(session)
            job.doing, job.done, job.total = doing or job.doing, done, total
            job.lease_until = now() + timedelta(seconds=LEASE_SECONDS)
            wanted = job.cancel_wanted
        if wanted:
            raise CancelledError

    def tell(self, steps: list[dict[str, Any]]) -> None:
        """Says what became of the steps so far. Raises LostError."""
        with self.database.writing() as session:
            self._mine(session).steps = steps

    def finish(self, result: Mapping[str, Any], session: Session | None = None) -> None:
        """The job is done; with `session`, in the transaction that also writes what it made.

        Raises LostError; CancelledError where it was to be stopped: what it made must then not be kept.
        """
        self._end("done", session, result=dict(result))

    def fail(self, error: MachikobaError) -> None:
        """The job cannot be done. Raises LostError."""
        self._end("failed", None, error=error.to_dict())

    def stopped(self) -> None:
        """The job was stopped because somebody wanted it. Raises LostError."""
        self._end("cancelled", None)

    def give_back(self) -> None:
        """The worker shuts down: the job waits for the next one, which goes on where this one stopped. Raises LostError."""
        with self.database.writing() as session:
            job = self._mine(session)
            job.state, job.worker, job.lease_until = "queued", None, None

    def _end(self, state: str, session: Session | None, result: dict[str, Any] | None = None,
             error: dict[str, str] | None = None) -> None:
        if session is None:
            with self.database.writing() as own:
                self._end(state, own, result, error)
            return
        job = self._mine(session)
        if state == "done" and job.cancel_wanted:
            raise CancelledError
        job.state, job.result, job.error, job.ended_at, job.lease_until = state, result, error, now(), None
        audit.record(session, "worker", f"job.{state}", f"job:{job.id}", job.business_id, {"attempt": self.attempt})

    def _mine(self, session: Session) -> Job:
        job = session.get(Job, self.job_id, with_for_update=True)
        if job is None or job.state != "running" or job.attempt != self.attempt:
            raise LostError(self.job_id)
        return job


def take(database: Database, worker: str) -> Lease | None:
    """The oldest job that waits or whose worker is gone; None where there is nothing to do.

    A job whose worker vanished MOST_CRASHES times is given up. A lease that ends later than any could, because the clock
    was set back, counts as run out.
    """
    with database.writing() as session:
        while True:
            moment = now()
            gone = or_(Job.lease_until.is_(None), Job.lease_until < moment,
                       Job.lease_until > moment + timedelta(seconds=2 * LEASE_SECONDS))
            job = session.scalars(
                select(Job).where(or_(Job.state == "queued", (Job.state == "running") & gone))
                .order_by(Job.created_at, Job.id).limit(1).with_for_update(skip_locked=True)).first()
            if job is None:
                return None
            if job.state == "running":
                job.crashes += 1
            if job.cancel_wanted:
                job.state, job.ended_at, job.lease_until = "cancelled", moment, None
            elif job.crashes >= MOST_CRASHES:
                job.state, job.ended_at, job.lease_until, job.error = "failed", moment, None, _crashed(job)
                audit.record(session, "worker", "job.failed", f"job:{job.id}", job.business_id, {"crashes": job.crashes})
            else:
                job.state, job.worker, job.attempt = "running", worker, job.attempt + 1
                job.started_at = job.started_at or moment
                job.lease_until = moment + timedelta(seconds=LEASE_SECONDS)
                return Lease(database, job.id, job.business_id, job.kind, dict(job.options), job.made_by, job.attempt)
            session.flush()


def waiting(session: Session, business_id: str) -> int:
    """How many jobs of a business are not ended."""
    return len(session.scalars(select(Job.id).where(Job.business_id == business_id, Job.state.in_(OPEN))).all())


def release(database: Database, worker: str) -> int:
    """Gives back what `worker` held when it vanished, for a supervisor that knows it is gone; the number of its jobs."""
    with database.writing() as session:
        held = session.execute(update(Job).where(Job.worker == worker, Job.state == "running").values(lease_until=None))
        return int(held.rowcount)  # type: ignore[attr-defined]


def _crashed(job: Job) -> dict[str, str]:
    return {"code": "job_crashed", "message": _("The work stopped {n} times without a word.").format(n=job.crashes),
            "expected": "", "found": _("perhaps too little memory"),
            "next": _("Free memory on this machine, or tune with fewer steps, then start it again.")}
