"""Backups and restores as commands: their words, and killed at any moment."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from machikoba.store import archive, inuse, migrations, restore
from machikoba.store.database import Database, default_url
from tests.store.kept import PASSPHRASE, fill, found_after, told


def machikoba(home, *words, wait=True, **environment):
    process = subprocess.Popen([sys.executable, "-m", "machikoba", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env=os.environ | {"MACHIKOBA_HOME": str(home), **environment})
    if not wait:
        return process
    out = process.communicate()[0]
    return process.returncode, json.loads(out)


def kill_at_any_moment(tmp_path, made, delays):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    own = Database(default_url(home))
    migrations.upgrade(own)
    kept = fill(home, own, made.path)
    status, first = machikoba(home, "backup", "--json")
    assert status == 0
    for number, delay in enumerate(delays):
        new = tmp_path / f"killed{number}"
        new.mkdir()
        for words, at in (("backup", home), (("restore", first["file"]), new)):
            process = machikoba(at, *([words] if isinstance(words, str) else words), wait=False)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        there = Database(default_url(new))
        restore.finish(new, there)
        assert found_after(new, there) in (None, kept)
        there.close()
        status, found = machikoba(new, "restore", first["file"], "--replace", "--json")
        assert status == 0, found
        assert told(there) == kept
        there.close()
        assert not list(new.glob(".*.draft"))
    assert machikoba(home, "backup", "--json")[0] == 0
    for file in (home / "backups").iterdir():
        archive.verify(file, None)  # none is half-made, and no draft of a killed one is left
    own.close()


def test_killed_at_any_moment(tmp_path, made):
    kill_at_any_moment(tmp_path, made, [0.9, 1.2, 1.5])


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_killed_at_fifty_moments(tmp_path, made):
    kill_at_any_moment(tmp_path, made, [0.6 + 0.03 * i for i in range(50)])


def test_commands(tmp_path, made):
    home, new = tmp_path / "home", tmp_path / "other"
    home.mkdir(exist_ok=True)
    own = Database(default_url(home))
    migrations.upgrade(own)
    kept = fill(home, own, made.path)
    own.close()
    (tmp_path / "pass").write_text(f"{PASSPHRASE}\n")
    secret = ("--passphrase-file", str(tmp_path / "pass"))
    status, found = machikoba(home, "backup", str(tmp_path / "b"), *secret, "--keep-days", "7", "--json")
    assert (status, found["encrypted"], found["bytes"]) == (0, True, (tmp_path / "b").stat().st_size)
    assert machikoba(new, "restore", str(tmp_path / "b"), "--json")[1]["error"]["code"] == "passphrase_needed"
    status, found = machikoba(new, "restore", str(tmp_path / "b"), "--check", "--json", MACHIKOBA_PASSPHRASE=PASSPHRASE)
    assert (status, "restore" in found) == (0, False)
    with inuse.using(new):
        status, found = machikoba(new, "restore", str(tmp_path / "b"), *secret, "--json")
    assert (status, found["error"]["code"]) == (1, "home_in_use")
    assert machikoba(new, "restore", str(tmp_path / "b"), *secret, "--json")[0] == 0
    there = Database(default_url(new))
    assert told(there) == kept
    there.close()
    assert machikoba(new, "restore", str(tmp_path / "b"), *secret, "--json")[1]["error"]["code"] == "home_not_empty"
    (tmp_path / "pass").write_text("short")
    assert machikoba(home, "backup", *secret, "--json")[1]["error"]["code"] == "passphrase_unusable"
    (tmp_path / "pass").unlink()
    assert machikoba(home, "backup", *secret, "--json")[1]["error"]["code"] == "passphrase_file"
