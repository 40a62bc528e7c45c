"""A name for a group of messages: the words that set it apart from all others, readable without a dictionary.

A word is what stands together in one script: a run of kanji, of katakana, or of letters; hiragana, digits and signs part words. A
long run of kanji also holds the shorter ones in it that stand alone elsewhere: 朝食料金 has 朝食 and 料金. A lone kanji is a
word before a particle or at an end (駅から), else the stem of one (近い) and no name.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from machikoba.records.clean import normalise

WORD = re.compile(r"[一-鿿々〆ヶ]{2,}|[一-鿿](?![^がをにはもでのとへやかま\W])|[ァ-ヺー]{2,}|[^\W\d_一-鿿々〆ぁ-ゟァ-ヺー]{2,}")
MASKED = re.compile(r"〔[^〕]*〕|\[[^\]]*\]")  # what stands for a personal datum
LONGEST = 24  # characters of a message that stands for a name
BACKED = 3  # distinct messages, at least, that a word of a name is in: what one person wrote names nothing
WORDS = 2  # in a name
TIMES = 2.0  # as frequent here as elsewhere, at least
CERTAIN = 2.0  # standard errors by which the first word must be more frequent here than elsewhere
JOINT = "・"


def words(text: str) -> list[str]:
    """The words of a text in its normal form, in their order."""
    return WORD.findall(normalise(MASKED.sub(" ", text)))


def names(texts: Sequence[str], groups: Sequence[np.ndarray]) -> list[str]:
    """A name for each group, all different and none empty. texts: all messages, masked; groups: rows of each, the most
    typical first. Where no word sets a group apart it is named by the beginning of its most typical message."""
    found = [set(words(text)) for text in texts]
    alone = set().union(*found)
    held = [_held(some, alone) for some in found]
    everywhere = Counter(word for some in held for word in some)
    taken: set[str] = set()
    out = []
    for rows in groups:
        here = Counter(word for row in rows.tolist() for word in held[row])
        name = _name(_telling(here, everywhere, len(rows), len(texts)), taken) or _first(texts[int(rows[0])])
        out.append(_apart(name, taken))
        taken.add(out[-1])
    return out


def _held(some: set[str], alone: set[str]) -> set[str]:
    """The words of a text, with those that a long run of kanji is made of."""
    inner = {word[i:j] for word in some if "一" <= word[0] <= "鿿" and len(word) > 2
             for i in range(len(word)) for j in range(i + 2, len(word) + 1)}
    return some | inner & alone


def _telling(here: Counter[str], everywhere: Counter[str], n: int, n_all: int) -> list[str]:
    """Words by how surely and how much they are more frequent in the n messages of the group than in the rest."""
    scored = []
    for word, k in here.items():
        rest, others = everywhere[word] - k, max(1, n_all - n)
        share, elsewhere = (k + 0.5) / (n + 1), (rest + 0.5) / (others + 1)
        error = (share * (1 - share) / n + elsewhere * (1 - elsewhere) / others) ** 0.5
        if everywhere[word] >= BACKED and k >= min(BACKED, n) and share > max(TIMES * elsewhere, elsewhere + CERTAIN * error):
            scored.append((share * float(np.log(share / elsewhere)), len(word), word))
    return [word for _score, _length, word in sorted(scored, key=lambda one: (-one[0], -one[1], one[2]))]


def _name(telling: list[str], taken: set[str]) -> str:
    """The first words that do not repeat each other; a further one where that name is taken."""
    chosen: list[str] = []
    for word in telling:
        if not any(word in other or other in word for other in chosen):
            chosen.append(word)
        if len(chosen) >= WORDS and JOINT.join(chosen) not in taken:
            break
    return JOINT.join(chosen[:WORDS + 1])


def _first(text: str) -> str:
    """The beginning of a message, without what is masked."""
    plain = " ".join(MASKED.sub(" ", text).split())
    return plain if len(plain) <= LONGEST else plain[:LONGEST] + "…"


def _apart(name: str, taken: set[str]) -> str:
    """The name, with a number where it is empty or taken."""
    if name and name not in taken:
        return name
    return next(other for i in range(1, len(taken) + 2) if (other := f"{name} {i}".strip()) not in taken)
