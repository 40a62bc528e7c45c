"""Low-rank updates of the model's linear layers (LoRA, arXiv 2106.09685), in PEFT's layout on the disk.

    y = x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ          W frozen, A (rank, in), B (out, rank)

The backward pass is written out: it forms the gradients of A, B and x and of nothing that is frozen, and keeps of the
forward pass only x and x Aᵀ. Layers that read the same input (query, key and value; gate and up) are computed together,
as one product there and one back.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from machikoba.base.adapter import PEFT_FACTS, PEFT_WEIGHTS

PREFIX = "base_model.model."
# Names of layers that read the same input, as the common architectures call them.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("query_proj", "key_proj", "value_proj"),
            ("q_lin", "k_lin", "v_lin"), ("gate_proj", "up_proj"), ("w1", "w3"))


@dataclass(frozen=True)
class Shape:
    """Which updates. rank stabilised: scaled by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""

    rank: int = 16
    alpha: float = 32.0
    stabilised: bool = False

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.stabilised else self.rank)


class _Update(torch.autograd.Function):
    """The formula above on rows x (n, in), of layers with `sizes` outputs stacked below each other.

    a (layers · rank, in), b (sum of sizes, rank).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor,
                b: torch.Tensor, scaling: float, sizes: Sequence[int]) -> torch.Tensor:
        a, b = a.to(weight.dtype), _spread(b.to(weight.dtype), sizes)
        low = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling, ctx.sizes = scaling, sizes
        plain = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        return plain.addmm_(low, b.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        out = grads[0]
        grad_low = (out @ b).mul_(ctx.scaling)
        grad_x = (out @ weight).addmm_(grad_low, a) if ctx.needs_input_grad[0] else None
        grad_b = _gather(out.t() @ low, ctx.sizes).float().mul_(ctx.scaling)
        return grad_x, None, None, (grad_low.t() @ x).float(), grad_b, None, None


def _spread(b: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """b (sum of sizes, rank) with each layer's part in columns of its own, zero elsewhere."""
    return b if len(sizes) == 1 else torch.block_diag(*b.split(list(sizes)))


