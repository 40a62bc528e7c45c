"""How good the apprentice is and what is still needed, judged on the random sample of the questions alone.

Useful questions are harder than what arrives, and a rate among them says nothing of the traffic: they are learnt from and
never counted. The sample is counted as far as it was answered in its own order, each message read by a fit on the useful
answers alone, as a tuning with a holdout will read it; one that the clerk could not answer counts as a mistake.
"""
from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from machikoba.adapt.fitted.kernel import softmax
from machikoba.prove.certificate import certificate_chance, rows_needed
from machikoba.prove.metrics import Rate, rate
from machikoba.records.check import FEW_EXAMPLES
from machikoba.sort.answers import NOTHING, SKIPPED, Answers
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.pool import Pool

LEAST_SAMPLE = 20  # messages, below which no forecast is made
CERTIFYING = 2 / 3  # of the sample; the rest is the test (records.split)


@dataclass(frozen=True)
class Outlook:
    """answered, skipped: messages. right: of the sample, with its 95% interval. useful_right: of the others, mostly harder.

    needed: further messages of the sample for an 80% chance of a certificate at the quality of now, if none of them is learnt
    from; None where no number will do. chance: that a sample as large as the one there is earns it. doubled: the share of right
    ones to expect after as many answers again, drawn on from what the second half of the answers brought. These three are None
    while the sample is below LEAST_SAMPLE. few: labels with fewer than FEW_EXAMPLES answers.
    """

    answered: int
    skipped: int
    right: Rate
    useful_right: Rate
    chance: float | None
    needed: int | None
    doubled: float | None
    few: tuple[int, ...]


def outlook(pool: Pool, answers: Answers, apprentice: Apprentice | None, max_error: float = 0.05,
            confidence_level: float = 0.95) -> Outlook:
    """What the answers so far say; the apprentice may be some answers behind."""
    skipped = sum(label == SKIPPED for label in answers.given.values())
    n_answered = len(answers.given) - skipped
    n_of = {label: sum(other == label for other in answers.given.values()) for label in answers.names}
    few = tuple(label for label, n in n_of.items() if n < FEW_EXAMPLES)
    if apprentice is None:
        return Outlook(n_answered, skipped, rate(0, 0), rate(0, 0), None, None, None, few)
    place = {row: i for i, row in enumerate(apprentice.rows.tolist())}
    learnt, unsaid = [], 0
    for row in pool.sampled.tolist():
        if answers.given.get(pool.ids[row]) == SKIPPED:
            unsaid += 1
        elif row in place:
            learnt.append(place[row])
        else:
            break
    sample = np.array(learnt, dtype=np.int64)
    right = _right(apprentice.held_out, apprentice.given)
    others = np.ones(len(right), dtype=bool)
    others[sample] = False
    found = rate(int(right[sample].sum()), len(sample) + unsaid)
    useful = rate(int(right[others].sum()), int(others.sum()))
    if found.n < LEAST_SAMPLE:
        return Outlook(n_answered, skipped, found, useful, None, None, None, few)
    confidence, correct = _confident(apprentice, sample)
    confidence, correct = np.append(confidence, np.zeros(unsaid)), np.append(correct, np.zeros(unsaid, dtype=bool))
    chance = certificate_chance(confidence, correct, int(found.n * CERTIFYING), max_error, confidence_level)
    certifying = rows_needed(confidence, correct, max_error, confidence_level)
    wanted = None if certifying is None else ceil(certifying / CERTIFYING)
    before = int((~_right(apprentice.half[sample], apprentice.given[sample])).sum()) + unsaid
    wrong = found.n - found.k
    # Mistakes fall as a power of the answers: what the last doubling did, the next one does. Half a mistake keeps it finite.
    doubled = 1.0 - min(1.0, (wrong + 0.5) / (before + 0.5)) * (1.0 - found.value)
    return Outlook(n_answered, skipped, found, useful, chance, None if wanted is None else max(0, wanted - found.n), doubled, few)


def _right(scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Whether each row's highest score is its own label's, (n,); never for one of which nothing is known."""
    return (scores.argmax(axis=1) == given) & scores.any(axis=1)


def _confident(apprentice: Apprentice, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows held out: the probability of the likeliest real label, and whether it is the one given, both (n,)."""
    chances = softmax(apprentice.held_out[rows] * apprentice.factor)
    if NOTHING in apprentice.labels:
        chances[:, apprentice.labels.index(NOTHING)] = -1.0
    return chances.max(axis=1), chances.argmax(axis=1) == apprentice.given[rows]
