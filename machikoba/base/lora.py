"""Low-rank updates of the model's linear layers (LoRA, arXiv 2106.09685), in PEFT's layout on the disk.

    y = x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ          W frozen, A (rank, in), B (out, rank)

The backward pass is written out: it forms the gradients of A, B and x and of nothing that is frozen, and keeps of the
forward pass only x and x Aᵀ.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from machikoba.base.adapter import PEFT_FACTS, PEFT_WEIGHTS

PREFIX = "base_model.model."


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
    """The formula above on rows x (n, in)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor,
                b: torch.Tensor, scaling: float) -> torch.Tensor:
        low = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        plain = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        return plain.addmm_(low, b.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        out = grads[0]
        grad_low = (out @ b).mul_(ctx.scaling)
        grad_x = (out @ weight).addmm_(grad_low, a) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_low.t() @ x, (out.t() @ low).mul_(ctx.scaling), None


class LoraLinear(torch.nn.Module):
    """A frozen linear layer with its update. The update is held in float32 and used in the layer's own number format."""

    def __init__(self, linear: torch.nn.Linear, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.scaling = linear.weight, linear.bias, shape.scaling
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bound = 1 / math.sqrt(linear.in_features)
        start = torch.empty(shape.rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.a = torch.nn.Parameter(start.to(linear.weight.device))
        self.b = torch.nn.Parameter(torch.zeros(linear.out_features, shape.rank, device=linear.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, dtype = x.reshape(-1, x.shape[-1]), self.weight.dtype
        out = _Update.apply(rows, self.weight, self.bias, self.a.to(dtype), self.b.to(dtype), self.scaling)
        return out.view(*x.shape[:-1], -1)


def inject(blocks: Iterable[tuple[str, torch.nn.Module]], shape: Shape, seed: int = 0) -> dict[str, LoraLinear]:
    """Puts an update on every linear layer of `blocks` (name, module); by full name. B starts at zero: nothing changes yet."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for block_name, block in blocks:
        for name, module in list(block.named_modules()):
            for child, linear in list(module.named_children()):
                if type(linear) is torch.nn.Linear:
                    update = LoraLinear(linear, shape, generator)
                    setattr(module, child, update)
                    made[".".join(part for part in (block_name, name, child) if part)] = update
    return made


def remove(updates: dict[str, LoraLinear], model: torch.nn.Module) -> None:
    """Takes the updates out again; the model is as it was."""
    for name, update in updates.items():
        parent, _dot, child = name.rpartition(".")
        linear = torch.nn.Linear(update.in_features, update.out_features, bias=update.bias is not None, device="meta")
        linear.weight, linear.bias = update.weight, update.bias
        setattr(model.get_submodule(parent), child, linear)


def save(updates: dict[str, LoraLinear], shape: Shape, base: str, prefix: str = "") -> dict[str, bytes]:
    """The files of a PEFT adapter by name. prefix: what the model's own names lack, "model." under a language model head."""
    from safetensors.torch import save as to_bytes

    tensors = {}
    for name, update in updates.items():
        tensors[f"{PREFIX}{prefix}{name}.lora_A.weight"] = update.a.detach().cpu().contiguous()
        tensors[f"{PREFIX}{prefix}{name}.lora_B.weight"] = update.b.detach().cpu().contiguous()
    facts = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION" if not prefix else "CAUSAL_LM", "inference_mode": True,
             "base_model_name_or_path": base, "r": shape.rank, "lora_alpha": shape.alpha, "use_rslora": shape.stabilised,
             "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
             "target_modules": sorted(prefix + name for name in updates)}
    return {PEFT_WEIGHTS: to_bytes(tensors), PEFT_FACTS: (json.dumps(facts, indent=1) + "\n").encode()}


def load(model: torch.nn.Module, folder: Path) -> dict[str, LoraLinear]:
    """Puts a saved adapter onto `model`; the inverse of `save` without a prefix. Raises KeyError where names do not fit."""
    from safetensors.torch import load_file

    facts = json.loads((folder / PEFT_FACTS).read_bytes())
    shape = Shape(facts["r"], facts["lora_alpha"], facts["use_rslora"])
    tensors = load_file(folder / PEFT_WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name in facts["target_modules"]:
        parent, _dot, child = name.rpartition(".")
        try:
            linear = model.get_submodule(name)
        except AttributeError as error:
            raise KeyError(name) from error
        update = LoraLinear(linear, shape, generator)  # type: ignore[arg-type]
        update.a.data.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
        update.b.data.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])
        setattr(model.get_submodule(parent), child, update.requires_grad_(False))
        made[name] = update
    return made
