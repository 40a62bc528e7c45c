"""What ails the machine is found, and said with what to do."""
from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from machikoba import files, memory
from machikoba.doctor import machine
from machikoba.doctor.finding import BAD, OK, WARN
from machikoba.store.tables import now


def one(findings, state):
    assert [finding.state for finding in findings] == [state]
    assert bool(findings[0].next) == (state != OK)
    return findings[0]


@pytest.fixture
def own(home):
    """A home that only its owner can read."""
    home.mkdir(mode=0o700)
    return home


def test_programs_are_named():
    assert "multilingual-e5-small" in one(machine.programs(), OK).found


def test_a_gpu_build_without_a_gpu(monkeypatch):
    class Found:
        metadata, version = {"Name": "nvidia-cublas-cu12"}, "12"

    monkeypatch.setattr(machine, "distributions", lambda: [Found])
    assert "nvidia-cublas-cu12" in one(machine.programs(), WARN).next


def test_settings(own):
    one(machine.settings(), OK)
    (own / "settings.toml").write_text("[prices]\nwatts = 'many'\n")
    assert "settings.toml" in one(machine.settings(), BAD).found


def test_a_home_that_is_not_there_yet_stays_so(home):
    one(machine.home_folder(home), WARN)
    assert not home.exists()


def test_a_home_that_is_written_leaves_nothing(own):
    one(machine.home_folder(own), OK)
    assert list(own.iterdir()) == []


@pytest.mark.parametrize(("number", "way"), [(errno.ENOSPC, "Make room"), (errno.EROFS, "another folder")])
def test_a_home_that_cannot_be_written(own, monkeypatch, number, way):
    def refuse(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    assert way in one(machine.home_folder(own), BAD).next
    assert list(own.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions are kept differently there")
def test_a_home_that_others_read(own):
    folders = [own, *own.parents]
    modes = {folder: folder.stat().st_mode for folder in folders}
    closed = [folder for folder in own.parents if not modes[folder] & 0o001]
    try:
        for folder in closed:  # pytest closes its own
            folder.chmod(modes[folder] | 0o001)
        own.chmod(0o755)
        assert one(machine.home_folder(own), WARN).next == f"chmod 700 {own}"
        own.parent.chmod(0o700)
        one(machine.home_folder(own), OK)  # nobody gets that far
    finally:
        for folder in (*closed, own.parent):
            folder.chmod(modes[folder])


@pytest.mark.parametrize(("free_mib", "state"), [(100, BAD), (500, BAD), (1_400, WARN), (2_000, OK)])
def test_room_on_the_disk(own, monkeypatch, free_mib, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 40, 0, free_mib << 20))
    assert f"{free_mib:,} MiB free" in one(machine.disk(own / "not" / "there", 400), state).found


@pytest.mark.parametrize(("total", "free", "serving", "state"), [
    (8_000, 3_000, False, OK), (8_000, 500, False, WARN), (8_000, 500, True, OK), (1_000, 900, True, BAD)])
def test_room_in_memory(monkeypatch, total, free, serving, state):
    monkeypatch.setattr(memory, "total_mib", lambda: total)
    monkeypatch.setattr(memory, "available_mib", lambda: free)
    one(machine.room_in_memory(1_200, serving), state)


def test_a_container_limits_memory(tmp_path, monkeypatch):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("4:memory:/x\n0::/a/b\n")
    (group / "memory.max").write_text("max\n")
    for name, value in (("max", 300 << 20), ("current", 120 << 20), ("stat", f"anon 1\ninactive_file {20 << 20}")):
        (group.parent / f"memory.{name}").write_text(f"{value}\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "own")
    assert (memory.total_mib(), memory.available_mib()) == (300, 200)
    (group.parent / "memory.current").write_text(str(400 << 20))
    assert memory.available_mib() == 0
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "none")
    assert memory.total_mib() > 300


def test_a_clock_that_went_back(own, monkeypatch):
    monkeypatch.setattr(machine, "_kept_right", lambda: None)
    one(machine.clock(own, now()), OK)
    one(machine.clock(own, now() + timedelta(hours=1)), BAD)
    (own / "machikoba.sqlite").touch()
    one(machine.clock(own, None), OK)
    os.utime(own / "machikoba.sqlite", times=(time.time() + 9_000,) * 2)
    assert "clock" in one(machine.clock(own, None), BAD).next


@pytest.mark.parametrize(("said", "state"), [("yes\n", OK), ("no\n", WARN), ("", OK), (None, OK)])
def test_who_keeps_the_clock(own, monkeypatch, said, state):
    def run(command, **_options):
        if said is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, said)

    monkeypatch.setattr(machine.subprocess, "run", run)
    one(machine.clock(own, None), state)


def test_folders_that_only_the_owner_enters(tmp_path):
    assert machine._open_to_others(Path("/"))
