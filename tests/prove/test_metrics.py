from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, matthews_corrcoef

from machikoba.prove import metrics

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=80)


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_is_scipys(k, n):
    k = min(k, n)
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert metrics.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(labels)
def test_macro_f1_and_matthews_are_sklearns(pairs):
    true, said = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assert metrics.macro_f1(true, said, 4) == pytest.approx(f1_score(true, said, average="macro"))
    assert metrics.matthews(true, said, 4) == pytest.approx(matthews_corrcoef(true, said), abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9, -np.inf]), st.booleans()), min_size=1, max_size=60))
def test_coverage_at_error_is_the_largest_that_holds(pairs):
    confidence, correct = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    threshold, coverage = metrics.coverage_at_error(confidence, correct, 0.2)
    by_hand = [(confidence >= level).mean() for level in set(confidence.tolist()) if np.isfinite(level)
               and (~correct[confidence >= level]).mean() <= 0.2]
    assert coverage == pytest.approx(max(by_hand, default=0.0))
    assert (confidence >= threshold).mean() == pytest.approx(coverage)


def test_intervals_hold_what_they_claim():
    draw = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        sample = draw.random(80) < 0.3
        found = metrics.bootstrap(lambda rows, s=sample: float(s[rows].mean()), 80, 0.90, seed, draws=200)
        inside += found.low <= 0.3 <= found.high
    assert binomtest(inside, 200, 0.90).pvalue > 0.001


def test_paired_comparison():
    first, second = np.array([True] * 90 + [False] * 10), np.array([True] * 80 + [False] * 20)
    found = metrics.paired_bootstrap(first, second)
    assert found.value == pytest.approx(0.1)
    assert 0 < found.low < 0.1 < found.high
    assert metrics.mcnemar(first, second) == pytest.approx(binomtest(10, 10).pvalue)
    assert metrics.mcnemar(first, first) == 1.0


def test_scope_metrics_reward_handing_off_strangers():
    true = np.array([0, 0, 1, 1, 2, 2])  # 2 fits no label
    said, confidence = np.array([0, 0, 1, 0, 0, 1]), np.array([0.9, 0.8, 0.9, 0.3, 0.2, 0.7])
    found = metrics.scope_metrics(true, said, confidence, confidence >= 0.5, none=2, n_labels=3)
    assert found["in_scope_accuracy"]["value"] == 0.75
    assert found["out_of_scope_recall"]["value"] == 0.5
    told = np.where(confidence >= 0.5, said, 2)
    assert found["matthews"]["value"] == pytest.approx(matthews_corrcoef(true, told))
    assert found["matthews_best"]["value"] >= found["matthews"]["value"]


def test_reliability_of_honest_confidence():
    draw = np.random.default_rng(0)
    confidence = draw.random(20_000)
    found = metrics.reliability(confidence, draw.random(20_000) < confidence)
    assert found["expected_calibration_error"] < 0.02
    assert sum(b["n"] for b in found["bins"]) == 20_000
