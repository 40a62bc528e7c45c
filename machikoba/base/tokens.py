"""How much each token of a message counts in its features: what stands in most messages says little.

Weights are inverse document frequencies over the business's own messages, without their labels. Against plain means
over all tokens they were right more often on few examples, by up to 3.8 points (docs/log.md).
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    def learn(cls, messages: Sequence[list[int]]) -> TokenWeights:
        """Weights ln((n + 1) / (messages with the token + 1)) from n tokenised messages, and LEAST."""
        met: Counter[int] = Counter()
        for message in messages:
            met.update(set(message))
        ids = np.array(sorted(met), dtype=np.int64)
        counts = np.array([met[int(i)] for i in ids], dtype=np.float64)
        n = len(messages)
        return cls(ids, (np.log((n + 1) / (counts + 1)) + LEAST).astype(np.float32), float(np.log(n + 1) + LEAST))

    def table(self, size: int) -> np.ndarray:
        """The weight of every token of a vocabulary, float32 (size,)."""
        table = np.full(size, self.other, dtype=np.float32)
        table[self.ids] = self.values
        return table

    def of(self, ids: np.ndarray) -> np.ndarray:
        """The weights of `ids` (any shape), float32: for a few tokens, without a table of the whole vocabulary."""
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
