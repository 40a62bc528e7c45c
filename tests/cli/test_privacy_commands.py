"""`forget` and `retention` as a clerk and a script use them."""
from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from machikoba.cli import app
from machikoba.cli.output import Mode
from machikoba.errors import StorageError
from machikoba.pack import erased
from machikoba.pack.bundle import open_bundle
from machikoba.store import people
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.worker import remake
from tests.cli.test_cli import run


@pytest.fixture
def path(home, made):
    return shutil.copytree(made.path, home / "bundles" / "a.bundle")


def first(path):
    return erased.left(open_bundle(path))[0]


def test_it_shows_and_changes_nothing(path):
    example = first(path)
    done = run("forget", example["id"], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert example["text"][:20] in done.stdout
    assert "1 messages in bundles" in done.stdout
    assert not erased.unfinished(path)
    told = json.loads(run("forget", example["id"], "--dry-run", "--json").stdout)
    assert [row["id"] for row in told["rows"]] == [example["id"]]
    assert told["receipt"] is None


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_nobody_to_ask_and_no_yes(path, arguments):
    done = run("forget", first(path)["id"], *arguments)
    assert done.returncode == 2
    assert "--yes" in done.stdout + done.stderr
    assert not erased.unfinished(path)


def test_traces_from_a_pipe_and_the_receipt(path):
    example = first(path)
    done = subprocess.run([sys.executable, "-m", "machikoba", "forget", "--yes"], input=f"{example['id']}\n\n山本花太郎\n",
                          text=True, capture_output=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["receipt", "asked", "places", "bundles", "bundle"]
    assert "山本花太郎" in lines[1]
    assert "made again" in lines[4]
    assert example["id"] not in {one["id"] for one in open_bundle(path).examples()}


@pytest.mark.parametrize(("typed", "goes"), [("n\n", False), ("y\n", True)])
def test_on_a_terminal_it_asks(path, typed, goes):
    example = first(path)
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "machikoba", "forget", example["id"], "--void"], stdin=theirs, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    os.write(ours, typed.encode())
    out, err = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert "Shall all this be forgotten?" in out + err
    assert process.returncode == (0 if goes else 130), err
    assert path.exists() != goes


def test_void_says_why_and_leaves_nothing(path):
    done = json.loads(run("forget", first(path)["id"], "--yes", "--void", "--json").stdout)
    assert [(one["status"], one["after"], one["why"]) for one in done["bundles"]] == [("void", None, "as you wished")]
    assert list(path.parent.iterdir()) == []


def test_one_business_and_its_days(home, path):
    database = Database(default_url(home))
    upgrade(database)
    assert "serve" in run("retention").stdout
    with database.writing() as session:
        for name in ("Inn", "Clinic"):
            people.add_business(session, name, "console")
    (set_,) = json.loads(run("retention", "30", "--business", "Inn", "--json").stdout)["businesses"]
    assert set_["retention_days"] == 30
    told = json.loads(run("retention", "--json").stdout)["businesses"]
    assert {one["name"]: one["retention_days"] for one in told} == {"Inn": 30, "Clinic": None}
    run("retention", "none")
    assert "until somebody deletes them" in run("retention").stdout
    for arguments, code in ((("retention", "x"), "days_wrong"), (("retention", "0"), "days_wrong"),
                            (("retention", "1", "--business", "None"), "business_not_here"),
                            (("forget", "林", "--yes"), "trace_too_short"), (("forget", "です", "--yes"), "forget_too_many")):
        done = run(*arguments, "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1 if code == "forget_too_many" else 2, code)
    narrow = json.loads(run("forget", first(path)["id"], "--dry-run", "--business", "Inn", "--json").stdout)
    assert narrow["found"]["messages"] == 0, "a bundle of the command line belongs to no business"
    database.close()


def test_what_fails_for_now_waits(path, monkeypatch):
    def full(*_arguments):
        raise StorageError("disk_full", "The disk is full.")

    monkeypatch.setattr(Mode, "json", False)
    monkeypatch.setattr(Mode, "unfinished", "")
    monkeypatch.setattr(remake, "remake", full)
    done = CliRunner().invoke(app, ["forget", first(path)["id"], "--yes"])
    assert (done.exit_code, "waits    a.bundle" in done.output, "The disk is full." in done.output) == (1, True, True)
    assert erased.unfinished(path)
    assert run("forget", "山本花太郎", "--yes").returncode == 0
    assert not erased.unfinished(path)


def test_in_japanese(path):
    done = run("forget", first(path)["id"], "090-1234-5678", "--yes", MACHIKOBA_LANG="ja")
    assert done.returncode == 0
    assert "作り直しました" in done.stdout
    assert not any(word in done.stdout for word in ("receipt", "messages", "qualified"))
