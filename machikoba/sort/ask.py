"""Which message to ask next: the one whose answer tells most about all messages, times how much in doubt it is itself.

How much an answer tells is what Bayesian linear regression on the vectors says before it is given (Cohn, Ghahramani and Jordan,
arXiv cs/9603104): by how much it lowers the expected squared error of the prediction, summed over all messages.

    tells(x) = xᵀ S M S x / (xᵀ S x + NOISE)     M covariance of all messages, S that of the weights after what was asked

With no answers it asks what is typical, then what is typical of the rest; far from every answer as well as between two labels
counts, odd ones out do not, and after each answer the same question is worth less without anything being learnt anew. Doubt of
the apprentice (Scheffer, Decomain and Wrobel 2001: the lead of the likeliest label) turns it towards the borders of labels.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from machikoba.sort.answers import Answers
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.pool import Pool

NOISE = 0.3
CANDIDATES = 500  # drawn anew for each question: the best of all messages is oftener an odd one (docs/log.md)
SAMPLE_EVERY = 5  # every so many-th question is the next of the random sample


@dataclass(frozen=True)
class Question:
    """message: its id. sample: one of the random sample, to be asked blind: without a suggestion before the answer."""

    message: str
    sample: bool


def next_questions(pool: Pool, answers: Answers, apprentice: Apprentice | None, most: int = 1,
                   sample_every: int = SAMPLE_EVERY, seed: int = 0) -> list[Question]:
    """Up to `most` questions in their order, as if those before were answered; none when all is answered.

    The apprentice may be some answers behind. sample_every: 1 asks the sample alone, 0 none of it. The same answers and seed
    give the same questions. Let one thread do NumPy's products (threadpoolctl): on a busy machine two take five times as long.
    """
    asked = np.zeros(len(pool), dtype=bool)
    asked[[pool.row[m] for m in answers.given if m in pool.row]] = True
    picked = pool.plane[pool.useful[asked[pool.useful]]]
    precision = np.eye(pool.plane.shape[1], dtype=np.float32) + picked.T @ picked / NOISE
    found: list[Question] = []
    while len(found) < most:
        n_asked = int(asked.sum())
        sample, useful = pool.sampled[~asked[pool.sampled]], pool.useful[~asked[pool.useful]]
        if not sample_every:
            sample = sample[:0]
        elif sample_every == 1 and len(sample):
            useful = useful[:0]
        if not len(sample) and not len(useful):
            break
        due = bool(len(sample)) and len(pool.sampled) - len(sample) < (n_asked + 1) // sample_every
        if due or not len(useful):
            row, due = int(sample[0]), True
        else:
            drawn = np.random.default_rng([seed, n_asked]).permutation(useful)[:CANDIDATES]
            worth = _tells(pool.plane[drawn], precision, pool.covariance)
            if apprentice is not None:
                worth *= apprentice.doubt[drawn]
            row = int(drawn[np.argmax(worth)])
            precision += np.outer(pool.plane[row], pool.plane[row]) / NOISE
        asked[row] = True
        found.append(Question(pool.ids[row], due))
    return found


def _tells(plane: np.ndarray, precision: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """How much an answer to each row of `plane` (n, p) would tell, (n,)."""
    moved = cho_solve(cho_factor(precision, lower=True), plane.T).T
    return ((moved @ covariance) * moved).sum(axis=1) / ((moved * plane).sum(axis=1) + NOISE)
