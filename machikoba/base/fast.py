"""Faster forms of the small steps between the large products, put in only where they give what the model's own give.

On a CPU a root mean square norm written as eight separate steps takes as long as the products around it, and keeps
five copies of its input for the backward pass. Written as one step it keeps one. Modules are recognised by what they
compute, not by their names: each is tried beside the fast form on random numbers, and stays as it was unless both agree.
"""
from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn.functional import gelu, silu

TRIED_ROWS = 4
CLOSE = 2e-3  # of results of size about 1, in float32; exact and approximate GELU differ by less than 5e-4


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) · scale over the last axis; scale float32 (d,)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        wide, inverse = _unit(x, eps)
        ctx.save_for_backward(x, inverse, scale)
        return wide.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inverse, scale = ctx.saved_tensors
        grad, unit = _float32(grads[0]).mul_(scale), _float32(x).mul_(inverse)
        along = torch.linalg.vecdot(grad, unit).unsqueeze(-1).div_(x.shape[-1])
        return grad.addcmul_(unit, along, value=-1).mul_(inverse).to(x.dtype), None, None


def normed(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """The same without a way back. scale: float32 (d,) or what can be multiplied with x."""
    return _unit(x, eps)[0].mul_(scale).to(x.dtype)


def _unit(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x / sqrt(mean(x²) + eps), and the second factor, in float32."""
    wide = _float32(x)  # products of mixed number formats take ten times as long
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return wide.mul_(inverse), inverse


_APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}


def _float32(x: torch.Tensor) -> torch.Tensor:
    """A copy in float32."""
    return x.float() if x.dtype != torch.float32 else x.clone()


class _Gate(torch.autograd.Function):
    """activation(gate) · up; keeps its two inputs and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return activate(gate, kind).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        active, out = activate(gate, ctx.kind), grads[0]
        inner = out * up
        if ctx.kind == "silu":
            return torch.ops.aten.silu_backward(inner, gate), active.mul_(out), None
        return torch.ops.aten.gelu_backward(inner, gate, approximate=_APPROXIMATE[ctx.kind]), active.mul_(out), None


def activate(x: torch.Tensor, kind: str) -> torch.Tensor:
    """What `activation` calls `kind`."""
    return silu(x) if kind == "silu" else gelu(x, approximate=_APPROXIMATE[kind])


def hasten(model: torch.nn.Module, exact: bool) -> list[str]:
    """Puts the fast forms into `model`, and gives the names of what was left as it was though it looked alike.

    exact: keep the tanh approximation of GELU (in float32 the exact form differs by more than rounding; in bfloat16 not).
    """
    left = []
    for name, module in model.named_modules():
        norm = type(module).__name__.endswith("RMSNorm")
        gate = all(hasattr(module, part) for part in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        if (norm and not _hasten_norm(module)) or (gate and not _hasten_gate(module, exact)):
            left.append(name)
    return left


def _hasten_norm(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        return False
    trial = torch.randn(TRIED_ROWS, len(weight), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = module(trial).float()
        for start in (0.0, 1.0):  # Gemma stores its scale less one
            scale = weight.float() + start
            found = _Norm.apply(trial, scale, eps)
            if torch.allclose(found, wanted, atol=0.0, rtol=1e-4 if weight.dtype == torch.float32 else 2e-2):
                module.register_buffer("fast_scale", scale, persistent=False)
                module.fast_eps = eps  # type: ignore[assignment]
                module.forward = MethodType(lambda self, x: _Norm.apply(x, self.fast_scale, eps), module)
                return True
    return False


def activation(function: Any, exact: bool) -> str | None:
    """The name of what `function` computes of each number, None for what is not known here. exact: see `hasten`."""
    trial = torch.linspace(-6, 6, 101)
    with torch.no_grad():
        wanted = function(trial)
    # The exact GELU stands in for its tanh approximation where that allows: it takes a fifth of the time.
    return next((kind for kind in ("silu", "gelu", "gelu_tanh")
                 if torch.allclose(activate(trial, kind), wanted, atol=1e-6 if exact else CLOSE, rtol=0.0)), None)


def _hasten_gate(module: Any, exact: bool) -> bool:
    kind = activation(module.act_fn, exact)
    if kind is None:
        return False
    probe = torch.randn(TRIED_ROWS, module.gate_proj.in_features, generator=torch.Generator().manual_seed(0))
    probe = probe.to(module.gate_proj.weight.dtype)
    with torch.no_grad():
        wanted = module(probe)
        found = module.down_proj(_Gate.apply(module.gate_proj(probe), module.up_proj(probe), kind))
    if not torch.allclose(found.float(), wanted.float(), atol=0.05 * float(wanted.float().abs().max()) + 1e-6, rtol=0.0):
        return False
    module.forward = MethodType(
        lambda self, x: self.down_proj(_Gate.apply(self.gate_proj(x), self.up_proj(x), kind)), module)
    return True
