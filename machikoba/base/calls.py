"""How a model calls its blocks while it reads."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Call:
    """What a block was handed, the states first, and what it gave."""

    inputs: tuple[Any, ...]
    options: dict[str, Any]
    output: Any = None


def watched(blocks: Iterable[torch.nn.Module], run: Callable[[], Any]) -> tuple[list[Call], Any]:
    """The calls of `blocks`, in order, while the model runs, and what `run` gives."""
    calls, hooks = list[Call](), []

    def before(_block: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        calls.append(Call(inputs, options))

    def after(_block: Any, _inputs: Any, output: Any) -> None:
        calls[-1].output = output

    for block in blocks:
        hooks += [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
    try:
        return calls, run()
    finally:
        for hook in hooks:
            hook.remove()
