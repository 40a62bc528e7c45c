"""The guarantee against the law it claims: the share of draws with a broken promise is at most δ."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest

from machikoba.prove.certificate import certify, choose_thresholds

DRAWS, ROWS, ALPHA, DELTA = 2_000, 300, 0.05, 0.05

CONTINUOUS = {
    "smooth": lambda c: 0.35 * (1 - c) ** 2,
    "flat at alpha": lambda c: np.full_like(c, ALPHA),
    "just above alpha": lambda c: np.full_like(c, ALPHA + 0.002),
    "stepped": lambda c: np.where(c > 0.6, 0.02, np.where(c > 0.3, 0.10, 0.4)),
    "best in the middle": lambda c: np.where(c > 0.8, 0.09, 0.03),
}
LEVELS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])  # discrete confidences with ties, equally likely
DISCRETE = {"ties": np.array([0.4, 0.2, 0.08, 0.03, 0.01]), "ties at alpha": np.full(5, ALPHA)}


def true_error_above(threshold: float, error) -> float:
    if threshold >= 1:
        return 0.0
    breaks = [p for p in (0.3, 0.6, 0.8) if max(threshold, 0) < p < 1]
    return quad(lambda c: float(error(np.array([c]))[0]), max(threshold, 0), 1, points=breaks or None)[0] / (
        1 - max(threshold, 0))


def broken_promises(rule, error_of, draw_confidence, true_error) -> int:
    draw = np.random.default_rng(7)
    broken = 0
    for _ in range(DRAWS):
        past = draw_confidence(draw)
        levels = choose_thresholds(past, draw.random(ROWS) >= error_of(past), ROWS, ALPHA, 1 - DELTA)
        confidence = draw_confidence(draw)
        threshold = rule(confidence, draw.random(ROWS) >= error_of(confidence), levels)
        broken += threshold is not None and true_error(threshold) > ALPHA + 1e-12
    return broken


def proved(confidence, correct, levels):
    return certify(confidence, correct, levels, ALPHA, 1 - DELTA).threshold


def naive(confidence, correct, levels):
    """Takes the largest coverage whose error merely looks good: what must not pass."""
    good = [level for level in levels if (told := confidence >= level).any() and (~correct[told]).mean() <= ALPHA]
    return min(good, default=None)


def within(broken: int) -> bool:
    return binomtest(broken, DRAWS, DELTA, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("name", CONTINUOUS)
def test_law_for_continuous_confidences(name):
    error = CONTINUOUS[name]
    assert within(broken_promises(proved, error, lambda draw: draw.random(ROWS), lambda t: true_error_above(t, error)))


@pytest.mark.parametrize("name", DISCRETE)
def test_law_for_ties_and_discrete_confidences(name):
    errors = DISCRETE[name]
    by_level = dict(zip(LEVELS, errors, strict=True))
    broken = broken_promises(
        proved, lambda c: np.array([by_level[x] for x in c]), lambda draw: draw.choice(LEVELS, ROWS),
        lambda t: float(errors[t <= LEVELS].mean()) if (t <= LEVELS).any() else 0.0)
    assert within(broken)


def test_the_law_test_can_fail():
    error = CONTINUOUS["just above alpha"]
    broken = broken_promises(naive, error, lambda draw: draw.random(ROWS), lambda t: true_error_above(t, error))
    assert not within(broken)


def test_impossible_targets_end_as_none():
    draw = np.random.default_rng(3)
    held = 0
    for _ in range(DRAWS):
        confidence = draw.random(ROWS)
        correct = draw.random(ROWS) >= 0.12
        held += certify(confidence, correct, np.linspace(0.9, 0.0, 20), ALPHA, 1 - DELTA).holds
    assert within(held)


def test_a_good_classifier_is_usually_certified():
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        past, confidence = draw.random(600), draw.random(ROWS)
        levels = choose_thresholds(past, draw.random(600) >= 0.05 * (1 - past), ROWS, ALPHA, 1 - DELTA)
        held += certify(confidence, draw.random(ROWS) >= 0.05 * (1 - confidence), levels, ALPHA, 1 - DELTA).holds
    assert held >= 150
