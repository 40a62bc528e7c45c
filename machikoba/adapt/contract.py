"""What a rung of the ladder promises: it sees examples and nothing else of the world.

    rung.cross_fit(train) -> OutOfFold  how it does on rows that it did not learn from
    rung.fit(train) -> Fitted          learns; every choice is made by cross-validation inside `train`
    fitted.predict(texts) -> Scores    what serving needs: a label's probability and one confidence
    fitted.save() -> files by name     tensors and JSON, never pickle; `KernelMachine.load` reads them back
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from machikoba.adapt.fitted.ngrams import Counts
from machikoba.records.split import folds

FOLDS = 5


@dataclass(frozen=True)
class Train:
    """Examples to learn from.

    texts: the messages, length n. labels: index into `names`, int (n,). names: the labels' names.
    groups: near-duplicate group of each row, (n,); a group is never split across folds.
    none: index in `names` of the label that says "fits no label", None where there is no such label.
    """

    texts: Sequence[str]
    labels: np.ndarray
    names: tuple[str, ...]
    groups: np.ndarray
    none: int | None = None
    _part_of: tuple[Train, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, rows: np.ndarray) -> Train:
        """The examples at `rows` (int indices), in that order."""
        whole, mine = self._part_of or (self, np.arange(len(self)))
        return Train([self.texts[i] for i in rows], self.labels[rows], self.names, self.groups[rows], self.none,
                     (whole, mine[rows]))

    @property
    def counts(self) -> Counts:
        """The n-grams of each message, counted when they are first wanted, once for all subsets of the same examples."""
        return self._counted if self._part_of is None else self.counts_at(slice(None))

    def counts_at(self, rows: slice | np.ndarray) -> Counts:
        """The n-grams of the messages at `rows`."""
        whole, mine = self._part_of or (self, np.arange(len(self)))
        return whole._counted.subset(mine[rows])

    @cached_property
    def _counted(self) -> Counts:
        return Counts.of(self.texts)


@dataclass(frozen=True)
class Scores:
    """probabilities (n, n_labels), rows sum to 1; confidence (n,) in [0, 1]: how far to trust the likeliest real label."""

    probabilities: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class OutOfFold:
    """rows (m,): training rows that were held out; scores: by models that had not seen them, in the order of `rows`."""

    rows: np.ndarray
    scores: Scores


Say = Callable[[int, int], None]  # (steps done, steps in all)


class Diverged(Exception):
    """Training went astray: its loss rose instead of falling. Whoever climbs the ladder says so and goes on."""

    def __init__(self, first: float, last: float) -> None:
        super().__init__(f"loss {first:.2f} -> {last:.2f}")
        self.first, self.last = first, last


class Fitted(Protocol):
    """What a rung leaves behind."""

    def predict(self, texts: Sequence[str]) -> Scores: ...

    def save(self) -> dict[str, bytes]: ...


class Rung(Protocol):
    """One way to adapt a base to the task. `base` is None where no model is needed."""

    @property
    def name(self) -> str: ...

    @property
    def base(self) -> str | None: ...

    def cross_fit(self, train: Train, seed: int, say: Say) -> OutOfFold: ...

    def fit(self, train: Train, seed: int = 0) -> Fitted: ...


class ByFolds(ABC):
    """`cross_fit` for rungs whose fits are cheap: every row is judged once, by a fit on the other folds."""

    @abstractmethod
    def fit(self, train: Train, seed: int = 0) -> Fitted: ...

    def cross_fit(self, train: Train, seed: int, say: Say) -> OutOfFold:
        """Five folds that keep near-duplicates together."""
        part = folds(train.labels, train.groups, FOLDS, seed)
        probabilities = np.zeros((len(train), len(train.names)), dtype=np.float32)
        trust = np.zeros(len(train))
        for fold in range(FOLDS):
            say(fold, FOLDS)
            inside, outside = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
            if len(outside):
                scores = self.fit(train.subset(inside), seed).predict([train.texts[int(i)] for i in outside])
                probabilities[outside], trust[outside] = scores.probabilities, scores.confidence
        say(FOLDS, FOLDS)
        return OutOfFold(np.arange(len(train)), Scores(probabilities, trust))
