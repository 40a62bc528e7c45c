"""Messages that are alike, put together before anything is known of them: to look through, and to name labels after."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from machikoba.sort.names import names
from machikoba.sort.pool import Pool

MOST_GROUPS = 30
TYPICAL = 5  # messages shown for a group


@dataclass(frozen=True)
class Group:
    """rows: distinct messages, int, the most typical first. n_messages: how many they stand for. name: proposed, never empty."""

    rows: np.ndarray
    n_messages: int
    name: str

    @property
    def typical(self) -> np.ndarray:
        return self.rows[:TYPICAL]


def group(pool: Pool, count: int | None = None, seed: int = 0) -> list[Group]:
    """Up to `count` groups of the pool, the largest first: k-means on the unit vectors, near-duplicates counted once.

    Without `count` half the root of the distinct messages, at most MOST_GROUPS. Every distinct message is in one group.
    """
    wanted = min(count or min(MOST_GROUPS, max(2, round(len(pool) ** 0.5 / 2))), len(np.unique(pool.plane, axis=0)))
    model = KMeans(max(1, wanted), n_init=1, random_state=seed).fit(pool.plane)
    closeness = (pool.plane * model.cluster_centers_[model.labels_]).sum(axis=1)
    members = [np.flatnonzero(model.labels_ == g) for g in range(len(model.cluster_centers_))]
    members = [rows[np.argsort(-closeness[rows], kind="stable")] for rows in members if len(rows)]
    members.sort(key=lambda rows: (-int(pool.sizes[rows].sum()), int(rows[0])))
    return [Group(rows, int(pool.sizes[rows].sum()), name)
            for rows, name in zip(members, names(pool.texts, members), strict=True)]
