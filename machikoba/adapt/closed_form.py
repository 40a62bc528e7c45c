"""The arithmetic of fitting a kernel machine: closed-form ridge, logistic regression, temperature and trust."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression

from machikoba.adapt.fitted.kernel import softmax

USUAL_FACTOR = 10.0  # what turns ridge's scores into calibrated odds, about
LEAST_SPREAD = 0.05  # of an input of the confidence: one that hardly varied among few rows must not get a huge weight
ABSENT = -10.0  # log odds of a label without a row
BLOCK = 4_096  # rows whose kernel is in memory at a time
MOST_LOGISTIC = 16_384  # rows
JITTER = 1e-3  # keeps the Cholesky factor of exact copies' kernel positive in float32


def targets(labels: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Centred one-hot labels (n, n_labels) and their mean (n_labels,)."""
    hot = np.eye(n_labels, dtype=np.float32)[labels]
    prior = hot.mean(axis=0)
    return hot - prior, prior


class Kernel(Protocol):
    """Kernel values (n, m) between rows and anchors: an array, or what computes the rows that are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...


def ridge(kernel: Kernel, among: np.ndarray, wanted: np.ndarray, strengths: Sequence[float]) -> list[np.ndarray]:
    """Weights (m, n_labels) of kernel ridge regression under each strength.

    kernel (n, m) between rows and anchors; among (m, m) between anchors; wanted (n, n_labels). When the rows are the
    anchors this is the exact solution, else the subset-of-regressors one, for which a block of rows is in memory at a time.
    """
    if kernel is among:
        return [cho_solve(_factor(among, strength), wanted) for strength in strengths]
    lower = np.tril(_factor(among, JITTER)[0])
    gram, answer = np.zeros_like(among), np.zeros((len(among), wanted.shape[1]), dtype=among.dtype)
    for start in range(0, len(kernel), BLOCK):
        rows = slice(start, start + BLOCK)
        mapped = solve_triangular(lower, kernel[rows].T, lower=True)  # explicit coordinates whose products are the kernel
        gram += mapped @ mapped.T
        answer += mapped @ wanted[rows]
    return [solve_triangular(lower, cho_solve(_factor(gram, strength), answer), lower=True, trans="T")
            for strength in strengths]


def evened(kernel: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel (n, n) of rows that their labels (n,) weigh alike, and the root (n, 1) by which each row was divided.

    Ridge with a penalty of its own for each row is plain ridge on rows divided by the root of that penalty; here it grows with
    the number of rows of the row's label, so that a label with one row is heard as loudly as one with fifty.
    """
    counts = np.bincount(labels)
    root = np.sqrt(counts[labels] / counts[counts > 0].mean()).astype(np.float32)[:, None]
    return kernel / root / root.T, root


def balanced_ridge(kernel: np.ndarray, labels: np.ndarray, n_labels: int, strengths: Sequence[float]) -> list[np.ndarray]:
    """Weights (n, n_labels) under each strength, for scores that start from zero: what few rows of most uneven labels need.

    kernel (n, n) of the rows with each other; labels int (n,).
    """
    scaled, root = evened(kernel, labels)
    wanted = np.eye(n_labels, dtype=np.float32)[labels] / root
    return [part / root for part in ridge(scaled, scaled, wanted, strengths)]


def logistic(kernel: Kernel, among: np.ndarray, labels: np.ndarray, strength: float,
             n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (m, n_labels) and constants (n_labels,) of multinomial logistic regression in the kernel's space.

    It needs all rows in memory at once, so of more than MOST_LOGISTIC it learns from every so many-th. A label of which there
    is no row, as in a fold of many near-duplicates, gets no weights and a constant of ABSENT.
    """
    step = -(-len(kernel) // MOST_LOGISTIC)
    labels = labels[::step]
    inner, constants = np.zeros((among.shape[0], n_labels)), np.full(n_labels, ABSENT)
    present = np.unique(labels)
    if len(present) == 1:
        constants[present] = 0.0
        return inner.astype(np.float32), constants.astype(np.float32)
    lower = np.tril(_factor(among, JITTER)[0])
    mapped = solve_triangular(lower, kernel[::step].T, lower=True).T
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(mapped, labels)
    found, shift = model.coef_.T, model.intercept_
    if len(present) == 2:  # scikit-learn gives one column of log odds for two labels
        found, shift = np.column_stack([-found / 2, found / 2]), np.array([-shift[0] / 2, shift[0] / 2])
    inner[:, present], constants[present] = found, shift
    return solve_triangular(lower, inner.astype(np.float32), lower=True, trans="T"), constants.astype(np.float32)


def _factor(square: np.ndarray, added: float) -> tuple[np.ndarray, bool]:
    """The Cholesky factor of `square` with `added` on its diagonal, for `cho_solve`."""
    raised = square.copy()
    raised[np.diag_indices_from(raised)] += added
    return cho_factor(raised, lower=True, overwrite_a=True)


def temperature(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The factor on `scores` (n, n_labels) that makes their softmax most likely, and the log loss it leaves.

    A weak prior around USUAL_FACTOR keeps it finite where no row is wrong.
    """
    rows = np.arange(len(labels))

    def log_loss(log_factor: float) -> float:
        probabilities = softmax(scores * np.exp(log_factor))[rows, labels]
        return float(-np.log(np.maximum(probabilities, 1e-9)).mean())

    def loss(log_factor: float) -> float:
        return log_loss(log_factor) + (log_factor - np.log(USUAL_FACTOR)) ** 2 / (8 * len(labels))

    best = minimize_scalar(loss, bounds=(-2.0, 5.0), method="bounded", options={"xatol": 0.02})
    return float(np.exp(best.x)), log_loss(float(best.x))


def fit_trust(inputs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Weights of the confidence, from rows that the machine had not seen.

    inputs (n, q) as of `trust_inputs`; right (n,) bool: the likeliest real label was the true one. A logistic regression
    whose weights stay at zero or above (more likeness never lowers trust) and are drawn towards equal ones, and whose constant
    towards the share of right rows, so that with few mistakes to learn from, or none, likeness still counts.
    """
    sign = np.where(right, 1.0, -1.0)
    middle, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), LEAST_SPREAD)
    standard = (inputs - middle) / scale
    n_inputs = inputs.shape[1]
    start = np.append(np.full(n_inputs, 1.0 / n_inputs), np.log((right.sum() + 1) / ((~right).sum() + 1)))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (standard @ weights[:-1] + weights[-1])
        slack = sign / (1.0 + np.exp(np.clip(margin, -30, 30)))
        pull = weights - start
        value = np.logaddexp(0.0, -margin).sum() + 2.0 * (pull**2).sum()
        return value, np.append(-slack @ standard, -slack.sum()) + 4.0 * pull

    bounds = [(0.0, None)] * n_inputs + [(None, None)]
    weights = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    plain = weights[:-1] / scale
    return np.append(plain, weights[-1] - plain @ middle)
