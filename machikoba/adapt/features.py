"""The second rung: what a frozen open model makes of the messages, stacked with their words."""
from __future__ import annotations

from functools import partial

from machikoba.adapt.choose import learn
from machikoba.adapt.contract import ByFolds, OutOfFold, Say, Train
from machikoba.adapt.fitted.kernel import KernelMachine
from machikoba.base.encoder import Encoder


class FeaturesRung(ByFolds):
    """Implements `Rung`. The encoder reads each text once, however many folds there are."""

    name = "features"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.base = encoder.base.name

    def cross_fit(self, train: Train, seed: int, say: Say) -> OutOfFold:
        """The base reads every text once, before the folds ask for parts of them."""
        self.encoder.read(train.texts)
        return super().cross_fit(train, seed, say)

    def fit(self, train: Train, seed: int = 0) -> KernelMachine:
        """Kernel ridge or logistic regression over the features of one layer and the words."""
        layers = self.encoder.layers(train.texts)
        encoders = {layer: partial(self._encode, layer) for layer in layers}
        return learn(train, layers, seed, self.encoder.base.kind == "decoder", encoders)

    def _encode(self, layer: str, texts: list[str]):  # type: ignore[no-untyped-def]
        return self.encoder.layers(texts)[layer]
