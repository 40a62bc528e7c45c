"""Trains low-rank updates of the open model on labelled messages, on a CPU, in minutes.

The labels stand for directions among the pooled features; they start as the mean of their messages, which is what the
frozen model already knows, and messages are pulled towards their label's direction. What serves is not this head but a
kernel machine on the tuned features (`adapt/lora.py`): it was right more often (docs/log.md).
"""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from machikoba.adapt.descent import Descent, Step, schedule
from machikoba.adapt.training_recipe import Recipe, recipe_for
from machikoba.base.load import Base
from machikoba.base.lora import LoraUpdates, Shape, linears_of
from machikoba.base.speed import Speed
from machikoba.base.states import States
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk, batches, width
from machikoba.errors import BaseError
from machikoba.language import _
from machikoba.memory import give_back, trim
from machikoba.work import NoWork, Work, key

REHEARSED = 3  # epochs over two batches; the last is timed
LONGEST_TRAINED = 512  # tokens of a text that are trained on: what is kept for the way back grows with them
STARTERS = 8  # messages of each label that its direction starts from: more are no better (docs/log.md)


class Tuner:
    """A trunk in training. version: changes whenever the trunk does."""

    def __init__(self, base: Base, speed: Speed, scratch: Path, work: Work | None = None) -> None:
        self.trunk = Trunk(base, ("last",), speed, both_ways=base.kind == "decoder")
        if speed.device == "cpu":  # the sizes that training has kernels for: others take memory of their own
            self.trunk.batch_tokens = recipe_for(0, base.megaflops_per_token).batch_tokens
        self.tokens: dict[str, list[int]] = {}
        self.version = 0
        self.updates: LoraUpdates | None = None
        self._scratch, self._work = scratch, work or NoWork()
        self._states: States | None = None
        self._known: dict[str, np.ndarray] = {}

    def read(self, texts: Sequence[str]) -> None:
        """Tokenises what has not been read before. The tokenizer is dropped afterwards: some take more than the model."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self.tokens]
        if fresh:
            self.tokens.update(zip(fresh, self.trunk.tokens(fresh), strict=True))
            self.trunk.drop_tokenizer()
            give_back()

    def fit(self, texts: Sequence[str], labels: np.ndarray, recipe: Recipe, weights: TokenWeights, seed: int,
            step: Step = lambda *_: None) -> list[float]:
        """Trains new updates on `texts` with `labels` (n,) and leaves them in the trunk; the loss of every step.

        weights: how much each token counts in a message's features. Raises Diverged.
        """
        self.reset()
        # A label without a row here, as where all of its messages are alike and held out, would have a direction of zero,
        # whose gradient is so steep that the bound on all gradients together would leave nothing of the others.
        present, labels = np.unique(labels, return_inverse=True)
        n_labels = len(present)
        encoded = [self.tokens[text][:LONGEST_TRAINED] for text in texts]
        device = self.trunk.speed.device
        states = self._below(round(recipe.frozen * len(self.trunk.blocks())), encoded)
        centre, directions = self._starting_head(texts, labels, n_labels, weights)
        centre = centre.to(device)
        head, shift = torch.nn.Parameter(directions.to(device)), torch.nn.Parameter(torch.zeros(n_labels, device=device))
        wanted = torch.from_numpy(labels).to(device)
        self.updates = self._inject(recipe, seed)
        trim()  # layers that are computed together were copied together
        place = key("fit", self.trunk.base.sha256, self.trunk.speed.dtype, self.trunk.speed.threads, recipe, seed, texts,
                    labels.tobytes(), weights.save())
        trained = [(self.updates.parameters(), recipe.rate), ([head, shift], recipe.head_rate)]

        def loss(rows: np.ndarray) -> torch.Tensor:
            batch = [encoded[i] for i in rows]
            pooled = self.trunk.forward(batch, weights.of, states.of(batch) if states else None)[:, 0]
            cosines = normalize(pooled - centre, dim=1) @ normalize(head, dim=1).t()
            return cross_entropy(recipe.steepness * cosines + shift, wanted[torch.from_numpy(rows)], reduction="sum")

        plan = schedule([len(ids) for ids in encoded], recipe, seed)
        return Descent(trained, recipe, self._work, place).run(plan, loss, len(texts), step)

    def rehearse(self, texts: Sequence[str], labels: np.ndarray, recipe: Recipe, weights: TokenWeights,
                 seed: int) -> float:
        """Seconds of training for each token, padding counted: two batches of these texts, until the libraries are warm."""
        order = np.random.default_rng(seed).permutation(len(texts))
        sizes = np.cumsum([len(self.tokens[texts[i]]) for i in order])
        rows = order[:max(2, int(np.searchsorted(sizes, 2 * recipe.batch_tokens)))]
        marks: list[float] = []
        work, known = self._work, dict(self._known)
        self._work = NoWork()
        try:
            self.fit([texts[i] for i in rows], labels[rows], replace(recipe, epochs=REHEARSED), weights, seed,
                     lambda done, total: marks.append(time.monotonic()))
        finally:
            self._work, self._known, self._states = work, known, None  # it leaves no trace, not even in a rounding
            self.reset()
        last = len(marks) // REHEARSED
        return (marks[-1] - marks[-1 - last]) / self.padded([texts[i] for i in rows], recipe)

    def padded(self, texts: Sequence[str], recipe: Recipe) -> int:
        """Tokens of one epoch with their padding; `texts` have been read."""
        lengths = [min(len(self.tokens[text]), LONGEST_TRAINED) for text in texts]
        return sum(len(rows) * width(max(lengths[i] for i in rows)) for rows in batches(lengths, recipe.batch_tokens))

    def features(self, texts: Sequence[str], weights: TokenWeights) -> np.ndarray:
        """Pooled features (n, d) of `texts` by the trunk as it is now."""
        self.read(texts)
        encoded = [self.tokens[text] for text in texts]
        if self._states is None:
            return self.trunk.pool_tokens(encoded, weights)[:, 0]
        self._states.read(encoded)
        return self.trunk.pool_tokens(encoded, weights, self._states.of)[:, 0]

    def _inject(self, recipe: Recipe, seed: int) -> LoraUpdates:
        """Puts new updates into the trunk."""
        first = self._states.first if self._states else 0
        updates = LoraUpdates(self.trunk.model, linears_of(self.trunk.blocks(first)), Shape(recipe.rank, recipe.alpha), seed)
        if not updates.layers:
            base = self.trunk.base
            raise BaseError("base_not_tunable", _("{name} cannot be tuned: it has no layers of the usual kind.").format(
                name=base.name), expected="torch.nn.Linear", found=str(base.config().get("model_type", "")),
                next=_("Leave out the steps top and lora (--rungs words,features), or choose another --base."))
        return updates

    def _below(self, first: int, encoded: Sequence[Sequence[int]]) -> States | None:
        """What enters block number `first`, with that of `encoded` computed; None where nothing stays frozen."""
        if not first:
            self._states = None
        elif self._states is None or self._states.first != first:
            self._states = States(self.trunk, first, self._scratch)
        if self._states:
            self._states.read(encoded)
        return self._states

    def _starting_head(self, texts: Sequence[str], labels: np.ndarray, n_labels: int,
                       weights: TokenWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """The centre (d,) of the frozen features and each label's direction from it (n_labels, d): the mean of its first
        STARTERS messages. The base reads each of them once, however many trainings start from it."""
        chosen = np.concatenate([np.flatnonzero(labels == k)[:STARTERS] for k in range(n_labels)])
        fresh = [texts[i] for i in chosen if texts[i] not in self._known]
        if fresh:
            self._known.update(zip(fresh, self.features(fresh, weights), strict=True))
        start = torch.from_numpy(np.stack([self._known[texts[i]] for i in chosen]))
        centre = start.mean(dim=0)
        directions = torch.zeros(n_labels, start.shape[1])
        directions.index_add_(0, torch.from_numpy(labels[chosen]), normalize(start - centre, dim=1))
        return centre, directions

    def reset(self) -> None:
        """Takes the updates out: the trunk is the frozen base again."""
        if self.updates:
            self.updates.remove()
        self.updates = None
        self.version += 1

    def keep(self, share: float) -> None:
        """From now on only `share` of what was learnt counts."""
        assert self.updates is not None
        self.updates.keep(share)
        self.version += 1

    def save(self) -> dict[str, bytes]:
        """What was learnt as files, at the share that `keep` set."""
        assert self.updates is not None
        return self.updates.save(self.trunk.base.name)
