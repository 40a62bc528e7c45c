"""The rungs `top` and `lora`: the open model itself learns the task, by low-rank updates of its upper or of all layers.

`top` computes what enters the upper half once and trains on that: about half the time of `lora`.

What it leaves behind is the same kernel machine as of the rungs below, on the tuned model's features, beside a small
adapter. Half of the learnt update is kept where that is right more often: between the model as it was and as it became
lies one that remembers both (arXiv 2109.01903).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from machikoba.adapt.choose import (
    FIRST,
    FOLDED_ROWS,
    STRENGTHS,
    Fold,
    Judged,
    Rows,
    judge,
    make_fold,
)
from machikoba.adapt.closed_form import fit_trust
from machikoba.adapt.contract import OutOfFold, Say, Scores, Train
from machikoba.adapt.fitted.kernel import Choice, KernelMachine, confidence, softmax, trust_inputs
from machikoba.adapt.training_recipe import Recipe, recipe_for
from machikoba.base.encoder import Encoder
from machikoba.base.tokens import TokenWeights
from machikoba.records.split import folds

if TYPE_CHECKING:
    from machikoba.adapt.tuning import Tuner

KEPT = (0.5, 1.0)  # shares of the update to choose from
MAX_LEARNT_ROWS = 8_192  # rows that the machine learns from when a training is judged: as the last one will, but for memory
MAX_JUDGED_ROWS = 4_096  # rows on which it is then judged
TRUST_PARTS = 5
FEW_FOLDS, MANY_FOLDS = 3, 5  # of the many, one is held out and the others are not tried
FROZEN = {"top": 0.5, "lora": 0.0}  # share of the blocks, from the lowest, that stay as they are


class Bench:
    """Where the rungs of one base work, one after the other, on one copy of the model in memory."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._tuner: Tuner | None = None

    def ready(self, texts: Sequence[str]) -> tuple[Tuner, TokenWeights]:
        """The tuner, which has read `texts`, and how much each token counts."""
        self.encoder.rest()  # the frozen copy would only take memory beside the one in training
        if self._tuner is None:
            from machikoba.adapt.tuning import Tuner

            self._tuner = Tuner(self.encoder.base, self.encoder.speed, self.encoder.scratch, self.encoder.work)
        self._tuner.read(texts)
        if self.encoder.weights is None:
            self.encoder.weights = TokenWeights.learn([self._tuner.tokens[text] for text in texts])
        return self._tuner, self.encoder.weights


@dataclass(frozen=True)
class Known:
    """What cross-fitting found: the choice, the share of the update to keep, and the weights of the confidence."""

    choice: Choice
    kept: float
    trust: np.ndarray


