"""The messages of a sorting session as its steps see them: near-duplicates once, in vectors and words, in two parts.

The parts are those of `records.split`: messages of its `certify` and `test` are asked in the order of their hash alone, so
that whatever prefix of them is answered is a plain random sample of what arrives; useful questions are chosen among its
`train` only. So a later tuning with a holdout finds certify and test rows that nobody picked.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from machikoba.adapt.fitted.kernel import placed
from machikoba.adapt.fitted.ngrams import Counts, Ngrams
from machikoba.records.clean import example_ids, near_duplicate_links
from machikoba.records.split import assign_sets, place

HOLDOUT = 0.3  # the share that `tune` holds out when it is told to
PLANE = 384  # directions, at most, in which questions are weighed against each other; 128 choose worse (docs/log.md)


@dataclass(frozen=True)
class Pool:
    """n messages, m of them distinct; everything below is by distinct message.

    texts: masked, length m. ids: stable, length m. distinct: which of them each of the n messages is, int (n,). sizes: how many
    messages each stands for, int (m,). vectors: unit rows around the mean of all, float32 (m, d). words: unit rows of n-grams,
    csr (m, k). centre (d,), ngrams: what makes both of further messages; ngrams is None in a pool from the disk, where nobody's
    words are but in the messages. sampled: those to ask in their order, int. useful: those to choose among, int.
    """

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    distinct: np.ndarray
    sizes: np.ndarray
    vectors: np.ndarray
    words: csr_matrix
    centre: np.ndarray
    sampled: np.ndarray
    useful: np.ndarray
    ngrams: Ngrams | None = None

    @classmethod
    def of(cls, texts: Sequence[str], vectors: np.ndarray, holdout: float = HOLDOUT) -> Pool:
        """From n masked texts and what a base makes of them, (n, d) of any length and centre.

        Raises ValueError where there are no texts, not as many vectors, or vectors that are not finite.
        """
        if not len(texts) or vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"one vector for each text is wanted, found {vectors.shape} for {len(texts)}")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors must be finite")
        ids = example_ids(texts)
        sets, groups = assign_sets(ids, near_duplicate_links(texts), holdout)
        first: dict[str, int] = {}
        for row, group in enumerate(groups):
            first.setdefault(group, row)
        shown = np.fromiter(first.values(), np.int64, len(first))
        number = {group: i for i, group in enumerate(first)}
        distinct = np.array([number[group] for group in groups], dtype=np.int64)
        kept = vectors[shown].astype(np.float32)
        centre, counts = kept.mean(axis=0), Counts.of([texts[i] for i in shown])
        ngrams = Ngrams.fit(counts)
        apart = [i for i, row in enumerate(shown) if sets[row] in ("certify", "test")]
        return cls(texts=tuple(texts[i] for i in shown), ids=tuple(ids[i] for i in shown), distinct=distinct,
                   sizes=np.bincount(distinct), vectors=placed(kept, centre, np.ones_like(centre)), words=ngrams.weigh(counts),
                   centre=centre, ngrams=ngrams,
                   sampled=np.array(sorted(apart, key=lambda i: place(groups[shown[i]])), dtype=np.int64),
                   useful=np.array([i for i, row in enumerate(shown) if sets[row] == "train"], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, d) of further messages, from the same base, as unit rows beside those of the pool."""
        return placed(vectors.astype(np.float32), self.centre, np.ones_like(self.centre))

    @cached_property
    def row(self) -> dict[str, int]:
        """The distinct message of each id."""
        return {identity: i for i, identity in enumerate(self.ids)}

    @cached_property
    def plane(self) -> np.ndarray:
        """The vectors, of more than PLANE dimensions in the directions in which they differ most, float32 (m, at most PLANE)."""
        if self.vectors.shape[1] <= PLANE:
            return self.vectors
        spread, directions = np.linalg.eigh(self.vectors.T @ self.vectors)
        return self.vectors @ directions[:, np.argsort(-spread)[:PLANE]]

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of the rows of `plane`, (at most PLANE, the same): what all messages together would like to know."""
        return self.plane.T @ self.plane / len(self)
