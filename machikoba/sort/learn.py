"""The apprentice of a session, made again every few answers: the kernel of the rung `features`, solved for few rows.

A session begins with a handful of answers of which most have one label (docs/log.md has the figures). So scores start from zero,
not from the labels' shares, and a row's penalty grows with the number of rows of its label (the head "balanced" of the rung):

    weights = (k(rows, rows) + strength · diag(n of the row's label / mean n))⁻¹ one-hot
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from machikoba.adapt.choose import FIRST
from machikoba.adapt.closed_form import evened, ridge, temperature
from machikoba.adapt.fitted.kernel import BLOCK, blend
from machikoba.sort.answers import SKIPPED, Answers
from machikoba.sort.apprentice import Apprentice, doubt
from machikoba.sort.pool import Pool

STRENGTH = 1.0


def learn(pool: Pool, answers: Answers) -> Apprentice | None:
    """From the answers so far; None before there are two labels. "Fits no label" is learnt as a label of its own.

    There are two fits: one on all answers, for whoever wants to know a message's label, and one on those outside the random
    sample, which judges the sample and says what is in doubt. Were questions chosen by what the sample taught, they would keep
    away from its messages, and a message left out would find a hole where it was (docs/log.md).
    """
    known = [(pool.row[m], label) for m, label in answers.given.items() if m in pool.row and label != SKIPPED]
    if len({label for _row, label in known}) < 2:
        return None
    rows = np.array([row for row, _label in known], dtype=np.int64)
    labels, given = np.unique([label for _row, label in known], return_inverse=True)
    kernel = likeness(pool, pool.vectors[rows], pool.words[rows], rows)
    weights, _held_out = balanced(kernel, given, STRENGTH)
    picked = np.flatnonzero(~np.isin(rows, pool.sampled))
    judging, held_out = _apart(kernel, given, picked)
    _weights, half = _apart(kernel, given, picked[:len(picked) // 2])
    trusted = picked if len(picked) else np.arange(len(given))
    factor, _log_loss = temperature(held_out[trusted], given[trusted])
    scores = np.empty((len(pool), len(labels)), dtype=np.float32)
    doubtful = np.empty(len(pool), dtype=np.float32)
    for start in range(0, len(pool), BLOCK):
        some = slice(start, start + BLOCK)
        near = likeness(pool, pool.vectors[some], pool.words[some], rows)
        scores[some] = near @ weights
        doubtful[some] = doubt(near[:, picked] @ judging, factor)
    return Apprentice(tuple(int(label) for label in labels), rows, given, weights, scores, doubtful, held_out, half, factor)


def read(pool: Pool, apprentice: Apprentice, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """Scores (n, n_labels) of messages that are not in the pool, from their texts and vectors (n, d) of the same base; not by a
    pool from the disk."""
    assert pool.ngrams is not None
    return likeness(pool, pool.place(vectors), pool.ngrams.transform(texts), apprentice.rows) @ apprentice.weights


def likeness(pool: Pool, vectors: np.ndarray, words: csr_matrix, rows: np.ndarray) -> np.ndarray:
    """The kernel between some messages, given as unit vectors (n, d) and n-gram rows (n, k), and the pool's `rows`, (n, r)."""
    return blend((words @ pool.words[rows].T).toarray(), vectors @ pool.vectors[rows].T, FIRST).kernel


def _apart(kernel: np.ndarray, given: np.ndarray, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A fit on the rows `picked` of all r: its weights (n_picked, n_labels), and the scores of every row, (r, n_labels), those
    picked by a fit without themselves. Labels of which it has no row get zeros."""
    weights = np.zeros((len(picked), int(given.max()) + 1), dtype=np.float32)
    if not len(picked):
        return weights, np.zeros((len(given), weights.shape[1]), dtype=np.float32)
    present, among = np.unique(given[picked], return_inverse=True)
    weights[:, present], without = balanced(kernel[np.ix_(picked, picked)], among, STRENGTH)
    scores = kernel[:, picked] @ weights
    scores[np.ix_(picked, present)] = without
    return weights, scores


def balanced(kernel: np.ndarray, given: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (r, n_labels), and the score that each row gets from a fit on all others, (r, n_labels).

    kernel (r, r); given int (r,). A row left out: Allen's PRESS (1974), exact but for its label's count. The rows hold no
    near-duplicates, so none is given away by its twin; a label's only row counts as a mistake.
    """
    scaled, root = evened(kernel, given)
    wanted = np.eye(int(given.max()) + 1, dtype=np.float32)[given]
    inverse = ridge(scaled, scaled, np.eye(len(given), dtype=np.float32), (strength,))[0]
    inner = inverse @ (wanted / root)
    return inner / root, wanted - root * inner / np.diag(inverse)[:, None]
