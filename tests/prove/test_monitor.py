from __future__ import annotations

import json
from math import log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from machikoba.prove.monitor import DOWN_BETS, LEAST, MOST, UP_BETS, UP_PARTS, Evidence, Monitor, _down, _up, _weights

answers = st.lists(st.tuples(st.sampled_from([False, False, False, True]),
                             st.one_of(st.just(1.0), st.sampled_from([0.05, 0.1, 1 / 3]), st.floats(LEAST, 0.999))), max_size=40)
levels = st.tuples(st.sampled_from([0.02, 0.05, 0.1, 0.5]), st.sampled_from([0.8, 0.9, 0.95]))
leasts = st.sampled_from([None, LEAST])


def told(monitor: Monitor, stream) -> Monitor:
    for wrong, p in stream:
        monitor.update(wrong, p)
    return monitor


def statements(monitor: Monitor):
    return (monitor.upper_bound, monitor.lower_bound, monitor.qualified, monitor.suspended, monitor.audited, monitor.wrong)


def test_an_empty_stream_says_nothing():
    assert statements(Monitor()) == (1.0, 0.0, False, False, 0, 0)


@given(levels, leasts, answers)
def test_the_statements_agree_with_each_other_at_all_times(level, least, stream):
    monitor, earned = Monitor(*level, least), False
    for n, (wrong, p) in enumerate(stream, start=1):
        census = all(q == 1.0 for _, q in stream[:n])
        if least is None and n > 1 and not census and all(q == 1.0 for _, q in stream[:n - 1]):
            earned = False  # no longer a census: earned anew
        monitor.update(wrong, p)
        upper, lower, qualified, suspended, audited, mistakes = statements(monitor)
        earned |= upper <= level[0]
        assert qualified == (earned and not suspended)
        assert 0 <= lower <= upper <= 1
        weights = np.array([1 / q for _, q in stream[:n]])
        average = float(weights @ [w for w, _ in stream[:n]] / weights.sum())
        assert lower - 0.02 <= average <= upper + 0.02  # the probabilities are rounded to 0.001
        assert (audited, mistakes) == (n, sum(w for w, _ in stream[:n]))


@given(levels, leasts, answers, st.integers(0, 40))
def test_a_stored_monitor_goes_on_exactly(level, least, stream, at):
    here = told(Monitor(*level, least), stream[:at])
    there = Monitor.from_dict(json.loads(json.dumps(here.to_dict(), allow_nan=False)))
    assert there.to_dict() == here.to_dict()
    for answer in stream[at:]:
        here.update(*answer)
        there.update(*answer)
        assert statements(there) == statements(here)
    assert there.to_dict() == here.to_dict()


@pytest.mark.parametrize("change", [
    {"up": [0.0]}, {"turned": [float("nan")] * 7}, {"turned": [-1.0] * 7}, {"counts": [[3, 1, 1]]}, {"counts": [[2000, -1, 0]]},
    {"counts": 5}, {"max_error": 2}, {"up": None}])
def test_what_was_not_stored_is_refused(change):
    with pytest.raises(ValueError, match=r"."):
        Monitor.from_dict(told(Monitor(), [(False, 1.0)]).to_dict() | change)
    with pytest.raises(ValueError, match="not a stored monitor"):
        Monitor.from_dict({"max_error": 0.05})


@pytest.mark.parametrize("bad", [
    {"max_error": 0}, {"max_error": 1}, {"max_error": float("nan")}, {"confidence_level": 0}, {"confidence_level": 1},
    {"confidence_level": float("nan")}, {"least_sampling_probability": 0.04}, {"least_sampling_probability": 1.01},
    {"least_sampling_probability": float("nan")}])
def test_impossible_levels_are_refused(bad):
    with pytest.raises(ValueError, match="must lie between"):
        Monitor(**bad)


@pytest.mark.parametrize(("wrong", "p"), [(False, 0.049), (False, 1.001), (True, float("nan")), (False, 0.0), (False, -1.0),
                                          (float("nan"), 1.0), (0.5, 1.0), (2, 1.0)])
def test_impossible_answers_are_refused_and_change_nothing(wrong, p):
    monitor = told(Monitor(), [(False, 1.0), (True, 1.0)])
    before = monitor.to_dict()
    with pytest.raises(ValueError, match=r"must"):
        monitor.update(wrong, p)
    assert monitor.to_dict() == before


def test_less_than_was_declared_is_refused():
    with pytest.raises(ValueError, match="below the least declared"):
        Monitor(least_sampling_probability=0.2).update(False, 0.19)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.25, 0.5, 1.0])), min_size=1, max_size=60))
