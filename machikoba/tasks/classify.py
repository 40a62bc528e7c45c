"""The task `classify`: one label per message. Its ladder, what counts as correct, and its output."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from machikoba.adapt.contract import Rung, Scores
from machikoba.adapt.features import FeaturesRung
from machikoba.adapt.lora import FROZEN, Bench, LoraRung
from machikoba.adapt.words import WordsRung
from machikoba.base.encoder import Encoder

NAME = "classify"
RUNGS = ("words", "features", "top", "lora")
DEFAULT_RUNGS = ("words", "features")  # training takes minutes where these take seconds: whoever wants it asks for it


@dataclass(frozen=True)
class Prediction:
    """answered: told automatically. would_answer: what an apprentice would do alone; a person confirms each. likely: the labels
    that come next, for whoever decides."""

    label: str
    confidence: float
    answered: bool
    would_answer: bool
    likely: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Labels:
    """names: every label learnt. none: the one that says "fits no label". never: those always left to a person."""

    names: tuple[str, ...]
    none: str | None = None
    never: tuple[str, ...] = ()

    @property
    def none_index(self) -> int | None:
        return self.names.index(self.none) if self.none is not None and self.none in self.names else None


def ladder(encoders: Sequence[Encoder], wanted: Sequence[str]) -> list[Rung]:
    """The rungs named in `wanted`, cheapest first; all but `words` once for each base, smallest base first."""
    rungs: list[Rung] = [WordsRung()] if "words" in wanted else []
    by_size = sorted(encoders, key=lambda encoder: encoder.base.megaflops_per_token)
    if "features" in wanted:
        rungs += [FeaturesRung(encoder) for encoder in by_size]
    benches = [Bench(encoder) for encoder in by_size]
    for name in FROZEN:
        if name in wanted:
            rungs += [LoraRung(name, bench) for bench in benches]
    return rungs


def decide(scores: Scores, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Label index (n,) and the confidence (n,) that thresholds apply to: -inf where a person always decides."""
    chosen = scores.probabilities.argmax(axis=1)
    left = {labels.names.index(name) for name in (*labels.never, labels.none) if name in labels.names}
    return chosen, np.where(np.isin(chosen, sorted(left)), -np.inf, scores.confidence)


def correct(true: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether each answer would be right (n,). An answer to a message that fits no label never is."""
    return true == chosen
