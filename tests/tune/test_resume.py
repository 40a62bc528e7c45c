"""A run that was interrupted goes on with --resume, and ends with the same bytes as one that was not."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import machikoba
from machikoba.adapt import checkpoint
from machikoba.errors import StorageError
from machikoba.settings import home
from machikoba.work import DAYS_KEPT, WorkFolder, key
from tests.conftest import messages, write_csv

RUNGS = "features,top,lora"


@pytest.fixture
def inquiries(tmp_path):
    """Messages of which every fifth has a label that nothing in it says, so that no step reaches the goal."""
    rows = [(text, label if i % 5 else "wrong") for i, (text, label) in enumerate(messages(80))]
    return write_csv(tmp_path / "noisy.csv", rows)


def tune(data, out, base, **options):
    return machikoba.tune(data, out, bases=(str(base),), rungs=tuple(RUNGS.split(",")), target_coverage=0.999, holdout="none",
                          **options)


def parts(bundle: Path) -> dict[str, bytes]:
    """All of a bundle that says nothing of when and how long."""
    timed = {"recipe.toml", "proof.json", "card.md", "MANIFEST.sha256"}
    return {str(path.relative_to(bundle)): path.read_bytes() for path in sorted(bundle.rglob("*"))
            if path.is_file() and path.name not in timed}


def test_after_ctrl_c(inquiries, tiny_encoder, tmp_path, monkeypatch):
    whole = tune(inquiries, tmp_path / "whole.bundle", tiny_encoder)
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    original, done, stops = checkpoint.Checkpoint.keep, [], (3, 20, 50)

    def keep(self, losses, finished):
        original(self, losses, finished)
        done.append(finished)
        if len(done) in stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoint, "keep", keep)
    for stop in range(len(stops)):
        with pytest.raises(KeyboardInterrupt):
            tune(inquiries, tmp_path / "broken.bundle", tiny_encoder, resume=stop > 0)
        assert not (tmp_path / "broken.bundle").exists()
        assert list((home() / "work").iterdir())
    broken = tune(inquiries, tmp_path / "broken.bundle", tiny_encoder, resume=True)
    unbroken = []
    monkeypatch.setattr(checkpoint.Checkpoint, "keep",
                        lambda self, losses, finished: unbroken.append(finished) or original(self, losses, finished))
    again = tune(inquiries, tmp_path / "again.bundle", tiny_encoder)
    assert len(done) == len(unbroken), "no step was done twice"
    assert parts(broken.path) == parts(whole.path) == parts(again.path)
    assert len(parts(whole.path)) >= 6
    assert not list((home() / "work").iterdir())


def test_after_kill_9(inquiries, tiny_encoder, tmp_path):
    whole = tune(inquiries, tmp_path / "whole.bundle", tiny_encoder)
    work = home() / "work"
    often = ("from machikoba.adapt import checkpoint; checkpoint.EVERY_SECONDS = 0.0\n"
             "import sys; from machikoba.cli import main; main()")
    command = [sys.executable, "-c", often, "tune", str(inquiries), "--base", str(tiny_encoder), "--rungs", RUNGS,
               "--target-coverage", "0.999", "--holdout", "none", "--out", str(tmp_path / "killed.bundle"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(work.glob("*/*.safetensors"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "killed.bundle").exists()
    done = subprocess.run([*command, "--resume"], check=True, capture_output=True, env=os.environ)
    assert done.stdout
    assert parts(tmp_path / "killed.bundle") == parts(whole.path)
    assert not list(work.glob("*"))


def test_a_run_without_resume_begins_anew(inquiries, tiny_encoder, tmp_path, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(inquiries, tmp_path / "a.bundle", tiny_encoder)
    left = set((home() / "work").glob("*/*"))
    assert left
    seen = []
    monkeypatch.setattr(WorkFolder, "load", lambda self, key: seen.append(key))  # always nothing
    monkeypatch.setattr(WorkFolder, "save", lambda self, key, tensors: seen.append(set((home() / "work").glob("*/*"))))
    tune(inquiries, tmp_path / "a.bundle", tiny_encoder)
    assert seen
    assert set() in seen, "what was left is gone before anything new is kept"


def test_a_damaged_entry_is_as_good_as_none(tmp_path):
    import numpy as np

    work = WorkFolder(tmp_path / "w")
    assert work.load("a") is None
    work.save("a", {"x": np.arange(3)})
    found = work.load("a")
    assert found is not None
    assert found["x"].tolist() == [0, 1, 2]
    path = next((tmp_path / "w").iterdir())
    path.write_bytes(path.read_bytes()[:-5])
    assert work.load("a") is None


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(StorageError) as caught:
        WorkFolder(tmp_path / "work").save("a", {"x": np.zeros(3)})
    assert caught.value.code == "disk_full"
    assert list((tmp_path / "work").iterdir()) == []


def test_work_that_nobody_went_on_with_goes_after_a_while(tmp_path):
    import numpy as np

    old, new = WorkFolder(tmp_path / "old"), WorkFolder(tmp_path / "new")
    for work in (old, new):
        work.save("a", {"x": np.zeros(1)})
    past = time.time() - (DAYS_KEPT + 1) * 86_400
    os.utime(tmp_path / "old", (past, past))
    WorkFolder(tmp_path / "third").begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_keys_tell_their_parts_apart():
    assert key("ab", "c") != key("a", "bc") != key("abc")
    assert key(b"x", 1) == key(b"x", 1)
