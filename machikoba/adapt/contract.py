"""What a rung of the ladder promises: it sees examples and nothing else of the world.

    rung.fit(train) -> Fitted          learns; every choice is made by cross-validation inside `train`
    fitted.predict(texts) -> Scores    what serving needs: a label's probability and one confidence
    fitted.save() -> files by name     tensors and JSON, never pickle; `KernelMachine.load` reads them back
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, rows: np.ndarray) -> Train:
        """The examples at `rows` (int indices), in that order."""
        return Train([self.texts[i] for i in rows], self.labels[rows], self.names, self.groups[rows], self.none)


@dataclass(frozen=True)
class Scores:
    """probabilities (n, n_labels), rows sum to 1; confidence (n,) in [0, 1]: how far to trust the likeliest real label."""

    probabilities: np.ndarray
    confidence: np.ndarray


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

    def fit(self, train: Train, seed: int = 0) -> Fitted: ...
