"""The worker: takes jobs from the store one after the other, in a process of its own that may die at any moment."""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from machikoba.desk import exports
from machikoba.desk.promotion import settle_all
from machikoba.desk.retention import sweep
from machikoba.errors import MachikobaError, StorageError, discreet
from machikoba.language import _
from machikoba.store import jobs
from machikoba.store.database import Database
from machikoba.store.jobs import CancelledError, Lease, LostError
from machikoba.tune.ladder import Say
from machikoba.worker.again import tune_again
from machikoba.worker.backup import back_up
from machikoba.worker.export import export_bundle
from machikoba.worker.remake import remake_job
from machikoba.worker.replay import replay_bundle
from machikoba.worker.sort import prepare_sorting
from machikoba.worker.tune import tune_upload

log = logging.getLogger("machikoba.worker")
NICENESS = 10  # whoever waits for an answer comes first
BEAT_SECONDS = 10.0  # six of them to a lease
TOLD_SECONDS = 2.0  # until who looks sees how far it is
LOOK_SECONDS = 1.0  # for new jobs
SWEEP_SECONDS = 3_600.0
STORE = ("store_busy", "store_full", "store_refused", "store_unreachable")  # no fault of the job's
# What is done for a job: given its lease, a way to say how far it is, and the home.
Kind = Callable[[Lease, Say, Path], None]
KINDS: dict[str, Kind] = {"tune": tune_upload, "again": tune_again, "remake": remake_job, "replay": replay_bundle,
                          "export": export_bundle, "backup": back_up, "sort": prepare_sorting}


class StoppedError(Exception):
    """The worker shall end: the job goes back."""


class Heart(threading.Thread):
    """Keeps a lease while its job runs, however long a step takes without a word."""

    def __init__(self, lease: Lease, stop: threading.Event) -> None:
        super().__init__(name=f"heart {lease.job_id}", daemon=True)
        self.lease, self.stop = lease, stop
        self._now: tuple[str, int, int] = ("", 0, 0)
        self._over = threading.Event()
        self._reason: Exception | None = None

    def say(self, doing: str, done: int, total: int) -> None:
        """How far the job is. Raises LostError, CancelledError, StoppedError where it shall go no further."""
        self._now = (doing, done, total)
        if self._reason is not None:
            raise self._reason
        if self.stop.is_set():
            raise StoppedError

    def run(self) -> None:
        told, beaten = self._now, time.monotonic()
        while not self._over.wait(TOLD_SECONDS):
            if self._now == told and time.monotonic() < beaten + BEAT_SECONDS:
                continue
            told, beaten = self._now, time.monotonic()
            try:
                self.lease.beat(*self._now)
            except (LostError, CancelledError) as error:
                self._reason = error
                return
            except StorageError:
                log.warning("job %s: the store did not answer; trying again", self.lease.job_id)

    def end(self) -> None:
        self._over.set()
        self.join()


class Worker:
    """Takes jobs until `stop` is set."""

    def __init__(self, home: Path, database: Database, name: str, stop: threading.Event | None = None) -> None:
        self.home, self.database, self.name = home, database, name
        self.stop = stop or threading.Event()
        self.kinds = dict(KINDS)

    def run(self) -> None:
        """Works until it shall stop. A store that does not answer is asked again."""
        if hasattr(os, "nice"):
            os.nice(NICENESS)
        swept = float("-inf")
        while not self.stop.is_set():
            if time.monotonic() >= swept + SWEEP_SECONDS:
                self.sweep()
                swept = time.monotonic()
            try:
                lease = jobs.take(self.database, self.name)
            except StorageError:
                log.warning("the store does not answer; trying again")
                lease = None
            if lease is None:
                exports.clear(self.home)
                self.stop.wait(LOOK_SECONDS)
            else:
                self.work(lease)

    def sweep(self) -> None:
        """Deletes what is kept no longer, and counts the audits of the desk; what fails now is tried again in an hour."""
        try:
            settle_all(self.database)
            if swept := sweep(self.database, self.home):
                log.info("swept away: %s", ", ".join(f"{name} {n}" for name, n in sorted(swept.items())))
        except (MachikobaError, OSError) as error:
            log.warning("could not sweep: %s", getattr(error, "code", type(error).__name__))

    def work(self, lease: Lease) -> None:
        """One job, to its end or until it is lost, stopped or given back."""
        heart = Heart(lease, self.stop)
        heart.start()
        began = time.monotonic()
        log.info("job %s: %s, start %d", lease.job_id, lease.kind, lease.attempt)
        try:
            self.kinds[lease.kind](lease, heart.say, self.home)
            self._clear(lease)
            log.info("job %s: done in %.0f s", lease.job_id, time.monotonic() - began)
        except LostError:
            log.warning("job %s: somebody else has it now", lease.job_id)
        except CancelledError:
            self._end(lease, lease.stopped)
        except StoppedError:
            self._heard(lease.give_back)
        except MachikobaError as error:
            told = discreet(error)
            log.warning("job %s: %s %s", lease.job_id, error.code, "" if told is error else f"{error.message} ({error.found})")
            if error.code in STORE:  # it goes on where it stopped as soon as the store can be written again
                self.stop.wait(LOOK_SECONDS)
                self._heard(lease.give_back)
            else:
                self._end(lease, partial(lease.fail, told))
        except Exception:
            log.exception("job %s: unforeseen error", lease.job_id)
            unforeseen = MachikobaError("unforeseen", _("Something went wrong here."),
                                        next=_("Try again; if it stays so, look into the log."))
            self._end(lease, partial(lease.fail, unforeseen))
        finally:
            heart.end()

    def _end(self, lease: Lease, say: Callable[[], None]) -> None:
        """Tells how a job ended; only where that was heard does nobody need its file any more."""
        if self._heard(say):
            self._clear(lease)

    def _clear(self, lease: Lease) -> None:
        """Deletes the file that the job was for: nothing of a customer stays longer than it is needed."""
        if name := lease.options.get("upload"):
            try:
                (self.home / "businesses" / lease.business_id / "uploads" / Path(name).name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("job %s: its file could not be deleted: %s", lease.job_id, error.strerror)

    def _heard(self, say: Callable[[], None]) -> bool:
        """A last word that may come too late; if the store does not hear it, the lease runs out instead."""
        try:
            say()
        except LostError:
            log.warning("a job was lost before its end was told")
        except StorageError:
            log.warning("the store did not hear how a job ended; its lease will run out")
        else:
            return True
        return False
