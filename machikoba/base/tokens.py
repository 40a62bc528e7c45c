"""How much each token of a message counts in its features: what stands in most messages says little.

Weights are inverse document frequencies over the business's own messages, without their labels. Against plain means
over all tokens they were right more often on few examples, by up to 3.8 points (docs/log.md).
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEAST = 1e-3  # so that a message made only of what all say still has features


@dataclass(frozen=True)
class TokenWeights:
    """ids (k,) int64: tokens met, in order; values (k,) float32: their weights; other: the weight of tokens never met."""

    ids: np.ndarray
    values: np.ndarray
    other: float

    @classmethod
    def learn(cls, messages: Iterable[list[int]]) -> TokenWeights:
        """Weights ln((n + 1) / (messages with the token + 1)) from n tokenised messages, and LEAST."""
        met: Counter[int] = Counter()
        n = 0
        for message in messages:
            met.update(set(message))
            n += 1
        ids = np.array(sorted(met), dtype=np.int64)
        counts = np.array([met[int(i)] for i in ids], dtype=np.float64)
        return cls(ids, (np.log((n + 1) / (counts + 1)) + LEAST).astype(np.float32), float(np.log(n + 1) + LEAST))

    def of(self, ids: np.ndarray) -> np.ndarray:
        """The weights of `ids` (any shape), float32."""
        if not len(self.ids):
            return np.full(ids.shape, self.other, dtype=np.float32)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.values[place], np.float32(self.other))

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.values.nbytes

    def save(self) -> bytes:
        """As safetensors."""
        from safetensors.numpy import save

        return save({"ids": self.ids, "values": self.values, "other": np.array([self.other], dtype=np.float64)})

    @classmethod
    def load(cls, path: Path) -> TokenWeights:
        """The inverse of `save`."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        return cls(tensors["ids"], tensors["values"], float(tensors["other"][0]))


def shares(values: np.ndarray, read: np.ndarray, special: np.ndarray, first_skipped: bool) -> np.ndarray:
    """Share of each token in its text's mean, float32 (b, t); each row sums to 1.

    values (b, t): weights of plain tokens; read (b, t): False where there is padding; special (b, t): tokens that count as much
    as the text's plain ones do on average. first_skipped: the first of each text does not count.
    """
    special = special & read
    plain = np.where(special | ~read, np.float32(0), values)
    average = plain.sum(axis=1, keepdims=True) / np.maximum((plain > 0).sum(axis=1, keepdims=True), 1)
    weights = np.where(special, np.maximum(average, LEAST), plain)
    if first_skipped:
        weights[:, 0] = 0
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
