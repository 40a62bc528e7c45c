"""The promise: among messages answered automatically, the share of mistakes is at most α, with confidence 1 − δ.

Learn-then-Test with a fixed sequence (Angelopoulos et al., arXiv 2110.01052): thresholds are fixed beforehand from
out-of-fold confidences; on rows never used for anything else, "error > α" is tested for one threshold after the other,
from the most careful down, and the first that is not rejected ends it. Pure: arrays in, statements out.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, log

import numpy as np
from scipy.stats import binom

MOST_THRESHOLDS = 20
POWER = 0.8  # the chance of success for which `needed` is stated
NEAR_BEST = 0.02  # the sequence starts at the most careful threshold whose power is within this of the best


@dataclass(frozen=True)
class Tested:
    """One threshold of the sequence: how many rows it answers, how many wrongly, and what the test said."""

    threshold: float
    answered: int
    wrong: int
    p_value: float
    rejected: bool


@dataclass(frozen=True)
class Certificate:
    """threshold: None when no promise can be made. answered, wrong, coverage: at the threshold, or where it failed.

    needed: further answered rows for an 80% chance at the error rate seen; 0 when the certificate holds, None when that
    rate is not below `max_error`, so that no number of rows will do. n: rows counted, one per group.
    """

    threshold: float | None
    answered: int
    wrong: int
    coverage: float
    needed: int | None
    max_error: float
    confidence_level: float
    n: int
    p_value: float
    tested: tuple[Tested, ...]

    @property
    def holds(self) -> bool:
        return self.threshold is not None

    def to_dict(self) -> dict:
        return asdict(self)


def certify(confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray,
            thresholds: Sequence[float] | np.ndarray, max_error: float = 0.05, confidence_level: float = 0.95,
            groups: Sequence[object] | np.ndarray | None = None) -> Certificate:
    """The largest coverage for which at most `max_error` of the answers are wrong, proved at `confidence_level`.

    confidence (n,): -inf is never answered; a row is answered when its confidence is at least the threshold.
    correct (n,) bool. thresholds: at most 20, fixed before `correct` was known. groups (n,): near-duplicate group of
    each row; only a group's first row counts. Raises ValueError for NaN, unequal lengths, more than 20 thresholds, or
    levels outside (0, 1).
    """
    scores, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    levels = np.unique(np.asarray(thresholds, dtype=float))[::-1]
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"confidence {scores.shape} and correct {right.shape} must be of one length")
    if np.isnan(scores).any() or np.isnan(levels).any():
        raise ValueError("confidence and thresholds must not be NaN")
    if len(levels) > MOST_THRESHOLDS:
        raise ValueError(f"at most {MOST_THRESHOLDS} thresholds, found {len(levels)}")
    least = minimum_answered(max_error, confidence_level)
    if groups is not None:
        first = np.sort(np.unique(np.asarray(groups), return_index=True)[1])
        scores, right = scores[first], right[first]
    tested: list[Tested] = []
    shown = (0, 0)
    for level in levels:
        among = (scores >= level) & np.isfinite(scores)
        answered, wrong = int(among.sum()), int((among & ~right).sum())
        if answered < least:  # counts do not depend on `correct`, so skipping costs nothing
            shown = (answered, wrong)
            continue
        p_value = float(binom.cdf(wrong, answered, max_error))
        tested.append(Tested(float(level), answered, wrong, p_value, p_value <= 1 - confidence_level))
        if not tested[-1].rejected:
            break
    held = [test for test in tested if test.rejected]
    last = held[-1] if held else tested[0] if tested else None
    answered, wrong = (last.answered, last.wrong) if last else shown
    needed = 0 if held else _further(answered, wrong, max_error, confidence_level)
    return Certificate(held[-1].threshold if held else None, answered, wrong, answered / max(1, len(scores)), needed,
                       max_error, confidence_level, len(scores), last.p_value if last else 1.0, tuple(tested))


def minimum_answered(max_error: float, confidence_level: float) -> int:
    """Answered rows, all right, without which nothing can be proved: ⌈ln δ / ln(1 − α)⌉."""
    if not (0 < max_error < 1 and 0 < confidence_level < 1):
        raise ValueError("max_error and confidence_level must lie between 0 and 1")
    return ceil(log(1 - confidence_level) / log(1 - max_error) - 1e-9)


def spent_level(confidence_level: float, k: int) -> float:
    """The level at which the k-th certificate on overlapping rows is tested: δ/(k(k+1)) of the risk, which sums to δ."""
    if k < 1:
        raise ValueError("k counts from 1")
    return 1 - (1 - confidence_level) / (k * (k + 1))


def power(answered: np.ndarray | int, error_rate: np.ndarray | float, max_error: float,
          confidence_level: float) -> np.ndarray:
    """The chance that `answered` rows prove the bound when their true error rate is `error_rate`; elementwise."""
    n = np.asarray(answered)
    risk = 1 - confidence_level
    most = binom.ppf(risk, n, max_error)
    most = np.where(binom.cdf(most, n, max_error) <= risk, most, most - 1)  # largest number of mistakes still rejected
    return np.where(n > 0, binom.cdf(most, n, error_rate), 0.0)


def answers_needed(error_rate: float, max_error: float, confidence_level: float, chance: float = POWER) -> int | None:
    """Answered rows in all that prove the bound with probability `chance`; None when the rate is not below the bound.

    The power is a saw tooth in the number of rows: the answer is good for the next 40 numbers too.
    """
    if error_rate >= max_error:
        return None
    least = minimum_answered(max_error, confidence_level)

    def enough(n: int) -> bool:
        return bool(power(np.arange(n, n + 40), error_rate, max_error, confidence_level).min() >= chance)

    low, high = least - 1, least
    while not enough(high):
        low, high = high, 2 * high
        if high > 10_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _further(answered: int, wrong: int, max_error: float, confidence_level: float) -> int | None:
    wanted = answers_needed(wrong / answered if answered else 0.0, max_error, confidence_level)
    return None if wanted is None else max(1, wanted - answered)


def choose_thresholds(confidence: np.ndarray, correct: np.ndarray, n_certify: int, max_error: float,
                      confidence_level: float, most: int = MOST_THRESHOLDS) -> np.ndarray:
    """Thresholds for `certify`, decreasing, from out-of-fold confidences (n,) and whether they were right (n,).

    The sequence dies at its first failure, so it must not start at the most careful threshold, whose few rows fail at a
    single mistake, but at the most careful one whose power is about the best there is; it ends a little beyond the
    largest coverage that still looks good. Thresholds lie halfway between neighbouring confidences.
    """
    levels, coverage, error = _prefixes(confidence, correct)
    if not len(levels):
        return np.zeros(0)
    chances = power(np.floor(n_certify * coverage).astype(int), error, max_error, confidence_level)
    start = int(np.flatnonzero(chances >= chances.max() - NEAR_BEST)[0])
    good = np.flatnonzero(error <= max_error)
    end = start if not len(good) else max(start, int(good[-1]))
    end = int(np.searchsorted(coverage, min(1.0, coverage[end] * 1.05)).clip(start, len(levels) - 1))
    wanted = np.linspace(coverage[start], coverage[end], most)
    picked = np.unique(np.searchsorted(coverage, wanted).clip(start, end))
    return levels[picked]


def certificate_chance(confidence: np.ndarray, correct: np.ndarray, n_certify: int, max_error: float,
                       confidence_level: float) -> float:
    """The chance that `n_certify` rows earn a certificate, from out-of-fold confidences: worth holding them out?"""
    levels, coverage, error = _prefixes(confidence, correct)
    if not len(levels):
        return 0.0
    return float(power(np.floor(n_certify * coverage).astype(int), error, max_error, confidence_level).max())


def rows_needed(confidence: np.ndarray, correct: np.ndarray, max_error: float, confidence_level: float) -> int | None:
    """The fewest certify rows that would earn a certificate with an 80% chance, from out-of-fold confidences.

    Looks at up to 40 coverages; None when the error is not below `max_error` at any of them.
    """
    levels, coverage, error = _prefixes(confidence, correct)
    found = []
    for i in np.unique(np.linspace(0, len(levels) - 1, 40).astype(int)) if len(levels) else []:
        answers = answers_needed(float(error[i]), max_error, confidence_level)
        if answers is not None:
            found.append(ceil(answers / coverage[i]))
    return min(found, default=None)


def _prefixes(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each distinct confidence, from the highest: threshold below it, coverage, and error among the answered.

    The error is (k + ½)/(m + 1), so that a lucky few do not look perfect.
    """
    scores, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    if not len(order):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # ties are answered together
    below = np.append(ordered[ends[:-1] + 1], ordered[ends[-1]])
    answered = ends + 1
    wrong = np.cumsum(~right[order])[ends]
    return (ordered[ends] + below) / 2, answered / len(scores), (wrong + 0.5) / (answered + 1)
