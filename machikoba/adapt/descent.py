"""The training loop: a plan of batches, a rate that rises and falls, and a checkpoint now and then."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from machikoba.adapt.checkpoint import Checkpoint
from machikoba.adapt.contract import Diverged
from machikoba.adapt.training_recipe import Recipe
from machikoba.base.trunk import batches
from machikoba.work import Work

Step = Callable[[int, int], None]  # (steps done, steps in all)
WORSE = 3.0  # times the first loss: past it, training has diverged
SETTLED = 20  # steps before that is looked at


@dataclass(frozen=True)
class Descent:
    """What is trained, each group of parameters at its rate, and where the training keeps how far it is.

    key: made of everything that the training depends on.
    """

    groups: Sequence[tuple[Sequence[torch.nn.Parameter], float]]
    recipe: Recipe
    work: Work
    key: str

    def run(self, plan: Sequence[np.ndarray], loss: Callable[[np.ndarray], torch.Tensor], n_rows: int,
            step: Step = lambda *_: None) -> list[float]:
        """Goes down the loss along `plan` (the rows of each step); the mean loss of every step.

        loss: the sum over rows of their losses. n_rows: in all. Raises Diverged, StorageError.
        """
        parameters = [parameter for some, _rate in self.groups for parameter in some]
        optimiser = torch.optim.AdamW([{"params": list(some), "lr": rate} for some, rate in self.groups], betas=(0.9, 0.98),
                                      weight_decay=0.0, fused=True)
        usual = n_rows / (len(plan) / self.recipe.epochs)  # rows of a batch; batches of long texts have fewer
        rises = max(1, round(self.recipe.warm_up * len(plan)))
        course = Checkpoint(self.work, self.key, parameters, optimiser)
        losses = course.resume()
        for number in range(len(losses), len(plan)):
            slope = min((number + 1) / rises, (len(plan) - number) / max(1, len(plan) - rises))
            for group, (_some, rate) in zip(optimiser.param_groups, self.groups, strict=True):
                group["lr"] = rate * slope
            total = loss(plan[number])
            (total / usual).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(total.item() / len(plan[number]))
            _still_sound(losses)
            course.keep(losses, finished=number + 1 == len(plan))
            step(number + 1, len(plan))
        return losses


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
    if not math.isfinite(losses[-1]) or (len(losses) > SETTLED and recent > WORSE * max(losses[0], 0.5)):
        raise Diverged(losses[0], recent)
