"""What the clerk is shown beside a message, and which labels deserve a second look."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from machikoba.sort.answers import NOTHING, Answers
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.names import names
from machikoba.sort.pool import Pool

MOST = 9  # keys 1 to 9
LEAST_SPLIT = 8  # answers of a label, below which two topics in it cannot be told from chance
LEAST_HALF = 3  # of them in the smaller topic
GAP = 1.4  # from which a label is named
STEPS = 10  # of 2-means
APART = 0.05  # chance at most, over all labels, that clear ones look mixed
CROSSED = 0.05  # share of a label's answers that read as another label's by chance alone, about


@dataclass(frozen=True)
class Suggestion:
    """probability: 0 for a label that was made after the apprentice learnt."""

    label: int
    probability: float


@dataclass(frozen=True)
class Mixed:
    """Two labels of which `crossed` of `answers` answers read as the other's. share: crossed / answers."""

    labels: tuple[int, int]
    crossed: int
    answers: int
    share: float


@dataclass(frozen=True)
class Divided:
    """A label whose messages fall into two topics: the answered messages of each by id, and a name for each."""

    label: int
    messages: tuple[tuple[str, ...], tuple[str, ...]]
    names: tuple[str, str]
    gap: float


def suggestions(pool: Pool, answers: Answers, apprentice: Apprentice | None, message: str, most: int = MOST) -> list[Suggestion]:
    """The labels that there are, the likeliest first; never NOTHING or SKIPPED, which have keys of their own.

    Merges since the apprentice learnt count at once. A label that it does not know comes first where the most alike answered
    message has it, else last. Raises KeyError for a message that is not in the pool.
    """
    row = pool.row[message]
    chances = dict.fromkeys(answers.names, 0.0)
    if apprentice is not None:
        for label, chance in zip(apprentice.labels, apprentice.probabilities(np.array([row]))[0].tolist(), strict=True):
            if label != NOTHING:
                chances[answers.current(label)] += chance
    given = [(pool.row[m], label) for m, label in answers.given.items() if label >= 0 and m in pool.row and m != message]
    closest: dict[int, float] = dict.fromkeys(chances, -1.0)
    if given:
        close = pool.vectors[[r for r, _label in given]] @ pool.vectors[row]
        for value, (_row, label) in zip(close.tolist(), given, strict=True):
            closest[label] = max(closest[label], value)
    nearest = max(closest, key=lambda label: closest[label], default=None)
    known = set() if apprentice is None else {answers.current(label) for label in apprentice.labels if label != NOTHING}
    order = sorted(chances, key=lambda label: (label in known or label != nearest, -chances[label], -closest[label], label))
    return [Suggestion(label, round(chances[label], 6)) for label in order[:most]]


def mixed(answers: Answers, apprentice: Apprentice) -> list[Mixed]:
    """Pairs of labels to merge or to tell apart better, the most mixed first: more of their answers than chance explains read as
    the other's when they are left out."""
    column = [label if label == NOTHING else answers.current(label) for label in apprentice.labels]
    labels = sorted({label for label in column if label != NOTHING})
    place = {label: i for i, label in enumerate(labels)}
    of = np.array([place.get(label, -1) for label in column])
    given, read = of[apprentice.given], of[apprentice.held_out.argmax(axis=1)]
    counts = np.bincount(given[given >= 0], minlength=len(labels))
    found = []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            crossed = int(((given == i) & (read == j)).sum() + ((given == j) & (read == i)).sum())
            n = int(counts[i] + counts[j])
            if min(counts[i], counts[j]) > 1 and binom.sf(crossed - 1, n, CROSSED) < APART / max(1, len(labels)):
                found.append(Mixed((labels[i], labels[j]), crossed, n, crossed / n))
    return sorted(found, key=lambda pair: (-pair.share, pair.labels))


def divided(pool: Pool, answers: Answers, apprentice: Apprentice) -> list[Divided]:
    """Labels that seem to hold two topics, the widest gap first.

    The messages that read as a label, answered or not, are parted in two; the gap is how far the halves' means are apart, against
    how far the label is from the one next to it. Two labels at random put together have a gap of 1.8 on banking77, 1.4 on
    asdc_l1; nine of ten others have less than 1.4 and 1.3 (docs/log.md). Answers alone are too few to tell.
    """
    column = np.array([label if label == NOTHING else answers.current(label) for label in apprentice.labels])
    labels = sorted({int(label) for label in column if label != NOTHING} & set(answers.given.values()))
    reads, given = column[apprentice.scores.argmax(axis=1)].copy(), column[apprentice.given]
    reads[apprentice.rows] = given
    of = {label: np.flatnonzero(reads == label) for label in labels}
    means = {label: pool.vectors[rows].mean(axis=0) for label, rows in of.items() if len(rows)}
    found = []
    for label in means:
        beside = [float(np.linalg.norm(means[label] - mean)) for other, mean in means.items() if other != label]
        answered = apprentice.rows[given == label]
        if len(answered) < LEAST_SPLIT or not beside:
            continue
        distance, upper = _parted(pool.vectors[of[label]])
        gap, first = distance / max(min(beside), 1e-9), np.isin(answered, of[label][upper])
        if gap >= GAP and min(first.sum(), (~first).sum()) >= LEAST_HALF:
            halves = [answered[first], answered[~first]]
            one, other = (tuple(pool.ids[i] for i in half) for half in halves)
            name, second = names(pool.texts, [of[label][upper], of[label][~upper]])
            found.append(Divided(label, (one, other), (name, second), gap))
    return sorted(found, key=lambda one: (-one.gap, one.label))


def _parted(vectors: np.ndarray) -> tuple[float, np.ndarray]:
    """Rows (r, d) in two parts by 2-means, begun across their widest direction: how far the means are apart, and one part, bool
    (r,). 0 where all rows are one."""
    inner = vectors - vectors.mean(axis=0)
    along = inner @ np.linalg.eigh(inner.T @ inner)[1][:, -1]
    upper, distance = along > np.median(along), 0.0
    for _step in range(STEPS):
        if upper.all() or not upper.any():
            return 0.0, upper
        first, second = inner[upper].mean(axis=0), inner[~upper].mean(axis=0)
        distance = float(np.linalg.norm(first - second))
        moved = inner @ (first - second) > (first @ first - second @ second) / 2
        if (moved == upper).all():
            break
        upper = moved
    return distance, upper
