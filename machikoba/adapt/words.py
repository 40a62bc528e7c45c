"""The cheapest rung: the words (character n-grams) of the messages, no model."""
from __future__ import annotations

from machikoba.adapt.choose import learn
from machikoba.adapt.contract import ByFolds, Train
from machikoba.adapt.fitted.kernel import KernelMachine


class WordsRung(ByFolds):
    """Implements `Rung`."""

    name = "words"
    base: str | None = None

    def fit(self, train: Train, seed: int = 0) -> KernelMachine:
        """Kernel ridge or logistic regression over character n-grams."""
        return learn(train, None, seed)
