"""Interrupted, killed, out of disk: the old state or the new, and nothing between."""
from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import machikoba
from machikoba import files
from machikoba.errors import StorageError
from machikoba.pack.bundle import open_bundle
from machikoba.tune.options import Options
from tests.conftest import messages, write_csv
from tests.faults import Fault

QUICK = {"rungs": ("words",)}


def test_interrupt_leaves_nothing(inquiries, tmp_path, home):
    from machikoba.tune.run import tune

    def stop(what: str, done: int, total: int) -> None:
        if what == "packing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(inquiries, Options(**QUICK), tmp_path / "a.bundle", stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "inquiries.csv"]
    assert not [path for path in home.rglob("*") if not path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "lost"])
def test_a_disk_that_fills_up_or_breaks_at_any_write_leaves_nothing(tmp_path, home, how):
    path = write_csv(tmp_path / "a.csv", messages(420))
    options = Options(holdout="0.4", **QUICK)
    from machikoba.tune.run import tune

    at = 1
    while True:
        with Fault(at, how) as fault, suppress(StorageError):
            tune(path, options, tmp_path / f"out{at}" / "a.bundle")
        if not fault.went_off:
            break
        for left in (tmp_path / f"out{at}").glob("*"):  # whole, when only the last flush of the folder failed, or nothing
            assert left.name == "a.bundle"
            open_bundle(left)
        at += 1
    assert at > 15
    assert machikoba.load(tmp_path / f"out{at}" / "a.bundle").predict(["駐車場"])


def test_a_replaced_file_is_there_after_a_power_cut(tmp_path, monkeypatch):
    """Its bytes are flushed before its name, and its name before anybody is told."""
    done = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "bytes")
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda path, target: (done.append("name"), real_replace(path, target))[1])
    with files.draft_file(tmp_path / "a.csv") as draft:
        draft.write_bytes(b"a")
    assert done == ["bytes", "name", "folder"]


def test_no_permission_to_write(inquiries, tmp_path, monkeypatch):
    real = Path.mkdir

    def forbidden(path, *args, **kwargs):
        if path.name.endswith(".draft"):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(StorageError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", **QUICK)
    assert caught.value.code == "disk_refused"


@pytest.mark.slow
def test_kill_at_any_moment_leaves_the_old_state_or_the_new(tmp_path, home):
    data, target = write_csv(tmp_path / "a.csv", messages(600)), tmp_path / "out" / "a.bundle"
    command = [sys.executable, "-m", "machikoba", "tune", str(data), "--rungs", "words", "--holdout", "0.3", "--out", str(target)]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    draw, made = random.Random(0), 0
    for moment in [draw.uniform(0.1, 1.1) for _ in range(6)] + [draw.uniform(0.75, 1.05) for _ in range(9)]:
        shutil.rmtree(target, ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment * whole)
        process.kill()
        process.wait()
        if target.exists():
            made += 1
            assert machikoba.load(target).predict(["駐車場"])
    assert 0 < made < 15
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in target.parent.iterdir()] == ["a.bundle"]  # drafts of killed runs are cleared away
    assert machikoba.load(target).predict(["駐車場"])