def _gather(spread: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The inverse of `_spread`."""
    if len(sizes) == 1:
        return spread
    rank = spread.shape[1] // len(sizes)
    parts = spread.split(list(sizes))
    return torch.cat([part[:, i * rank:(i + 1) * rank] for i, part in enumerate(parts)])


class Group(torch.nn.Module):
    """Frozen linear layers that read the same input, with their updates in float32.

    The first layer that is asked computes all; the others fetch their part. Where the model turns out to give them
    different inputs, each is computed by itself from then on.
    """

    def __init__(self, linears: Sequence[torch.nn.Linear], shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes, self.rank, self.scaling = [linear.out_features for linear in linears], shape.rank, shape.scaling
        first = linears[0]
        self.weight, self.bias = first.weight, first.bias
        if len(linears) > 1:
            self.weight = _frozen(torch.cat([linear.weight for linear in linears]))
            if self.bias is not None:
                self.bias = _frozen(torch.cat([linear.bias for linear in linears]))
        bound = 1 / math.sqrt(first.in_features)
        start = torch.empty(shape.rank * len(linears), first.in_features).uniform_(-bound, bound, generator=generator)
        self.a = torch.nn.Parameter(start.to(first.weight.device))
        self.b = torch.nn.Parameter(torch.zeros(sum(self.sizes), shape.rank, device=first.weight.device))
        self.apart = len(linears) == 1
        self._input: torch.Tensor | None = None
        self._waiting: dict[int, torch.Tensor] = {}

    def part(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """weight, bias, a and b of one of the layers."""
        start = sum(self.sizes[:index])
        rows = slice(start, start + self.sizes[index])
        bias = None if self.bias is None else self.bias[rows]
        return self.weight[rows], bias, self.a[index * self.rank:(index + 1) * self.rank], self.b[rows]

    def forward(self, x: torch.Tensor, index: int) -> torch.Tensor:
        """What layer number `index` makes of x (…, in)."""
        if self._input is not x or index not in self._waiting:
            self.apart = self.apart or bool(self._waiting)
            if self.apart:
                self._input, self._waiting = None, {}
                return self._compute(x, *self.part(index), [self.sizes[index]])
            together = self._compute(x, self.weight, self.bias, self.a, self.b, self.sizes)
            self._input, self._waiting = x, dict(enumerate(together.split(self.sizes, dim=-1)))
        found = self._waiting.pop(index)
        if not self._waiting:
            self._input = None
        return found

    def _compute(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor,
                 b: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        out = _Update.apply(x.reshape(-1, x.shape[-1]), weight, bias, a, b, self.scaling, sizes)
        return out.view(*x.shape[:-1], -1)


def _frozen(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


class LoraLinear(torch.nn.Module):
    """One layer of a group, in the place of the linear layer that it was."""

    def __init__(self, group: Group, index: int) -> None:
        super().__init__()
        self.group, self.index = group, index
        self.in_features, self.out_features = group.weight.shape[1], group.sizes[index]

    @property
    def weight(self) -> torch.Tensor:
        return self.group.part(self.index)[0]

    @property
    def bias(self) -> torch.Tensor | None:
        return self.group.part(self.index)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.group(x, self.index)
        return found


class LoraUpdates:
    """Updates on `linears` (by their full names in `model`), put in by the constructor. B starts at zero: nothing changes yet."""

    def __init__(self, model: torch.nn.Module, linears: Mapping[str, torch.nn.Linear], shape: Shape, seed: int = 0) -> None:
        self.model, self.shape, self.share = model, shape, 1.0
        self.layers: dict[str, LoraLinear] = {}
        self.groups: list[Group] = []
        generator, left = torch.Generator().manual_seed(seed), dict(linears)
        del linears
        for names in _groups(left):
            group = Group([left.pop(name) for name in names], shape, generator)  # layers that were copied together go at once
            self.groups.append(group)
            for index, name in enumerate(names):
                self.layers[name] = LoraLinear(group, index)
                put(model, name, self.layers[name])

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [parameter for group in self.groups for parameter in (group.a, group.b)]

    def keep(self, share: float) -> None:
        """From now on only `share` of the update counts."""
        self.share = share
        for group in self.groups:
            group.scaling = self.shape.scaling * share

    def remove(self) -> None:
        """Takes the updates out again; the model is as it was."""
        for name, layer in self.layers.items():
            linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
            linear.weight = _frozen(layer.weight)
            if layer.bias is not None:
                linear.bias = _frozen(layer.bias)
            put(self.model, name, linear)
        self.layers, self.groups = {}, []

    def save(self, base: str, prefix: str = "") -> dict[str, bytes]:
        """The files of a PEFT adapter by name. prefix: what the model's own names lack, "model." under a language model head."""
        from safetensors.torch import save as to_bytes

        tensors = {}
        for name, layer in self.layers.items():
            _weight, _bias, a, b = layer.group.part(layer.index)
            tensors[f"{PREFIX}{prefix}{name}.lora_A.weight"] = a.detach().cpu().contiguous()
            tensors[f"{PREFIX}{prefix}{name}.lora_B.weight"] = b.detach().cpu().contiguous()
        shape, kind = self.shape, "CAUSAL_LM" if prefix else "FEATURE_EXTRACTION"
        facts = {"peft_type": "LORA", "task_type": kind, "inference_mode": True, "base_model_name_or_path": base,
                 "r": shape.rank, "lora_alpha": shape.alpha * self.share, "use_rslora": shape.stabilised, "lora_dropout": 0.0,
                 "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
                 "target_modules": sorted(prefix + name for name in self.layers)}
        return {PEFT_WEIGHTS: to_bytes(tensors), PEFT_FACTS: (json.dumps(facts, indent=1) + "\n").encode()}


def linears_of(blocks: Iterable[tuple[str, torch.nn.Module]]) -> dict[str, torch.nn.Linear]:
    """Every plain linear layer of `blocks` (name, module) by its full name."""
    return {f"{block_name}.{name}": module for block_name, block in blocks for name, module in block.named_modules()
            if type(module) is torch.nn.Linear}


def _groups(linears: Mapping[str, torch.nn.Linear]) -> list[list[str]]:
    """The names in groups of layers that are computed together, in order."""
    found: list[list[str]] = []
    done: set[str] = set()
    for name in linears:
        parent, _dot, child = name.rpartition(".")
        siblings = next((names for names in TOGETHER if child in names), (child,))
        members = [full for sibling in siblings if (full := f"{parent}.{sibling}") in linears]
        alike = len({(linears[full].in_features, linears[full].bias is None, linears[full].weight.dtype) for full in members})
        group = members if alike == 1 else [name]
        if not done.intersection(group):
            found.append(group)
            done.update(group)
    return found


def put(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    """Sets the submodule of `model` that has the full name `name`."""
    parent, _dot, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
