"""One short text's way through the model, without what Transformers does around the blocks.

Masks, turned positions and options take a millisecond to make (docs/log.md), and are the same for every text of one length that
stands alone: here they are taken from the first text of a length and kept. Whether a model allows that is found by trying: what
enters its first block must be what its embeddings give, what it gives must be the last block's output or a norm of it, and
nothing else that its blocks are handed may depend on the words.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from machikoba.base.calls import Call, watched

TRIED = 12  # tokens
Step = Callable[[torch.Tensor], torch.Tensor]


class Direct:
    """The blocks of a model in a row. options: what the model is asked with besides its tokens."""

    def __init__(self, model: Any, blocks: Sequence[torch.nn.Module], options: dict[str, Any], enter: Step, leave: Step) -> None:
        self._model, self._blocks, self._options, self._enter, self._leave = model, blocks, options, enter, leave
        self._kept: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    @classmethod
    def of(cls, model: Any, blocks: Sequence[torch.nn.Module], options: dict[str, Any]) -> Direct | None:
        """For `model` with these blocks; None where it does more than lead from one to the next."""
        device = next(model.parameters()).device
        size = model.get_input_embeddings().num_embeddings
        first = torch.arange(TRIED, device=device).remainder(size)[None]
        calls, given = _calls(model, blocks, first, options)
        others, _given = _calls(model, blocks, first.flip(1), options)
        if not calls or len(calls) != len(blocks) or not all(_same((a.inputs[1:], a.options), (b.inputs[1:], b.options))
                                                for a, b in zip(calls, others, strict=True)):
            return None
        embeddings = [model.get_input_embeddings(), getattr(model, "embeddings", None)]
        norms = [child for child in model.children() if type(child).__name__.endswith("Norm")]
        enter = next((one for one in embeddings if one is not None and _gives(one, first, calls[0].inputs[0])), None)
        leave = next((one for one in (_as_it_is, *norms) if _gives(one, calls[-1].output, given)), None)
        return None if enter is None or leave is None else cls(model, blocks, options, enter, leave)

    def read(self, ids: torch.Tensor, layers: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """States (1, t, d) of `layers` for the tokens ids (1, t) of a text: see `Trunk.pool` for their names."""
        length = ids.shape[1]
        if length not in self._kept:
            calls, given = _calls(self._model, self._blocks, ids, self._options)
            self._kept[length] = [(call.inputs[1:], call.options) for call in calls]
            yield from ((name, given if name == "last" else calls[int(name) - 1].output) for name in layers)
            return
        depth = len(self._blocks) if "last" in layers else max(map(int, layers))
        states = self._enter(ids)
        for number, (block, (inputs, options)) in enumerate(zip(self._blocks[:depth], self._kept[length], strict=False), 1):
            states = block.forward(states, *inputs, **options)
            if str(number) in layers:
                yield str(number), states
        if "last" in layers:
            yield "last", self._leave(states)


def _as_it_is(states: torch.Tensor) -> torch.Tensor:
    return states


def _gives(step: Step, states: torch.Tensor, wanted: torch.Tensor) -> bool:
    try:
        return torch.equal(step(states), wanted)
    except (TypeError, RuntimeError, ValueError):  # it wants more than that, or gives something else
        return False


def _calls(model: Any, blocks: Sequence[torch.nn.Module], ids: torch.Tensor, options: dict[str, Any]) -> tuple[list[Call], Any]:
    """How the blocks are called for a text without padding, and what the model gives."""
    return watched(blocks, lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).last_hidden_state)


def _same(one: Any, other: Any) -> bool:
    """Whether two values made of tensors and plain values are equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
