"""Certificates that are asked for at the same moment."""
from __future__ import annotations

import contextlib
import json
import threading

from machikoba import files
from machikoba.tune import ledger


def test_runs_that_ask_at_the_same_moment_get_a_k_each(tmp_path, monkeypatch):
    meet, dumps = threading.Barrier(4), json.dumps

    def slowly(entry):  # between reading the ledger and writing to it
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait(0.3)
        return dumps(entry)

    monkeypatch.setattr(ledger.json, "dumps", slowly)
    found = []
    asking = [threading.Thread(target=lambda i=i: found.append(ledger.spend(tmp_path, f"run {i}", ["a", "b"]))) for i in range(4)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert sorted(found) == [1, 2, 3, 4]


def test_whoever_holds_a_path_is_waited_for(tmp_path):
    order = []

    def second():
        with files.alone_at(tmp_path / "x"):
            order.append("second")

    with files.alone_at(tmp_path / "x"):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
