"""How the open model is trained on few or many messages."""
from __future__ import annotations

from dataclasses import dataclass

MANY_ROWS = 2_000
SMALL = 100.0  # megaflops per token; the products of a smaller model leave a core idle on few tokens


@dataclass(frozen=True)
class Recipe:
    """How to train. rate: of the updates; head_rate: of the labels' directions; steepness: of the softmax over cosines;
    batch_tokens: with padding; warm_up: share of the steps in which the rate rises; rank, alpha: of the updates; frozen:
    share of the blocks, from the lowest, that stay as they are."""

    epochs: int = 4
    rate: float = 1e-3
    head_rate: float = 1e-3
    steepness: float = 16.0
    batch_tokens: int = 240
    warm_up: float = 0.1
    rank: int = 16
    alpha: float = 32.0
    frozen: float = 0.0


def recipe_for(n_rows: int, megaflops_per_token: float, frozen: float = 0.0) -> Recipe:
    """How to train a model of this size on `n_rows` messages; chosen by trials (docs/log.md)."""
    many = n_rows > MANY_ROWS
    return Recipe(epochs=3 if many else 4, batch_tokens=480 if many or megaflops_per_token < SMALL else 240, frozen=frozen)