def test_the_wealth_is_what_the_law_says(stream):
    """The product over all answers, written out: bets λ as shares of the largest that cannot ruin."""
    alpha, least = 0.05, 0.1
    evidence = told(Monitor(alpha, 0.95, least), stream)._evidence
    wealth = [np.prod([1 + bet * least / (1 - alpha) * (alpha - wrong) / p for wrong, p in stream]) for bet in UP_BETS]
    assert np.exp(evidence.up) == pytest.approx(wealth, rel=1e-9)
    summed = np.zeros(len(DOWN_BETS))
    for wrong, p in stream:
        summed = (summed + 1) * (1 + np.minimum(MOST, DOWN_BETS * alpha) * least / alpha * (wrong - alpha) / p)
    assert evidence.suspended or evidence.turned == pytest.approx(summed, rel=1e-9)
    assert evidence.proved == (log(float(UP_PARTS @ wealth)) >= -log(0.8 * 0.05))


@given(st.floats(LEAST, 1), st.floats(LEAST, 1), st.booleans(), st.floats(0.001, 0.999))
def test_rounding_a_probability_never_helps_a_bet(p, least, wrong, m):
    assume(p >= least)
    gain, loss = _weights(np.float64(p), least)
    up = np.log1p(UP_BETS * least / (1 - m) * (m - wrong) / p)
    down = np.log1p(np.minimum(MOST, DOWN_BETS * m) * least / m * (wrong - m) / p)
    assert (_up(not wrong, gain, loss, m) <= up + 1e-6).all()
    assert (_down(wrong, gain, loss, m) <= down + 1e-6).all()


@given(answers)
def test_a_census_that_ends_is_weighed_anew_from_its_start(stream):
    assume(any(p < 1 for _, p in stream))
    undeclared, declared = told(Monitor(), stream), told(Monitor(least_sampling_probability=LEAST), stream)
    assert undeclared._evidence.up == pytest.approx(declared._evidence.up, abs=1e-9)
    assert undeclared.upper_bound == pytest.approx(declared.upper_bound, abs=1e-3)
    assert undeclared.lower_bound == declared.lower_bound


def test_the_end_of_a_census_takes_back_what_small_bets_have_not_earned():
    monitor = told(Monitor(), [(False, 1.0)] * 100)
    assert monitor.qualified
    monitor.update(False, 0.5)
    assert not monitor.qualified
    assert monitor.upper_bound > 0.05
    assert told(monitor, [(False, 0.05)] * 100).qualified


def test_suspension_is_final():
    monitor = told(Monitor(), [(False, 1.0)] * 100 + [(True, 1.0)] * 8)
    assert (monitor.qualified, monitor.suspended) == (False, True)
    told(monitor, [(False, 1.0)] * 5_000)
    assert (monitor.qualified, monitor.suspended) == (False, True)
    assert monitor.upper_bound < 0.05
    told(monitor, [(False, 0.5)] * 5_000)
    assert (monitor.qualified, monitor.suspended) == (False, True)


def test_memory_has_an_end():
    monitor = told(Monitor(), [(i % 50 == 0, p) for i, p in enumerate(np.random.default_rng(0).uniform(LEAST, 1, 5_000))])
    assert len(monitor.to_dict()["counts"]) <= 1_901
    assert 0 < monitor.lower_bound < monitor.upper_bound < 1


def test_one_stream_is_a_column_of_many():
    draw = np.random.default_rng(2)
    wrong, p = draw.random((200, 3)) < 0.1, draw.choice([0.1, 0.35, 1.0], (200, 3))
    many = Evidence(0.05, 0.95, (3,))
    for t in range(200):
        many.add(wrong[t], p[t], 0.1)
    for i in range(3):
        one = told(Monitor(least_sampling_probability=0.1), zip(wrong[:, i], p[:, i], strict=True))
        assert one._evidence.up == pytest.approx(many.up[i])
        assert (one.qualified, one.suspended) == (many.qualified[i], many.suspended[i])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("max_error", [1e-9, 0.999, 1 - 1e-12])
@pytest.mark.parametrize("level", [1e-9, 1 - 1e-15])
def test_extreme_levels_break_nothing(max_error, level):
    for wrong in (True, False):
        monitor = told(Monitor(max_error, level), [(wrong, 1.0)] * 40 + [(wrong, 0.3)] * 10)
        assert 0 <= monitor.lower_bound <= monitor.upper_bound <= 1
        assert Monitor.from_dict(json.loads(json.dumps(monitor.to_dict(), allow_nan=False))).to_dict() == monitor.to_dict()
