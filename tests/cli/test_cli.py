from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import messages, write_csv


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "machikoba", *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | environment, check=False, encoding="utf-8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    path = write_csv(folder / "inquiries.csv", messages(120))
    done = run("tune", path, "--rungs", "words", "--out", folder / "a.bundle", "--json", MACHIKOBA_HOME=str(folder))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "apprentice"
    return folder / "a.bundle"


def test_tune_tells_the_story_in_plain_words(inquiries, tmp_path):
    done = run("tune", inquiries, "--rungs", "words", "--out", tmp_path / "a.bundle")
    assert done.returncode == 0
    starts = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert starts == ["read", "estimate", "step", "test", "check", "price", "bundle", "next"]
    for jargon in ("coverage", "alpha", "δ", "out-of-fold", "rung", "MCC"):
        assert jargon not in done.stdout


def test_every_command_speaks_json(bundle, inquiries, tmp_path):
    for arguments in (("check", inquiries), ("predict", bundle, inquiries, "--out", tmp_path / "p.csv"), ("prove", bundle),
                      ("prove", bundle, inquiries), ("explain", bundle, "駐車場はありますか"), ("bases",), ("bundles",)):
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)


def test_plain_output_of_every_command(bundle, inquiries, tmp_path):
    for arguments, word in ((("check", inquiries), "120 messages"), (("prove", bundle), "apprentice"),
                            (("prove", bundle, inquiries), "right, if all were answered"),
                            (("explain", bundle, "駐車場はありますか"), "parking"), (("bases",), "multilingual-e5-small"),
                            (("bundles",), "No bundle yet"), (("--version",), ".")):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout


@pytest.mark.parametrize(("arguments", "code", "status"), [
    (("check", "none.csv"), "file_missing", 2), (("tune", "{data}", "--budget", "soon"), "option_wrong", 2),
    (("tune", "{data}", "--task", "answer"), "option_wrong", 2), (("tune", "{data}", "--base", "nothing"), "base_not_here", 2),
    (("tune", "{data}", "--label", "zzz"), "column_missing", 2), (("predict", "none", "{data}"), "bundle_missing", 2),
    (("predict", "{bundle}", "{data}", "--out", "a.pdf"), "option_wrong", 2),
    (("tune", "{data}", "--rungs", "words", "--require-certificate"), "no_certificate", 1),
])
def test_errors_have_one_shape_and_no_traceback(arguments, code, status, bundle, inquiries):
    filled = [a.format(data=inquiries, bundle=bundle) for a in arguments]
    done = run(*filled, "--json")
    assert done.returncode == status
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "expected", "found", "next"}
    plain = run(*filled)
    assert plain.returncode == status
    assert plain.stderr.startswith("Problem: ")
    assert "Traceback" not in plain.stderr + plain.stdout


def test_japanese(inquiries):
    done = run("check", inquiries, MACHIKOBA_LANG="ja")
    assert "120件" in done.stdout
    missing = run("check", "none.csv", MACHIKOBA_LANG="ja")
    assert "messages" not in done.stdout
    assert "ありません" in missing.stderr
