"""`machikoba doctor` as a user runs it."""
from __future__ import annotations

import json
import socket

from machikoba.doctor.examine import worst
from machikoba.doctor.finding import OK, Finding
from tests.cli.test_cli import run


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_new_installation(home):
    done = run("doctor", "--json", "--port", free_port())
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["state"] in ("ok", "warn")
    assert {"programs", "settings", "home", "disk", "memory", "clock", "store", "bundles", "server"} <= {
        finding["name"] for finding in said["findings"]}
    assert not home.exists()


def test_what_ails_it_is_said_in_both_languages(home):
    home.mkdir()
    (home / "settings.toml").write_text("[prices")
    for language, mark in (("en", "× settings: "), ("ja", "× 設定")):
        done = run("doctor", "--port", free_port(), MACHIKOBA_LANG=language)
        assert done.returncode == 1
        assert mark in done.stdout
    assert run("doctor", "--public-name", "https://office.example").returncode == 2


def test_the_worst_counts():
    assert worst([]) == OK
    assert worst([Finding("a", state, "") for state in ("ok", "bad", "warn")]) == "bad"
