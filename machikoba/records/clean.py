"""Normal forms for matching: the original text is kept for display, these decide what counts as the same."""
from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

# Look-alikes that NFKC leaves apart and that Japanese input methods and CP932 converters mix up.
_LOOKALIKES = str.maketrans({"〜": "~", "∼": "~", "˜": "~", "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-"})
_SPACES = re.compile(r"\s+")
_LONG_VOWEL_AS_HYPHEN = re.compile(r"(?<=\d)ー+(?=\d)")  # 090ー1234; between kana it is a sound and stays

SIMILAR = 0.8  # Jaccard likeness of character 3-grams from which two texts count as near duplicates
_GRAM = 3
_HASHES = 32
_BAND = 4  # rows per band: 8 bands of 4 find a pair of likeness 0.8 with 98.5%
_ROWS_AT_A_TIME = 20_000  # bounds the memory of the 32 hashed copies


def normalise(text: str) -> str:
    """The form in which texts and labels are compared: NFKC, look-alike dashes, lower case, single spaces."""
    plain = unicodedata.normalize("NFKC", text).translate(_LOOKALIKES).casefold()
    return _SPACES.sub(" ", _LONG_VOWEL_AS_HYPHEN.sub("-", plain)).strip()


def example_ids(texts: Sequence[str]) -> list[str]:
    """16 hexadecimal digits of each text's normal form; a repeated text gets "-2", "-3" … in order."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        key = hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return ids


def canonical_labels(labels: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Labels with spellings that differ only by width, case or space made one, and {other spelling: kept one}.

    The most frequent spelling is kept; of equally frequent ones, the first.
    """
    counts = Counter(labels)
    kept: dict[str, str] = {}
    for label in counts:
        key = normalise(label).replace(" ", "")
        if key not in kept or counts[label] > counts[kept[key]]:
            kept[key] = label
    choice = {label: kept[normalise(label).replace(" ", "")] for label in counts}
    return [choice[label] for label in labels], {label: to for label, to in choice.items() if label != to}


def skeleton(text: str) -> str:
    """The letters of a text only, so that "2人分です。" and "3人分です!" are one."""
    return "".join(character for character in normalise(text) if _is_letter(character))


@cache
def _is_letter(character: str) -> bool:
    """Letters and the vowel signs that other scripts write as marks; not the marks that only dress an emoji."""
    kind = unicodedata.category(character)
    return kind[0] == "L" or (kind in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f")


def near_duplicate_links(texts: Sequence[str]) -> np.ndarray:
    """Pairs (i, j), i < j, int (m, 2), of near duplicates: enough of them to connect every group that was found.

    Equal skeletons are always linked (texts without any letter: equal normal forms); skeletons of three letters or
    more also when the Jaccard likeness of their 3-grams is at least 0.8. Candidates come from MinHash (Broder 1997) in
    bands; each pair is then checked exactly.
    """
    skeletons = [skeleton(text) for text in texts]
    keys = [bare or normalise(text) for bare, text in zip(skeletons, texts, strict=True)]
    first: dict[str, int] = {}
    links = []
    for i, key in enumerate(keys):
        if key in first:
            links.append((first[key], i))
        else:
            first[key] = i
    rows = np.array([i for i in first.values() if len(skeletons[i]) >= _GRAM], dtype=np.int64)
    if len(rows) > 1:
        links += _similar([keys[i] for i in rows], rows)
    return np.array(sorted(links), dtype=np.int64).reshape(-1, 2)


def near_duplicate_groups(texts: Sequence[str]) -> np.ndarray:
    """Index of the first row of each row's group of near duplicates, int (n,)."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near_duplicate_links(texts).tolist():
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    return np.array([root(i) for i in range(len(texts))], dtype=np.int64)


def _similar(keys: list[str], rows: np.ndarray) -> list[tuple[int, int]]:
    """Checked pairs among distinct skeletons, as pairs of `rows`."""
    grams = _grams(keys)
    signature = _signature(grams)
    candidates: set[tuple[int, int]] = set()
    for band in range(0, _HASHES, _BAND):
        bucket = np.zeros(len(keys), dtype=np.uint64)
        for column in range(band, band + _BAND):
            bucket = bucket * np.uint64(0x9E3779B97F4A7C15) + signature[:, column]
        order = np.argsort(bucket, kind="stable")
        same = np.flatnonzero(bucket[order][1:] == bucket[order][:-1]) + 1
        start, previous = 0, -1
        for position in same.tolist():  # a large bucket is chained to its first and to the one before: not quadratic
            if position - 1 != previous:
                start = position - 1
            previous = position
            candidates.add((int(order[start]), int(order[position])))
            candidates.add((int(order[position - 1]), int(order[position])))
    found = []
    for i, j in candidates:
        common = len(np.intersect1d(grams[i], grams[j], assume_unique=True))
        if common >= SIMILAR * (len(grams[i]) + len(grams[j]) - common):
            a, b = sorted((int(rows[i]), int(rows[j])))
            found.append((a, b))
    return found


def _grams(keys: list[str]) -> list[np.ndarray]:
    """The distinct 3-grams of each key, as sorted uint64 arrays of three 21-bit code points."""
    made = []
    for key in keys:
        points = np.frombuffer(key.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        packed = points[:-2] << np.uint64(42) | points[1:-1] << np.uint64(21) | points[2:]
        packed.sort()
        made.append(packed[np.concatenate(([True], packed[1:] != packed[:-1]))])
    return made


def _signature(grams: list[np.ndarray]) -> np.ndarray:
    """MinHash signatures, uint64 (n, 32)."""
    factors = np.random.default_rng(0).integers(1, 2**63, size=_HASHES, dtype=np.uint64) | np.uint64(1)
    signature = np.empty((len(grams), _HASHES), dtype=np.uint64)
    for begin in range(0, len(grams), _ROWS_AT_A_TIME):
        some = grams[begin:begin + _ROWS_AT_A_TIME]
        starts = np.concatenate(([0], np.cumsum([len(g) for g in some])[:-1]))
        values = np.concatenate(some)
        values = values ^ values >> np.uint64(29)
        for column, factor in enumerate(factors):
            mixed = values * factor
            mixed ^= mixed >> np.uint64(32)
            signature[begin:begin + len(some), column] = np.minimum.reduceat(mixed * factor, starts)
    return signature
