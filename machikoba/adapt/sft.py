"""Trains low-rank updates of a causal language model on prompts and the completions that should follow (SFT).

Only the completions count, and only at their positions are tokens scored. The updates are an ordinary PEFT adapter.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from machikoba.adapt.descent import Descent, Step, schedule
from machikoba.adapt.training_recipe import Recipe
from machikoba.base.load import Base
from machikoba.base.lora import LoraUpdates, Shape, linears_of
from machikoba.base.output import OutputLayer
from machikoba.base.speed import Speed
from machikoba.base.trunk import Trunk, batches
from machikoba.memory import give_back
from machikoba.work import NoWork, Work, key

RECIPE = Recipe(epochs=4, rate=5e-4, batch_tokens=240)
UNDER_HEAD = "model."  # what PEFT's names have before those of the trunk, in a model with its output layer


@dataclass(frozen=True)
class Pair:
    """A tokenised prompt with its completion. tokens: both, one after the other; n_prompt: where the completion begins."""

    tokens: list[int]
    n_prompt: int


class Writer:
    """A causal language model that learns to complete. Raises BaseError."""

    def __init__(self, base: Base, speed: Speed, work: Work | None = None) -> None:
        self.trunk = Trunk(base, ("last",), speed)
        self.output = OutputLayer.of(base, speed.dtype)
        self.updates: LoraUpdates | None = None
        self._work = work or NoWork()

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
        """Tokenises prompts and completions, each of the latter with the sign that ends a text."""
        found = [Pair(*self.trunk.pair_tokens(prompt, completion)) for prompt, completion in pairs]
        self.trunk.drop_tokenizer()
        give_back()
        return found

    def fit(self, pairs: Sequence[Pair], recipe: Recipe = RECIPE, seed: int = 0, step: Step = lambda *_: None) -> list[float]:
        """Trains new updates and leaves them in the trunk; the mean loss of every step, for a pair. Raises Diverged."""
        if self.updates:
            self.updates.remove()
        linears = linears_of(self.trunk.blocks())
        self.updates = LoraUpdates(self.trunk.model, linears, Shape(recipe.rank, recipe.alpha), seed)
        del linears
        give_back()  # layers that are computed together were copied together
        speed = self.trunk.speed
        place = key("sft", self.trunk.base.sha256, speed.dtype, speed.threads, recipe, seed, pairs)
        plan = schedule([len(pair.tokens) for pair in pairs], recipe, seed)
        # Each batch counts by its completions' tokens, so that long and short completions weigh alike.
        mean = sum(len(pair.tokens) - pair.n_prompt for pair in pairs) / len(pairs)
        descent = Descent([(self.updates.parameters(), recipe.rate)], recipe, self._work, place)
        return descent.run(plan, lambda rows: self._sum([pairs[i] for i in rows]) / mean, len(pairs), step)

    def loss(self, pairs: Sequence[Pair]) -> float:
        """Mean of -ln P over all tokens of the completions."""
        total, count = 0.0, 0
        with torch.inference_mode():
            for rows in batches([len(pair.tokens) for pair in pairs], RECIPE.batch_tokens):
                total += float(self._sum([pairs[i] for i in rows]))
                count += sum(len(pairs[i].tokens) - pairs[i].n_prompt for i in rows)
        return total / max(1, count)

    def save(self) -> dict[str, bytes]:
        """The updates as the files of a PEFT adapter of the whole model."""
        assert self.updates is not None
        return self.updates.save(self.trunk.base.name, UNDER_HEAD)

    def _sum(self, batch: Sequence[Pair]) -> torch.Tensor:
        """-ln P summed over the completions of some pairs."""
        states = self.trunk.last([pair.tokens for pair in batch])
        rows = np.concatenate([np.full(len(pair.tokens) - pair.n_prompt, i) for i, pair in enumerate(batch)])
        places = np.concatenate([np.arange(pair.n_prompt, len(pair.tokens)) for pair in batch])
        tokens = torch.tensor([batch[i].tokens[place] for i, place in zip(rows, places, strict=True)], device=states.device)
        before = states[torch.from_numpy(rows), torch.from_numpy(places - 1)]  # what foretells a token stands one before it
        return self.output.loss(before, tokens)
