"""A bundle judged on rows whose labels are known: the figures of test, certificate and `machikoba prove`."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from machikoba.engine.runtime import Service
from machikoba.prove import metrics
from machikoba.prove.certificate import Certificate, certify
from machikoba.tasks.classify import Labels, correct, decide


class Judged:
    """Rows with known labels, as a bundle answers them."""

    def __init__(self, service: Service, texts: Sequence[str], labels: Sequence[str]) -> None:
        self.labels = service.labels
        self.scores = service.scores(texts)
        self.chosen, self.confidence = decide(self.scores, self.labels)
        known = {name: i for i, name in enumerate(self.labels.names)}
        # A label that the bundle never learnt is out of its scope: every answer to it is wrong.
        self.true = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
        self.correct = correct(self.true, self.chosen)


def measure(true: np.ndarray, probabilities: np.ndarray, confidence: np.ndarray, answered: np.ndarray, labels: Labels,
            source: str) -> dict[str, Any]:
    """The figures of one set of rows, each with its interval.

    true (n,): label index, -1 for a label never learnt. confidence (n,): as of `decide`. answered (n,) bool.
    """
    n, k = len(true), len(labels.names)
    chosen = probabilities.argmax(axis=1)
    right = correct(true, chosen)
    told, wrong = int(answered.sum()), int((answered & ~right).sum())
    accuracy, coverage = metrics.rate(int(right.sum()), n), metrics.rate(told, n)
    error = metrics.rate(wrong, told)
    shown = np.where(true < 0, k, true)  # a label never learnt gets a place of its own
    macro = metrics.bootstrap(lambda rows: metrics.macro_f1(shown[rows], chosen[rows], k + 1), n, draws=200)
    figures: dict[str, Any] = {
        "n": n, "source": source,
        "accuracy": accuracy.value, "accuracy_interval": [accuracy.low, accuracy.high],
        "macro_f1": macro.value, "macro_f1_interval": [macro.low, macro.high],
        "coverage": coverage.value, "coverage_interval": [coverage.low, coverage.high],
        "answered": told, "wrong": wrong,
        "error_among_answered": error.value if told else None,
        "error_among_answered_interval": [error.low, error.high] if told else None,
        "per_label": metrics.per_label(true, chosen, answered, labels.names),
        "reliability": metrics.reliability(np.where(np.isfinite(confidence), confidence, 0.0), right),
    }
    out_of_scope = (true < 0) | (true == labels.none_index if labels.none_index is not None else False)
    if out_of_scope.any():
        real = probabilities.copy()
        if labels.none_index is not None:
            real[:, labels.none_index] = -1.0
        scoped = np.where(out_of_scope, k, true)
        figures["scope"] = metrics.scope_metrics(scoped, real.argmax(axis=1), np.where(np.isfinite(confidence), confidence,
                                                 -1.0), answered, k, k + 1)
    return figures


def measure_judged(judged: Judged, threshold: float | None, source: str) -> dict[str, Any]:
    """`measure` at `threshold`; None answers nothing."""
    answered = judged.confidence >= threshold if threshold is not None else np.zeros(len(judged.true), dtype=bool)
    return measure(judged.true, judged.scores.probabilities, judged.confidence, answered, judged.labels, source)


def certify_judged(judged: Judged, groups: Sequence[str], thresholds: np.ndarray, max_error: float,
                   level: float) -> Certificate:
    """The certificate over rows kept aside, one per near-duplicate group."""
    return certify(judged.confidence, judged.correct, thresholds, max_error, level, groups)
