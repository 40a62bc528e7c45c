"""What a session has learnt so far, as arrays: all that asking and suggesting need, nothing that trains."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from machikoba.adapt.fitted.kernel import softmax


@dataclass(frozen=True)
class Apprentice:
    """labels: what the columns mean, NOTHING among them where it was answered. rows: distinct messages learnt from, int (r,), in
    the order of answering. given: the columns of their labels, int (r,). weights: of each row for each label, (r, n_labels).
    scores: of every distinct message, float32 (m, n_labels).

    By a fit on the rows outside the random sample: doubt of every distinct message, float32 (m,) in [0, 1]; held_out: scores of
    each row, (r, n_labels), by a fit without it; half: the same of the first half of those rows. factor: what turns scores into
    odds.
    """

    labels: tuple[int, ...]
    rows: np.ndarray
    given: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    doubt: np.ndarray
    held_out: np.ndarray
    half: np.ndarray
    factor: float

    def probabilities(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Of the distinct messages `rows`, (n, n_labels)."""
        return softmax(self.scores[rows] * self.factor)


def doubt(scores: np.ndarray, factor: float) -> np.ndarray:
    """1 − the lead of the likeliest label over the second, in probability, (n,) in [0, 1]."""
    two = np.partition(softmax(scores * factor), -2, axis=1)[:, -2:]
    return 1.0 - (two[:, 1] - two[:, 0])
