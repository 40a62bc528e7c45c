"""Trains low-rank updates of the open model on labelled messages, on a CPU, in minutes.

The labels stand for directions among the pooled features; they start as the mean of their messages, which is what the
frozen model already knows, and messages are pulled towards their label's direction. What serves is not this head but a
kernel machine on the tuned features (`adapt/lora.py`): it was right more often (docs/log.md).
"""
from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from machikoba.adapt.contract import Diverged
from machikoba.adapt.training_recipe import Recipe
from machikoba.base import lora
from machikoba.base.load import Base
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk, batches

Step = Callable[[int, int], None]  # (steps done, steps in all)
WORSE = 3.0  # times the first loss: past it, training has diverged


class Tuner:
    """A trunk in training. version: changes whenever the trunk does."""

    def __init__(self, base: Base, speed: Speed) -> None:
        self.trunk = Trunk(base, ("last",), speed, both_ways=base.kind == "decoder")
        self.tokens: dict[str, list[int]] = {}
        self.version = 0
        self._known: dict[str, np.ndarray] = {}
        self._updates: dict[str, lora.LoraLinear] = {}
        self._shape = self._kept = lora.Shape()

    def read(self, texts: Sequence[str]) -> None:
        """Tokenises what has not been read before. The tokenizer is dropped afterwards: some take more than the model."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self.tokens]
        if fresh:
            self.tokens.update(zip(fresh, self.trunk.tokens(fresh), strict=True))
            self.trunk.drop_tokenizer()
            _give_back()

    def fit(self, texts: Sequence[str], labels: np.ndarray, n_labels: int, recipe: Recipe, weights: TokenWeights, seed: int,
            step: Step = lambda *_: None) -> list[float]:
        """Trains new updates on `texts` with `labels` (n,) and leaves them in the trunk; the loss of every step.

        weights: how much each token counts in a message's features. Raises Diverged.
        """
        self.reset()
        encoded = [self.tokens[text] for text in texts]
        table = torch.from_numpy(weights.table(self.trunk.vocabulary))
        start = torch.from_numpy(self._frozen(texts, weights))
        centre = start.mean(dim=0)
        wanted = torch.from_numpy(labels)
        head = torch.nn.Parameter(torch.stack(
            [normalize(start[wanted == k] - centre, dim=1).sum(dim=0) for k in range(n_labels)]))
        shift = torch.nn.Parameter(torch.zeros(n_labels))
        self._shape = self._kept = lora.Shape(recipe.rank, recipe.alpha)
        self._updates = lora.inject(self.trunk.blocks(), self._shape, seed)
        parameters = [p for update in self._updates.values() for p in (update.a, update.b)]
        groups = [{"params": parameters, "lr": recipe.rate}, {"params": [head, shift], "lr": recipe.head_rate}]
        optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        plan = schedule([len(ids) for ids in encoded], recipe, seed)
        usual = len(texts) / (len(plan) / recipe.epochs)  # rows of a batch; batches of long texts have fewer
        rises = max(1, round(recipe.warm_up * len(plan)))
        losses: list[float] = []
        for number, rows in enumerate(plan):
            for group, rate in zip(optimiser.param_groups, (recipe.rate, recipe.head_rate), strict=True):
                group["lr"] = rate * min((number + 1) / rises, (len(plan) - number) / max(1, len(plan) - rises))
            pooled = self.trunk.forward([encoded[i] for i in rows], table)[:, 0]
            cosines = normalize(pooled - centre, dim=1) @ normalize(head, dim=1).t()
            total = cross_entropy(recipe.steepness * cosines + shift, wanted[torch.from_numpy(rows)], reduction="sum")
            (total / usual).backward()
            torch.nn.utils.clip_grad_norm_([*parameters, head, shift], 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(total.item() / len(rows))
            _still_sound(losses)
            step(number + 1, len(plan))
        return losses

    def features(self, texts: Sequence[str], weights: TokenWeights) -> np.ndarray:
        """Pooled features (n, d) of `texts` by the trunk as it is now."""
        self.read(texts)
        return self.trunk.pool_tokens([self.tokens[text] for text in texts], weights)[:, 0]

    def _frozen(self, texts: Sequence[str], weights: TokenWeights) -> np.ndarray:
        """Features of `texts` by the base as it is, of which each is read once."""
        fresh = [text for text in texts if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self.features(fresh, weights), strict=True))
        return np.stack([self._known[text] for text in texts])

    def reset(self) -> None:
        """Takes the updates out: the trunk is the frozen base again."""
        lora.remove(self._updates, self.trunk.model)
        self._updates = {}
        self.version += 1

    def keep(self, share: float) -> None:
        """From now on only `share` of the learnt update counts."""
        self._kept = replace(self._shape, alpha=self._shape.alpha * share)
        for update in self._updates.values():
            update.scaling = self._kept.scaling
        self.version += 1

    def save(self) -> dict[str, bytes]:
        """The updates as the files of a PEFT adapter, at the share that `keep` set."""
        return lora.save(self._updates, self._kept, self.trunk.base.name)


def schedule(lengths: Sequence[int], recipe: Recipe, seed: int) -> list[np.ndarray]:
    """The rows (b,) of every step. Texts of like length go together, with other neighbours in each epoch."""
    random = np.random.default_rng(seed)
    plan: list[np.ndarray] = []
    for _epoch in range(recipe.epochs):
        order = random.permutation(len(lengths))
        made = [order[rows] for rows in batches([lengths[i] for i in order], recipe.batch_tokens)]
        plan += [made[i] for i in random.permutation(len(made))]
    return plan


def _still_sound(losses: list[float]) -> None:
    recent = float(np.mean(losses[-5:]))
    if not math.isfinite(losses[-1]) or (len(losses) > 20 and recent > WORSE * max(losses[0], 0.5)):
        raise Diverged(losses[0], recent)


def _give_back() -> None:
    """Returns freed memory to the system: a tokenizer takes more than the model (glibc keeps it otherwise)."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library: only the peak of memory is higher
            ctypes.CDLL("libc.so.6").malloc_trim(0)
