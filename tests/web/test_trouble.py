"""The disk is full, the clock jumps, the database goes, a bundle is deleted: while the server runs and is asked."""
from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, select, text

from machikoba.engine import runtime
from machikoba.errors import BundleError
from machikoba.pack.bundle import open_bundle
from machikoba.store import audit
from machikoba.store.database import Database, default_url
from machikoba.store.tables import Correction, Job
from tests.conftest import messages
from tests.store.conftest import postgresql  # noqa: F401
from tests.web.conftest import answers, owner_key

BUNDLE = "/v1/bundles/inquiries"
FAKETIME = sorted(str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clients:
    """Four that correct without a pause until the block ends; each write has a key and is repeated until it is accepted.

    accepted: the texts that were answered with 201; seen: every status.
    """

    def __init__(self, port, headers, number=4):
        self.url, self.headers, self.number = f"http://127.0.0.1:{port}", headers, number
        self.accepted, self.seen, self._over = [], [], threading.Event()

    def __enter__(self):
        self._threads = [threading.Thread(target=self._write, args=(who,)) for who in range(self.number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, who):
        number = 0
        with httpx.Client(timeout=60) as client:
            while not self._over.is_set():
                text_ = f"{who}-{number}"
                try:
                    answer = client.post(f"{self.url}{BUNDLE}/corrections", json={"text": text_, "label": "parking"},
                                         headers={**self.headers, "Idempotency-Key": text_})
                except httpx.TransportError:
                    self.seen.append(0)
                    time.sleep(0.05)
                    continue
                self.seen.append(answer.status_code)
                if answer.status_code == 201:
                    self.accepted.append(text_)
                    number += 1
                else:
                    time.sleep(0.02)


def kept(database, clients):
    """Every correction that was accepted is there once, and the chain is whole."""
    with database.reading() as session:
        texts = [one.text for one in session.scalars(select(Correction))]
        assert audit.verify(session) is None
    assert len(texts) == len(set(texts)), "kept twice"
    assert set(clients.accepted) <= set(texts), "lost"
    assert len(set(texts) - set(clients.accepted)) <= clients.number, "only what was under way at the end"


def test_a_database_that_goes_in_the_middle_of_requests(start, home, port, postgresql, tmp_path):  # noqa: F811
    """Its connections are cut every few milliseconds for a while."""
    where = new_database(postgresql)
    database, log = Database(where), tmp_path / "log"
    headers = owner_key(database)
    start("--no-worker", log=log, env={"MACHIKOBA_DATABASE": where})
    cut = create_engine(where, isolation_level="AUTOCOMMIT")
    with Clients(port, headers) as clients:
        began, cuts = time.monotonic(), 0
        while time.monotonic() - began < 5 or len(clients.accepted) < 10:
            with cut.connect() as connection:
                cuts += len(connection.execute(text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid()")).all())
            time.sleep(0.05)
            assert time.monotonic() - began < 120
        accepted = len(clients.accepted)
        while len(clients.accepted) < accepted + 20:  # and then it is as before
            time.sleep(0.05)
            assert time.monotonic() - began < 180
    cut.dispose()
    assert cuts > 5
    assert set(clients.seen) <= {201, 503}, log.read_text()[-3_000:]
    assert 503 in clients.seen
    kept(database, clients)
    database.close()
    assert "Traceback" not in log.read_text()


def new_database(server):
    """An empty database there; it goes with the server."""
    server, name = server.replace("postgresql:", "postgresql+psycopg:"), f"trouble_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.rpartition("/")[0] + f"/{name}"


def test_a_bundle_that_is_deleted_and_comes_back_while_it_is_asked(start, home, port, tmp_path):
    headers, log = owner_key(Database(default_url(home))), tmp_path / "log"
    folder = home / "bundles" / "inquiries.bundle"
    start("--no-worker", log=log)
    seen, over = [], threading.Event()

    def ask():
        with httpx.Client(timeout=60, headers=headers) as client:
            while not over.is_set():
                seen.append(client.post(f"http://127.0.0.1:{port}{BUNDLE}/predict", json={"texts": ["駐車場"]}).status_code)
                assert client.get(f"http://127.0.0.1:{port}/v1/bundles").status_code == 200

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    shutil.copytree(folder, tmp_path / "copy")
    for _ in range(15):
        time.sleep(0.1)
        for path in sorted(folder.rglob("*"), reverse=True):  # one file after the other, the manifest last
            if path.is_file() and path.name != "MANIFEST.sha256":
                path.unlink()
        shutil.rmtree(folder)
        time.sleep(0.1)
        shutil.copytree(tmp_path / "copy", folder)
    wanted = len(seen) + 20
    while len(seen) < wanted and all(thread.is_alive() for thread in threads):
        time.sleep(0.02)
    over.set()
    for thread in threads:
        thread.join()
    assert set(seen) <= {200, 404, 503}, log.read_text()[-3_000:]
    assert {200, 404} <= set(seen)
    assert seen[-1] == 200
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", ["machine.safetensors", "machine.json", "vocabulary.json"])
def test_a_file_that_is_deleted_between_its_check_and_its_reading(made, tmp_path, monkeypatch, name):
    shutil.copytree(made.path, tmp_path / "a.bundle")

    def checked(path):
        found = open_bundle(path)
        (path / "weights" / name).unlink()
        return found

    monkeypatch.setattr(runtime, "open_bundle", checked)
    with pytest.raises(BundleError) as caught:
        runtime.Engine(tmp_path).load(tmp_path / "a.bundle")
    assert caught.value.code == "bundle_incomplete"


def test_no_room_for_a_file_that_is_being_sent(client, shop, inn, monkeypatch):
    async def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    headers = owner_key(shop.database)
    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    answer = client.post("/v1/tasks", headers=headers, data={"name": "new"}, files={"file": ("a.csv", b"a", "text/csv")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert "/" not in answer.json()["error"]["message"]


@contextmanager
def small_disk(folder, mib):
    """A file system of `mib` MiB at `folder` where this user may make one, else none."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_loses_nothing(start, home, port, tmp_path):
    """Home and the folder of files under way lie on a small disk of their own, which is filled, and made free again."""
    bundles = [tmp_path / "bundles"]
    shutil.move(home / "bundles", bundles[0])
    shutil.rmtree(home)
    with small_disk(home, 16):
        shutil.move(bundles[0], home / "bundles")
        (home / "tmp").mkdir()
        database, log = Database(default_url(home)), tmp_path / "log"
        headers = owner_key(database)
        process = start("--no-worker", log=log, env={"TMPDIR": str(home / "tmp")})
        base = f"http://127.0.0.1:{port}"

        def correct(number):
            return httpx.post(f"{base}{BUNDLE}/corrections", json={"text": f"{number} " + "長" * 15_000, "label": "parking"},
                              headers={**headers, "Idempotency-Key": f"{number}"}, timeout=60)

        def upload(size):
            return httpx.post(f"{base}/v1/tasks", headers=headers, data={"name": "new"}, timeout=60,
                              files={"file": ("a.csv", b"x" * size, "text/csv")})

        assert correct(0).status_code == 201
        assert upload(1_000).status_code == 201
        assert upload(32 << 20).status_code == 507, "no room for the file under way"
        with (home / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):  # noqa: PT012
            while True:
                file.write(bytes(1 << 12))
        got = [correct(number) for number in range(1, 6)]
        refused = [number for number, answer in enumerate(got, 1) if answer.status_code != 201]
        assert refused
        assert {answer.status_code for answer in got} <= {201, 507}
        assert {answer.json()["error"]["code"] for answer in got if answer.status_code == 507} == {"store_full"}
        assert upload(1_000).status_code == 507
        assert httpx.post(f"{base}{BUNDLE}/predict", json={"texts": ["駐車場"]}, headers=headers).status_code == 200
        process.kill()
        process.wait()
        (home / "filler").unlink()
        answers(port, start("--no-worker", log=log, env={"TMPDIR": str(home / "tmp")}), log)
        assert [correct(number).status_code for number in range(6)] == [201] * 6
        with database.reading() as session:
            assert sorted(int(one.text.split()[0]) for one in session.scalars(select(Correction))) == list(range(6))
            assert audit.verify(session) is None
            waiting = [job.options["upload"] for job in session.scalars(select(Job))]
        assert {path.name for path in home.glob("businesses/*/uploads/*")} == set(waiting)
        assert list((home / "tmp").iterdir()) == []
        database.close()
        assert "Traceback" not in log.read_text()


@pytest.mark.skipif(not FAKETIME and not os.environ.get("MACHIKOBA_NEEDS_POSTGRESQL"), reason="libfaketime is not installed")
def test_a_clock_that_jumps_under_a_server_and_its_worker(start, home, port, tmp_path):
    """A month ahead and two years back, in the middle of the work."""
    headers, log, clock = owner_key(Database(default_url(home))), tmp_path / "log", tmp_path / "clock"
    clock.write_text("+0d")
    start(log=log, env={"LD_PRELOAD": FAKETIME[0], "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
                        "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    base, database = f"http://127.0.0.1:{port}", Database(default_url(home))
    rows = "text,label\n" + "".join(f"{text},{label}\n" for text, label in messages(120))
    tasks, jumps = [], ["+30d", "-730d", "+0d"]
    for number, jump in enumerate(["+0d", *jumps]):
        clock.write_text(jump)
        before = httpx.get(f"{base}/v1/bundles", headers=headers)
        assert before.status_code == 200
        sent = {"text": f"{number}", "label": "parking"}
        same = [httpx.post(f"{base}{BUNDLE}/corrections", headers={**headers, "Idempotency-Key": f"{number}"}, json=sent,
                           timeout=60) for _ in range(2)]
        assert [one.status_code for one in same] == [201, 201]
        made = httpx.post(f"{base}/v1/tasks", headers=headers, data={"name": f"b{number}", "rungs": "words"}, timeout=60,
                          files={"file": ("a.csv", rows.encode(), "text/csv")})
        assert made.status_code == 201
        tasks.append(made.json()["id"])
        time.sleep(1.0)
    deadline, states = time.monotonic() + 200, []
    while time.monotonic() < deadline:
        states = [httpx.get(f"{base}/v1/tasks/{task}", headers=headers).json() for task in tasks]
        if all(one["state"] not in ("queued", "running") for one in states):
            break
        time.sleep(0.2)
    assert [one["state"] for one in states] == ["done"] * len(tasks), states
    years = {datetime.fromisoformat(one["created_at"]).year for one in states}
    assert years > {datetime.now(UTC).year}, "the clock did jump"
    with database.reading() as session:
        assert sorted(one.text for one in session.scalars(select(Correction))) == ["0", "1", "2", "3"]
        assert audit.verify(session) is None
    database.close()
    assert "Traceback" not in log.read_text()
