"""Which examples are learnt from, which earn the certificate, which only report: fixed by the examples themselves."""
from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

Set = Literal["train", "certify", "test", "none"]
DATED_SHARE = 0.9  # of the rows must have a readable date before time means anything

# Years of this and the last century only, and no digits around: 0120-11-1234 is a telephone number.
_WESTERN = re.compile(r"(?<!\d)((?:19|20)\d{2})\s?[-/.年]\s?(\d{1,2})\s?[-/.月]\s?(\d{1,2})(?!\d)")
_ERA = re.compile(r"(?:(令和|平成)|(?<![A-Za-z])([RH]))\s?(\d{1,2}|元)\s?[年./-]\s?(\d{1,2})\s?[月./-]\s?(\d{1,2})(?!\d)")
_TIME = re.compile(r"日?\s*(?:\([^)]{1,4}\))?[T\s]*(\d{1,2})[:時](?:(\d{1,2})(?:[:分](\d{1,2}))?)?")
_COPY = re.compile(r"-\d+$")  # how `clean.example_ids` marks the second and later copies of one text
_ERA_START = {"令和": 2018, "R": 2018, "平成": 1988, "H": 1988}


def place(group_id: str) -> float:
    """A number in [0, 1) that belongs to the id forever."""
    return int.from_bytes(hashlib.sha256(group_id.encode()).digest()[:8], "big") / 2**64


def original(identity: str) -> str:
    """The id of a text's first copy."""
    return _COPY.sub("", identity)


def set_of(group_id: str, holdout: float) -> Set:
    """The set of a near-duplicate group: one third of the held-out share is the test, two thirds certify."""
    at = place(group_id)
    return "test" if at < holdout / 3 else "certify" if at < holdout else "train"


def assign_sets(ids: Sequence[str], links: np.ndarray, holdout: float = 0.3, order: np.ndarray | None = None,
                known: Mapping[int, tuple[Set, str]] | None = None,
                train_only: Collection[int] = ()) -> tuple[list[Set], list[str]]:
    """Set and group id of every example.

    ids (n,): stable ids. links (m, 2): near duplicates. holdout: share not learnt from. order (n,): rows from the oldest
    on (default: as given). A row joins the group of its earlier near duplicates, the earliest of several; a row that
    joins groups of different sets is used in none, and so are its exact copies, but it decides for no other row. So
    rows added later never move an earlier one.

    known: set and group of rows that had them before; they come first in the file and in `order`, and keep their sets.
    train_only: rows that nothing may be proved on. A group that one of them begins is learnt from, whatever its hash says; one
    that joins a group kept aside is used in none.

    Links name the first of several near duplicates in the file, which need not be the oldest: two rows linked only
    through one that is above them in the file, but yet to come in `order`, count as linked.
    """
    neighbours: dict[int, list[int]] = {}
    for i, j in links.tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    sets: list[Set | None] = [None] * len(ids)
    groups = [original(identity) for identity in ids]
    oldest_copy: dict[str, int] = {}
    only: set[Set] = {"train"}
    began: dict[str, int] = {}
    placed: dict[str, Set] = {}  # the set of each group that began
    joined_ahead: defaultdict[int, set[str]] = defaultdict(set)
    merged: dict[str, str] = {}

    def root(group: str) -> str:
        while group in merged:
            group = merged[group]
        return group

    for row in range(len(ids)) if order is None else order.tolist():
        copy = oldest_copy.setdefault(groups[row], row)
        if known is not None and row in known:
            sets[row], groups[row] = before, group = known[row]
            if before != "none":
                began.setdefault(group, len(began))
                placed[group] = before
            continue
        near = [*neighbours.get(row, []), copy]
        ahead = [j for j in near if sets[j] is None and j < row]
        touched = {root(groups[j]) for j in near if sets[j] not in (None, "none")}
        touched.update(root(group) for j in ahead for group in joined_ahead[j])
        if root(groups[row]) in placed:  # a group keeps its name also where the row that gave it is gone
            touched.add(root(groups[row]))
        earlier = sorted(touched, key=began.__getitem__)
        wanted = {placed[group] for group in earlier} | (only if row in train_only else set())
        if sets[copy] == "none" or len(wanted) > 1:
            sets[row], groups[row] = "none", ids[row]
            continue
        if earlier:
            groups[row] = earlier[0]
            merged.update(dict.fromkeys(earlier[1:], earlier[0]))
        began.setdefault(groups[row], len(began))
        sets[row] = placed.setdefault(groups[row], wanted.pop() if wanted else set_of(groups[row], holdout))
        for j in ahead:
            joined_ahead[j].add(groups[row])
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
    """A date as Japanese files write it (2024-05-01, 2024/5/1 13:05, 2024年5月1日(水), 令和6年5月1日), or None.

    25:00 is one o'clock of the next day, as shops that close late write it.
    """
    if not text:
        return None
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if found := _WESTERN.search(plain):
        year, month, day = (int(part) for part in found.groups())
    elif found := _ERA.search(plain):
        year = _ERA_START[found[1] or found[2]] + (1 if found[3] == "元" else int(found[3]))
        month, day = int(found[4]), int(found[5])
    else:
        return None
    time = _TIME.match(plain, found.end())
    hours, minutes, seconds = (int(part) if part else 0 for part in time.groups()) if time else (0, 0, 0)
    try:
        return datetime(year, month, day) + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except ValueError:  # the 31st of February
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
