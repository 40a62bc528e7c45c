from __future__ import annotations

from math import ceil, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from machikoba.prove.certificate import (
    answers_needed,
    certificate_chance,
    certify,
    choose_thresholds,
    minimum_answered,
    power,
    rows_needed,
    spent_level,
)


def rows(n, error, seed=0):
    draw = np.random.default_rng(seed)
    confidence = draw.random(n)
    return confidence, draw.random(n) >= error(confidence)


def test_a_good_classifier_earns_it_and_the_statement_adds_up():
    confidence, correct = rows(400, lambda c: 0.02 + 0 * c)
    found = certify(confidence, correct, [0.9, 0.5, 0.2])
    assert found.threshold == 0.2
    assert found.answered == (confidence >= 0.2).sum()
    assert found.wrong == (~correct[confidence >= 0.2]).sum()
    assert found.coverage == found.answered / 400
    assert found.p_value == pytest.approx(binom.cdf(found.wrong, found.answered, 0.05))
    assert found.needed == 0


def test_it_stops_at_the_first_threshold_that_fails():
    confidence = np.array([0.9] * 100 + [0.5] * 100 + [0.1] * 300)
    correct = np.array([True] * 100 + [False] * 100 + [True] * 300)
    found = certify(confidence, correct, [0.8, 0.4, 0.0])
    assert found.threshold == 0.8
    assert [test.rejected for test in found.tested] == [True, False]


def test_thresholds_with_too_few_rows_are_skipped_not_failed():
    confidence = np.concatenate([np.full(10, 0.99), np.full(200, 0.6)])
    found = certify(confidence, np.array([False] + [True] * 209), [0.9, 0.5])
    assert found.threshold == 0.5
    assert len(found.tested) == 1


def test_what_is_missing_is_said_honestly():
    few = certify(np.ones(30), np.ones(30, dtype=bool), [0.5])
    assert few.threshold is None
    assert few.needed == answers_needed(0.0, 0.05, 0.95) - 30
    hopeless = certify(np.ones(200), np.arange(200) % 10 > 0, [0.5])
    assert (hopeless.threshold, hopeless.needed) == (None, None)


def test_near_duplicates_count_once():
    confidence, correct = rows(150, lambda c: 0.03 + 0 * c)
    once = certify(confidence, correct, [0.5, 0.3])
    tenfold = certify(np.tile(confidence, 10), np.tile(correct, 10), [0.5, 0.3], groups=np.tile(np.arange(150), 10))
    assert tenfold == once
    assert certify(np.tile(confidence, 10), np.tile(correct, 10), [0.5, 0.3]) != once


def test_minus_infinity_is_never_answered():
    found = certify([-np.inf] * 50 + [0.9] * 80, [False] * 50 + [True] * 80, [-np.inf, 0.5])
    assert found.answered == 80
    assert found.n == 130


@pytest.mark.parametrize("bad", [
    {"confidence": [float("nan")], "correct": [True], "thresholds": [0.5]},
    {"confidence": [0.5], "correct": [True, False], "thresholds": [0.5]},
    {"confidence": [0.5], "correct": [True], "thresholds": np.linspace(0, 1, 21)},
    {"confidence": [0.5], "correct": [True], "thresholds": [0.5], "max_error": 1.5},
])
def test_misuse_is_refused(bad):
    with pytest.raises(ValueError, match=r"."):
        certify(**bad)


def test_minimum_and_spending():
    assert minimum_answered(0.05, 0.95) == ceil(log(0.05) / log(0.95)) == 59
    risks = [1 - spent_level(0.95, k) for k in range(1, 2_000)]
    assert risks[0] == pytest.approx(0.025)
    assert 0.0499 < sum(risks) < 0.05


@given(st.integers(59, 3_000), st.floats(0.0, 0.049))
def test_power_is_the_binomial_tail(n, rate):
    most = max((k for k in range(n + 1) if binom.cdf(k, n, 0.05) <= 0.05), default=-1) if n < 300 else None
    if most is not None:
        assert float(power(n, rate, 0.05, 0.95)) == pytest.approx(binom.cdf(most, n, rate) if most >= 0 else 0.0)
    assert 0 <= float(power(n, rate, 0.05, 0.95)) <= 1


@given(st.floats(0.0, 0.035))
def test_needed_answers_have_the_power(rate):
    n = answers_needed(rate, 0.05, 0.95)
    assert (power(np.arange(n, n + 40), rate, 0.05, 0.95) >= 0.8).all()


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9, -np.inf]), st.booleans()), min_size=1, max_size=200))
def test_thresholds_are_few_and_decreasing(pairs):
    confidence, correct = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    levels = choose_thresholds(confidence, correct, 200, 0.05, 0.95)
    assert len(levels) <= 20
    assert (np.diff(levels) < 0).all()
    assert 0 <= certificate_chance(confidence, correct, 200, 0.05, 0.95) <= 1


def test_rows_needed_falls_with_a_better_model():
    good, bad = rows(600, lambda c: 0.02 * (1 - c)), rows(600, lambda c: 0.15 * (1 - c))
    assert rows_needed(*good, 0.05, 0.95) < rows_needed(*bad, 0.05, 0.95)
    assert rows_needed(*rows(600, lambda c: 0.5 + 0 * c), 0.05, 0.95) is None
