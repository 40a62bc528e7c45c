"""How often rows were certified on is never counted short, whatever becomes of the disk."""
from __future__ import annotations

import itertools
import json
import threading
from contextlib import suppress

import pytest

from machikoba import files
from machikoba.engine import replays
from machikoba.errors import StorageError
from machikoba.tune import ledger
from machikoba.tune.ledger import spend
from tests.faults import HOWS, Fault, dies


def attempt(act, at, how):
    """What `act` gave, None where it failed or died; and whether the fault went off."""
    if how == "killed":
        return None, dies(act, at)
    with Fault(at, how) as fault, suppress(StorageError):
        return act(), fault.went_off
    return None, fault.went_off


@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_of_the_ledger(tmp_path, how):
    answered, lines = spend(tmp_path, "first", ["a", "b"]), 1
    for at in itertools.count(1):
        name = f"at{at}"
        found, went_off = attempt(lambda name=name: spend(tmp_path, name, ["b", "c"]), at, how)
        assert found is None or found > answered
        answered = found or answered
        again = spend(tmp_path, name, ["b", "c"])
        assert again == found if found else again > answered, "what failed may be counted, what was answered must be"
        answered, lines = again, lines + 1
        assert spend(tmp_path, name, ["b", "c"]) == answered
        assert spend(tmp_path, f"other{at}", [f"z{at}"]) == 1
        if not went_off:
            break
    assert at >= 3
    assert answered == lines, "and each was counted once"


@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_of_the_memory_of_replays(tmp_path, how):
    replays.remember(tmp_path, "old", False)
    for at in itertools.count(1):
        key = f"k{at}"
        _found, went_off = attempt(lambda key=key: replays.remember(tmp_path, key, True), at, how)
        known = replays.known(tmp_path)
        assert known["old"] is False
        assert known.get(key) in ((True,) if not went_off else (True, None))
        if not went_off:
            break
    assert at >= 5


def test_runs_that_ask_at_the_same_moment_get_a_k_each(tmp_path, monkeypatch):
    meet, dumps = threading.Barrier(4), json.dumps

    def slowly(entry):  # between reading the ledger and writing to it
        with suppress(threading.BrokenBarrierError):
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