class LoraRung:
    """Implements `Rung`."""

    def __init__(self, name: str, bench: Bench) -> None:
        self.name, self.bench, self.encoder = name, bench, bench.encoder
        self.base = bench.encoder.base.name
        self._known: Known | None = None

    def recipe(self, n_rows: int) -> Recipe:
        """How `n_rows` messages are trained on."""
        return recipe_for(n_rows, self.encoder.base.megaflops_per_token, FROZEN[self.name])

    def rehearse(self, train: Train, seed: int) -> tuple[float, int]:
        """A dry run of two batches: seconds of training for each token with its padding, and the tokens of an epoch.

        Raises Diverged.
        """
        tuner, weights = self.bench.ready(train.texts)
        recipe = self.recipe(len(train))
        per_token = tuner.rehearse(train.texts, train.labels, recipe, weights, seed)
        return per_token, tuner.padded(train.texts, recipe)

    def cross_fit(self, train: Train, seed: int, say: Say) -> OutOfFold:
        """Trains on all but a part of the rows and judges that part: three parts in turn, or for many rows one fifth.

        The few numbers that turn scores into a confidence are learnt on rows held out from training, for each part on
        the others; DESIGN 7 proves the result on rows that none of this has seen. Raises Diverged.
        """
        tuner, weights = self.bench.ready(train.texts)
        few = len(train) <= FOLDED_ROWS
        part = folds(train.labels, train.groups, FEW_FOLDS if few else MANY_FOLDS, seed)
        used = range(FEW_FOLDS if few else 1)
        made: dict[float, list[Fold]] = {kept: [] for kept in KEPT}
        for fold in used:
            inside, outside = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
            self._train(train.subset(inside), len(train), seed, partial(_part, say, fold, len(used)))
            inside, outside = _some(inside, MAX_LEARNT_ROWS, seed), _some(outside, MAX_JUDGED_ROWS, seed)
            chosen = np.concatenate([inside, outside])
            subset = train.subset(chosen)
            for kept in KEPT:
                tuner.keep(kept)
                rows = Rows(subset, tuner.features(subset.texts, weights), self._standardise)
                local = make_fold(rows, np.arange(len(inside)), np.arange(len(inside), len(chosen)), seed)
                made[kept].append(replace(local, held_out=outside))
        first = replace(FIRST, layer="last", strengths=STRENGTHS, none=train.none)
        judged = {kept: judge(first, made[kept], train.labels) for kept in KEPT}
        kept = min(KEPT, key=lambda share: judged[share].loss)
        compared = ", ".join(f"{share:g} of the update {found.loss:.3f}" for share, found in judged.items())
        found = judged[kept]
        return self._conclude(found, made[kept], train, f"held-out loss: {compared}", kept)

    def fit(self, train: Train, seed: int = 0, say: Say = lambda *_: None) -> KernelMachine:
        """Trains on every row, with the choices of the last `cross_fit`."""
        if self._known is None:
            self.cross_fit(train, seed, say)
        known = self._known
        assert known is not None
        tuner, weights = self.bench.ready(train.texts)
        self._train(train, len(train), seed, say)
        tuner.keep(known.kept)
        version = tuner.version

        def encode(texts: list[str]) -> np.ndarray:
            assert tuner.version == version, "the trunk has been trained again since"
            return tuner.features(texts, weights)

        rows = Rows(train, tuner.features(train.texts, weights), self._standardise)
        machine = rows.fit(known.choice, seed, encode)  # type: ignore[arg-type]
        machine.trust, machine.adapter = known.trust, tuner.save()
        return machine

    @property
    def _standardise(self) -> bool:
        return self.encoder.base.kind == "decoder"

    def _train(self, train: Train, n_rows: int, seed: int, step: Callable[[int, int], None]) -> None:
        """n_rows: in all, of which `train` may be a part: what is judged is trained as the last one will be."""
        tuner, weights = self.bench.ready(train.texts)
        tuner.fit(train.texts, train.labels, self.recipe(n_rows), weights, seed, step)

    def _conclude(self, found: Judged, made: list[Fold], train: Train, reason: str, kept: float) -> OutOfFold:
        choice = replace(found.choice, reason=reason)
        rows = np.concatenate([fold.held_out for fold in made])
        nearest = np.concatenate([fold.likeness(choice).nearest() for fold in made])
        inputs = trust_inputs(found.scores, nearest, choice)
        real = found.scores.copy()
        if train.none is not None:
            real[:, train.none] = -np.inf
        right = real.argmax(axis=1) == train.labels[rows]
        self._known = Known(choice, kept, fit_trust(inputs, right).astype(np.float32))
        trusted = trusted_by_others(inputs, right, [len(fold.held_out) for fold in made])
        return OutOfFold(rows, Scores(softmax(found.scores * choice.temperature), trusted))


def trusted_by_others(inputs: np.ndarray, right: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Confidence (n,) of held-out rows, each part's learnt on the other parts, whose `sizes` sum to n.

    A single part is dealt out to five: cut where it lies, its pieces would hold other labels than the rest wherever the
    rows come sorted, and their confidences could not be compared (docs/log.md).
    """
    of = np.repeat(np.arange(len(sizes)), sizes) if len(sizes) > 1 else np.arange(len(right)) % TRUST_PARTS
    trusted = np.zeros(len(right))
    for one in np.unique(of):
        trusted[of == one] = confidence(inputs[of == one], fit_trust(inputs[of != one], right[of != one]))
    return trusted


def _part(say: Say, number: int, of: int, done: int, total: int) -> None:
    """Reports the progress of one training of several as that of all."""
    say(number * total + done, of * total)


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])
