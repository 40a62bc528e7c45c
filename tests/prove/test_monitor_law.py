"""The monitor against the law it claims: 2,000 streams of 2,000 audited answers, looked at after every answer."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binomtest

from machikoba.prove.monitor import (
    DOWN_PARTS,
    RUN_LENGTH,
    UP_PARTS,
    Evidence,
    _down,
    _mixed,
    _up,
    lower_threshold,
    upper_threshold,
)

STREAMS, LOOKS, NEVER = 2_000, 2_000, 10**9
Answers = Iterator[tuple[np.ndarray, np.ndarray | float]]


def looked_at(answers: Answers, max_error: float = 0.05, confidence_level: float = 0.95,
              least: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """After how many answers each stream was first qualified, and suspended."""
    evidence = Evidence(max_error, confidence_level, (STREAMS,))
    qualified, suspended = np.full(STREAMS, NEVER), np.full(STREAMS, NEVER)
    for n, (wrong, p) in enumerate(answers, start=1):
        evidence.add(wrong, p, least)
        qualified[evidence.qualified & (qualified == NEVER)] = n
        suspended[evidence.suspended & (suspended == NEVER)] = n
    return qualified, suspended


def census(errors, seed: int = 1) -> Answers:
    draw = np.random.default_rng(seed)
    for error in errors:
        yield draw.random(STREAMS) < error, 1.0


def share_is_at_most(share: float, times: np.ndarray) -> bool:
    return binomtest(int((times < NEVER).sum()), STREAMS, share, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize(("max_error", "level"), [(0.05, 0.95), (0.02, 0.9), (0.1, 0.8)])
def test_an_error_of_alpha_is_seldom_promoted_and_seldom_suspended(max_error, level):
    qualified, suspended = looked_at(census([max_error] * LOOKS), max_error, level)
    assert share_is_at_most(1 - level, qualified)
    assert share_is_at_most(LOOKS / RUN_LENGTH, suspended)


def saved(alpha: float) -> np.ndarray:
    """Errs doubly for 200 answers, then not at all for as long, and so on: the average is never below alpha."""
    return np.where(np.arange(LOOKS) // 200 % 2 == 0, 2 * alpha, 0.0)


def early(alpha: float) -> np.ndarray:
    """All its mistakes at the start, each certain, and none after."""
    return np.where(np.arange(LOOKS) < alpha * LOOKS, 1.0, 0.0)


@pytest.mark.parametrize("errors", [saved(0.05), early(0.05)], ids=["saved", "early"])
def test_drift_about_an_average_of_alpha_is_seldom_promoted(errors):
    assert (np.cumsum(errors) >= 0.05 * np.arange(1, LOOKS + 1) - 1e-9).all()
    assert share_is_at_most(0.05, looked_at(census(errors))[0])


def cunning() -> Answers:
    """Errs whenever it can afford to look good: it stops erring as soon as it has saved up, and saves while out of luck."""
    draw = np.random.default_rng(4)
    wrong_less_right, above = np.zeros(STREAMS), np.zeros(STREAMS)  # seen, and the sum of error - alpha
    for _ in range(LOOKS):
        error = np.where((above >= 0.05) & (wrong_less_right < 0), 0.0, np.where(wrong_less_right < 0, 0.05, 0.10))
        above += error - 0.05
        wrong = draw.random(STREAMS) < error
        wrong_less_right += wrong - 0.05
        yield wrong, 1.0


def test_drift_that_heeds_the_past_is_seldom_promoted():
    assert share_is_at_most(0.05, looked_at(cunning())[0])


def sampled(alpha: float, p_wrong: float, p_right: float, seed: int = 1) -> Answers:
    """The audited among answers of error alpha, where a mistake is audited with probability p_wrong."""
    draw = np.random.default_rng(seed)
    among = alpha * p_wrong / (alpha * p_wrong + (1 - alpha) * p_right)
    while True:
        wrong = draw.random(STREAMS) < among
        yield wrong, np.where(wrong, p_wrong, p_right) if p_wrong != p_right else p_wrong


def first(answers: Answers, n: int) -> Answers:
    return (answer for answer, _ in zip(answers, range(n), strict=False))


@pytest.mark.parametrize(("p_wrong", "p_right", "least"), [
    (0.1, 0.1, 0.1), (0.05, 1.0, 0.05), (1.0, 0.05, 0.05), (0.2, 0.6, 0.2)],
    ids=["a fixed share", "mistakes seldom audited", "mistakes often audited", "in between"])
def test_sampling_that_depends_on_the_outcome_changes_no_claim(p_wrong, p_right, least):
    qualified, suspended = looked_at(first(sampled(0.05, p_wrong, p_right), LOOKS), least=least)
    assert share_is_at_most(0.05, qualified)
    assert share_is_at_most(LOOKS / RUN_LENGTH, suspended)


def test_the_law_test_can_fail():
    """Bets for a census on answers whose mistakes are seldom audited: the precondition is needed."""
    def as_a_census() -> Answers:
        return ((wrong, 1.0) for wrong, _ in first(sampled(0.05, 0.05, 1.0), 300))
    assert not share_is_at_most(0.05, looked_at(as_a_census())[0])


@pytest.mark.parametrize("p", [1.0, 0.1])
def test_a_good_one_is_promoted_soon(p):
    qualified, _ = looked_at(first(sampled(0.05 / 4, p, p), 150), least=p)
    assert np.median(qualified) <= 150


def test_a_jump_is_seen_soon():
    _, suspended = looked_at(census([0.05 / 4] * 500 + [3 * 0.05] * 200))
    assert ((suspended > 500) & (suspended <= 700)).mean() >= 0.95


@pytest.mark.parametrize("max_error", [0.02, 0.05, 0.1])
def test_half_of_alpha_is_seldom_suspended(max_error):
    _, suspended = looked_at(census([max_error / 2] * LOOKS), max_error)
    assert (suspended < NEVER).mean() <= 0.05


@pytest.mark.parametrize("error", [0.02, 0.2])
def test_both_bounds_hold_at_all_times(error):
    """The bound of m is passed exactly when m is refuted, so it is enough to look at the true error."""
    draw = np.random.default_rng(3)
    up, down = np.zeros((STREAMS, len(UP_PARTS))), np.zeros((STREAMS, len(DOWN_PARTS)))
    above, below = np.zeros(STREAMS, dtype=bool), np.zeros(STREAMS, dtype=bool)
    for _ in range(LOOKS):
        wrong = draw.random((STREAMS, 1)) < error
        up += _up(~wrong, 1.0, 1.0, error)
        down += _down(wrong, 1.0, 1.0, error)
        above |= _mixed(up, UP_PARTS) >= upper_threshold(0.95)
        below |= _mixed(down, DOWN_PARTS) >= lower_threshold(0.95)
    for share, missed in ((0.04, above), (0.01, below), (0.05, above | below)):
        assert share_is_at_most(share, np.where(missed, 0, NEVER))
