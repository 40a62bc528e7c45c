"""Why a bundle said what it said: the most alike past messages, and the words that pushed the decision."""
from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from machikoba.engine.runtime import Service
from machikoba.tasks.classify import Prediction

# Runs of one script stand for words: Japanese has no spaces, and a segmenter would be one more thing to install.
_WORD = re.compile(r"[\u4e00-\u9fff々]+|[\u30a0-\u30ffー]+|[\u3040-\u309f]+|[A-Za-z0-9']+|[^\s]")
MOST_WORDS = 40
LEAST_EFFECT = 0.02


@dataclass(frozen=True)
class Neighbour:
    """A past message; likeness: share of the kernel's highest possible value."""

    id: str
    text: str
    label: str
    likeness: float


@dataclass(frozen=True)
class Push:
    """A word, and how much of its lead over the next label the decision loses without it (negative: gains).

    The lead of raw scores, where a clear case has about 1, and not probability: a decision that two words each carry
    alone loses no probability with either of them.
    """

    word: str
    effect: float


@dataclass(frozen=True)
class Explanation:
    prediction: Prediction
    neighbours: list[Neighbour]
    words: list[Push]


def explain(service: Service, text: str, nearest: int = 3, most_words: int = 6) -> Explanation:
    """The decision on `text`, its nearest past messages and its most telling words.

    Words are judged by leaving each out and asking again (occlusion), which holds for every rung.
    """
    prediction = service.predict([text])[0]
    spans = [match.span() for match in _WORD.finditer(text)][:MOST_WORDS]
    without_each = [text[:a] + text[b:] for a, b in spans]
    likeness = service.likeness([text, *without_each])
    alike = likeness.kernel[0]
    past = [example for example in service.bundle.examples() if example["set"] == "train"]
    ordered = ((service.machine.anchors.rows[i], float(alike[i])) for i in np.argsort(-alike))
    neighbours = [Neighbour(past[row]["id"], past[row]["text"], past[row]["label"], share)
                  for row, share in ordered if row < len(past) and past[row]["text"]][:nearest]
    scores = service.machine.raw_scores(likeness)
    label = service.labels.names.index(prediction.label)
    leads = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
    pushes = [Push(text[a:b], float(leads[0] - without)) for (a, b), without in zip(spans, leads[1:], strict=True)]
    pushes.sort(key=lambda push: -abs(push.effect))
    return Explanation(prediction, neighbours, [push for push in pushes if abs(push.effect) >= LEAST_EFFECT][:most_words])
