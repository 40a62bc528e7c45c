"""Requests wait in turn and within bounds, whatever the clients do."""
from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machikoba.engine.lanes import AT_ONCE, BusyError, Lane
from machikoba.tasks.classify import Prediction


class FakeEngine:
    """Answers each text with itself; notes what was asked together, and waits while `gate` is closed."""

    def __init__(self):
        self.gate, self.batches, self.bad = threading.Event(), [], None
        self.gate.set()

    def answer(self, asked):
        self.gate.wait(10)
        self.batches.append([(service, len(texts)) for service, texts in asked])
        if any(text == self.bad for _service, texts in asked for text in texts):
            raise ValueError("bad")
        return [[Prediction(f"{service}:{text}", 1.0, True, True) for text in texts] for service, texts in asked]


@pytest.fixture
def engine():
    return FakeEngine()


def held(lane, engine):
    """Closes the gate behind one text, so that all that follows waits."""
    engine.gate.clear()
    first = lane.ask("s", ["first"], "x")
    while lane.waiting:
        time.sleep(0.001)
    return first


def test_what_gathers_is_answered_together_and_in_order(engine):
    lane = Lane(engine, "test")
    first = held(lane, engine)
    asked = [lane.ask(f"s{i}", [f"{i}-{j}" for j in range(3)], "x") for i in range(5)]
    engine.gate.set()
    for i, future in enumerate(asked):
        assert [p.label for p in future.result(5)] == [f"s{i}:{i}-{j}" for j in range(3)]
    assert first.result(5)
    lane.close()
    assert len(engine.batches) < 5


def test_a_large_request_does_not_hold_up_another_business(engine):
    lane = Lane(engine, "test")
    held(lane, engine)
    large, small = lane.ask("big", ["t"] * 1_000, "one"), lane.ask("little", ["t"] * 2, "two")
    engine.gate.set()
    assert len(small.result(5)) == 2
    assert len(large.result(5)) == 1_000
    assert ("little", 2) in engine.batches[1]
    assert all(sum(n for _service, n in batch) <= AT_ONCE for batch in engine.batches)
    lane.close()


def test_a_full_lane_refuses_and_says_when_to_come_again(engine):
    lane = Lane(engine, "test", most_waiting=10)
    held(lane, engine)
    lane.ask("s", ["t"] * 25, "x")  # alone it may be as large as it likes
    with pytest.raises(BusyError) as caught:
        lane.ask("s", ["t"], "y")
    assert 1 <= caught.value.retry_after_seconds <= 60
    engine.gate.set()
    lane.close()


def test_one_bundles_fault_is_not_anothers(engine):
    lane = Lane(engine, "test")
    engine.bad = "bad"
    held(lane, engine)
    good, bad = lane.ask("good", ["t"], "x"), lane.ask("ill", ["t", "bad"] + ["t"] * 200, "y")
    engine.gate.set()
    assert good.result(5)[0].label == "good:t"
    with pytest.raises(ValueError, match="bad"):
        bad.result(5)
    assert lane.ask("good", ["u"], "x").result(5)
    assert lane.waiting == 0
    lane.close()


def test_what_is_cancelled_before_its_turn_is_not_answered(engine):
    lane = Lane(engine, "test")
    held(lane, engine)
    gone, stays = lane.ask("gone", ["t"], "x"), lane.ask("stays", ["t"], "x")
    assert gone.cancel()
    engine.gate.set()
    assert stays.result(5)
    with pytest.raises(CancelledError):
        gone.result(5)
    lane.close()
    assert "gone" not in {service for batch in engine.batches for service, _n in batch}
    assert lane.waiting == 0


def test_closing_answers_what_was_accepted_and_takes_nothing_more(engine):
    lane = Lane(engine, "test")
    held(lane, engine)
    asked = [lane.ask("s", ["t"] * 100, "x") for _ in range(3)]
    closer = threading.Thread(target=lane.close)
    closer.start()
    while not lane._closed:
        time.sleep(0.001)
    with pytest.raises(BusyError):
        lane.ask("s", ["t"], "x")
    engine.gate.set()
    closer.join(10)
    assert all(len(future.result(0)) == 100 for future in asked)


def test_nothing_is_asked(engine):
    assert Lane(engine, "test").ask("s", [], "x").result(1) == []


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 150), st.booleans()), max_size=12))
def test_every_text_is_answered_once(requests):
    engine = FakeEngine()
    lane = Lane(engine, "test")
    held(lane, engine)
    asked = [(name, [f"{i}.{j}" for j in range(n)], lane.ask(name, [f"{i}.{j}" for j in range(n)], name), cancelled)
             for i, (name, n, cancelled) in enumerate(requests)]
    dropped = {i for i, (_name, _texts, future, cancelled) in enumerate(asked) if cancelled and future.cancel()}
    engine.gate.set()
    for i, (name, texts, future, _cancelled) in enumerate(asked):
        if i not in dropped:
            assert [p.label for p in future.result(5)] == [f"{name}:{text}" for text in texts]
    lane.close()
    told: Counter[str] = Counter()
    for batch in engine.batches:
        for service, n in batch:
            told[service] += n
    wanted: Counter[str] = Counter(s=1)
    for i, (name, n, _cancelled) in enumerate(requests):
        if i not in dropped:
            wanted[name] += n
    assert (told, lane.waiting) == (wanted, 0)
