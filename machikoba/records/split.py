"""Which examples are learnt from, which earn the certificate, which only report: fixed by the examples themselves."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np

Set = Literal["train", "certify", "test", "none"]
DATED_SHARE = 0.9  # of the rows must have a readable date before time means anything

_WESTERN = re.compile(r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[T\s]*(\d{1,2})[:時](\d{1,2}))?")
_ERA = re.compile(r"(令和|平成|R|H)\s*(\d{1,2}|元)[年./-](\d{1,2})[月./-](\d{1,2})")
_ERA_START = {"令和": 2018, "R": 2018, "平成": 1988, "H": 1988}


def _place(group_id: str) -> float:
    """A number in [0, 1) that belongs to the id forever."""
    return int.from_bytes(hashlib.sha256(group_id.encode()).digest()[:8], "big") / 2**64


def set_of(group_id: str, holdout: float) -> Set:
    """The set of a near-duplicate group: one third of the held-out share is the test, two thirds certify."""
    place = _place(group_id)
    return "test" if place < holdout / 3 else "certify" if place < holdout else "train"


def assign_sets(ids: Sequence[str], links: np.ndarray, holdout: float = 0.3,
                order: np.ndarray | None = None) -> tuple[list[Set], list[str]]:
    """Set and group id of every example.

    ids (n,): stable ids. links (m, 2): near duplicates. holdout: share not learnt from. order (n,): rows from the oldest
    on (default: as given). A row joins the group of an earlier near duplicate; a row that joins groups of different
    sets is used in none. So rows added later never move an earlier one.
    """
    neighbours: dict[int, list[int]] = {}
    for i, j in links.tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    sets: list[Set | None] = [None] * len(ids)
    groups = list(ids)
    merged: dict[str, str] = {}

    def root(group: str) -> str:
        while group in merged:
            group = merged[group]
        return group

    for row in range(len(ids)) if order is None else order.tolist():
        earlier = sorted({root(groups[j]) for j in neighbours.get(row, []) if sets[j] not in (None, "none")})
        wanted = {set_of(group, holdout) for group in earlier}
        if len(wanted) > 1:
            sets[row] = "none"
            continue
        if earlier:
            groups[row] = earlier[0]
            merged.update(dict.fromkeys(earlier[1:], earlier[0]))
        sets[row] = set_of(groups[row], holdout)
    return [s or "none" for s in sets], [root(group) for group in groups]


def folds(labels: np.ndarray, groups: Sequence[object] | np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold of each row, int (n,): labels spread evenly, near-duplicate groups never split, the same for the same seed."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    n_groups = int(group.max()) + 1 if len(group) else 0
    size = np.bincount(group, minlength=n_groups)
    first = np.full(n_groups, -1)
    first[group[::-1]] = label[::-1]
    shuffled = np.random.default_rng(seed).permutation(n_groups)
    by_size = shuffled[np.argsort(-size[shuffled], kind="stable")]
    filled = np.zeros((int(label.max()) + 1 if len(label) else 0, k))
    total = np.zeros(k)
    fold = np.zeros(n_groups, dtype=np.int64)
    for g in by_size.tolist():
        # Fewest of this label first; among those, the fold with the fewest rows.
        chosen = int(np.argmin(filled[first[g]] + total / (len(label) + 1.0)))
        fold[g] = chosen
        filled[first[g], chosen] += size[g]
        total[chosen] += size[g]
    return fold[group]


def parse_date(text: str | None) -> datetime | None:
    """A date as Japanese files write it (2024-05-01, 2024/5/1 13:05, 2024年5月1日, 令和6年5月1日), or None."""
    if not text:
        return None
    try:
        if found := _WESTERN.search(text):
            year, month, day, hour, minute = (int(part) if part else 0 for part in found.groups())
            return datetime(year, month, day, hour, minute)
        if found := _ERA.search(text):
            year = 1 if found[2] == "元" else int(found[2])
            return datetime(_ERA_START[found[1]] + year, int(found[3]), int(found[4]))
    except ValueError:  # the 31st of February
        return None
    return None


def oldest_first(dates: Sequence[str | None]) -> np.ndarray | None:
    """Rows from the oldest on, int (n,), when at least 90% have a date; a row without one keeps its place."""
    parsed = [parse_date(date) for date in dates]
    if not parsed or sum(date is not None for date in parsed) < DATED_SHARE * len(parsed):
        return None
    known = datetime.min
    filled = []
    for date in parsed:
        known = date or known
        filled.append(known)
    return np.array(sorted(range(len(filled)), key=lambda i: (filled[i], i)), dtype=np.int64)


def time_split(dates: Sequence[str | None], newest: float = 0.2) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the oldest 80% and the newest 20%, or None where too few rows have dates."""
    order = oldest_first(dates)
    if order is None or len(order) < 5:
        return None
    cut = len(order) - max(1, round(newest * len(order)))
    return np.sort(order[:cut]), np.sort(order[cut:])
