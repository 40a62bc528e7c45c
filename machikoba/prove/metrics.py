"""How right: rates with intervals, per label, out of scope, and what abstaining buys. Pure: arrays in, numbers out."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import binomtest, norm

DRAWS = 500  # bootstrap draws behind each interval that has no closed form


@dataclass(frozen=True)
class Rate:
    """k of n with an interval; value is NaN-free: 0.0 when n is 0, with the interval (0, 1)."""

    value: float
    k: int
    n: int
    low: float
    high: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval, where it is not a plain rate."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a rate of k in n."""
    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf((1 + level) / 2))
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(k * (n - k) / n + z * z / 4))
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def rate(k: int, n: int, level: float = 0.95) -> Rate:
    """k of n with Wilson's interval."""
    low, high = wilson(int(k), int(n), level)
    return Rate(int(k) / n if n else 0.0, int(k), int(n), low, high)


def accuracy(true: Sequence | np.ndarray, predicted: Sequence | np.ndarray) -> Rate:
    """Share of equal labels."""
    same = np.asarray(true) == np.asarray(predicted)
    return rate(int(same.sum()), len(same))


def confusion(true: np.ndarray, predicted: np.ndarray, n_labels: int) -> np.ndarray:
    """Counts (n_labels, n_labels), rows true, columns predicted; labels as indices."""
    return np.bincount(np.asarray(true) * n_labels + np.asarray(predicted), minlength=n_labels**2).reshape(
        n_labels, n_labels)


def macro_f1(true: np.ndarray, predicted: np.ndarray, n_labels: int) -> float:
    """Mean F1 over the labels that occur among the true or predicted ones; labels as indices."""
    table = confusion(true, predicted, n_labels)
    hits, both = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
    return float(np.mean(2 * hits[both > 0] / both[both > 0])) if (both > 0).any() else 0.0


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, level: float = 0.95, seed: int = 0,
              draws: int = DRAWS) -> Interval:
    """`statistic` of all rows, and its percentile interval over rows (n,) drawn with replacement."""
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, n, n)) for _draw in range(draws)] if n else [0.0]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(np.arange(n))) if n else 0.0, float(low), float(high))


def per_label(true: np.ndarray, predicted: np.ndarray, answered: np.ndarray, names: Sequence[str]) -> list[dict]:
    """For each label: how many, how many found, and the error among those answered with it."""
    rows = []
    for i, name in enumerate(names):
        is_true, said = true == i, predicted == i
        told = said & answered
        rows.append({"label": name, "n": int(is_true.sum()),
                     "recall": rate(int((is_true & said).sum()), int(is_true.sum())).to_dict(),
                     "answered": int(told.sum()),
                     "error_among_answered": rate(int((told & ~is_true).sum()), int(told.sum())).to_dict()})
    return rows


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> dict:
    """Mean confidence beside the share that was right, in equal bins, and the expected calibration error."""
    place = np.clip((np.asarray(confidence) * bins).astype(int), 0, bins - 1)
    rows, gap = [], 0.0
    for b in range(bins):
        inside = place == b
        if not inside.any():
            continue
        mean, right = float(np.mean(confidence[inside])), float(np.mean(correct[inside]))
        rows.append({"from": b / bins, "n": int(inside.sum()), "confidence": mean, "right": right})
        gap += abs(mean - right) * inside.mean()
    return {"bins": rows, "expected_calibration_error": float(gap)}


def paired_bootstrap(first: np.ndarray, second: np.ndarray, level: float = 0.95, seed: int = 0) -> Interval:
    """Difference of two accuracies on the same rows (first − second), from whether each was right (n,)."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return bootstrap(lambda rows: float(difference[rows].mean()), len(difference), level, seed, draws=2_000)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact p-value of McNemar's test that two methods are equally often right on the same rows."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def coverage_at_error(confidence: np.ndarray, correct: np.ndarray, max_error: float) -> tuple[float, float]:
    """(threshold, coverage): the largest share, taken from the most confident, with at most `max_error` wrong.

    Rows of equal confidence are taken together; (inf, 0.0) when there is none. -inf is never taken.
    """
    order = np.argsort(-confidence, kind="stable")
    order = order[np.isfinite(confidence[order])]
    if not len(order):
        return float("inf"), 0.0
    scores = confidence[order]
    last_of_tie = np.append(scores[1:] < scores[:-1], True)
    wrong = np.cumsum(~correct[order])
    good = np.flatnonzero(last_of_tie & (wrong <= max_error * np.arange(1, len(order) + 1)))
    if not len(good):
        return float("inf"), 0.0
    return float(scores[good[-1]]), float((good[-1] + 1) / len(confidence))


def coverage_interval(confidence: np.ndarray, correct: np.ndarray, max_error: float, level: float = 0.90,
                      seed: int = 0) -> Interval:
    """Coverage at `max_error` with its bootstrap interval over rows."""
    return bootstrap(lambda rows: coverage_at_error(confidence[rows], correct[rows], max_error)[1], len(confidence),
                     level, seed)


def matthews(true: np.ndarray, predicted: np.ndarray, n_labels: int) -> float:
    """Matthews correlation for many labels (Gorodkin 2004); 0.0 where it is not defined. Labels as indices."""
    table = confusion(true, predicted, n_labels).astype(float)
    total, hits = table.sum(), np.trace(table)
    by_true, by_predicted = table.sum(axis=1), table.sum(axis=0)
    spread = (total**2 - by_predicted @ by_predicted) * (total**2 - by_true @ by_true)
    return float((hits * total - by_true @ by_predicted) / np.sqrt(spread)) if spread > 0 else 0.0


def scope_metrics(true: np.ndarray, best_real: np.ndarray, confidence: np.ndarray, answered: np.ndarray,
                  none: int, n_labels: int) -> dict:
    """What a service does with messages that fit no label, after HINT3 (Arora et al., arXiv 2009.13833).

    true (n,): label index, `none` for out of scope. best_real (n,): the likeliest real label. answered (n,) bool: the
    decision in force. A hand-off counts as saying `none`. Matthews correlation at that decision, and at the best
    threshold of 100 (found on these very rows, so an upper figure).
    """
    inside = true != none

    def decided(rows: np.ndarray, told: np.ndarray) -> float:
        return matthews(true[rows], np.where(told[rows], best_real[rows], none), n_labels)

    levels = np.unique(np.quantile(confidence, np.linspace(0, 1, 101))) if len(confidence) else np.zeros(0)
    everything = np.arange(len(true))
    best_level = max(levels, key=lambda level: decided(everything, confidence >= level), default=float("inf"))
    return {
        "in_scope_accuracy": rate(int((best_real == true)[inside].sum()), int(inside.sum())).to_dict(),
        "out_of_scope_recall": rate(int((~answered & ~inside).sum()), int((~inside).sum())).to_dict(),
        "matthews": bootstrap(lambda rows: decided(rows, answered), len(true), draws=200).to_dict(),
        "matthews_best": {**bootstrap(lambda rows: decided(rows, confidence >= best_level), len(true),
                                      draws=200).to_dict(), "threshold": float(best_level)},
        "out_of_scope_recall_best": rate(int(((confidence < best_level) & ~inside).sum()),
                                         int((~inside).sum())).to_dict(),
    }
