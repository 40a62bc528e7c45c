"""Attention for every architecture that asks Transformers for it by name, with a backward pass that is fast on short texts.

On a CPU, PyTorch's own backward pass of attention takes ten times its forward pass when texts are short
(docs/log.md). Messages are short, so here the few probabilities are computed again from queries and keys instead.

Two names are registered: `AS_MADE` masks as the model was made to; `BOTH_WAYS` lets every token of a decoder see the
whole message, which classifies better than seeing only what stands before it (docs/log.md).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

AS_MADE, BOTH_WAYS = "machikoba", "machikoba_both_ways"
LONGEST_KEPT = 64  # tokens; up to it the probabilities are small enough to keep for the way back
LONGEST_RECOMPUTED = 512  # tokens; above it the probabilities of a whole batch no longer fit into the caches


class _Attention(torch.autograd.Function):
    """softmax(scaling q kᵀ + mask) v. q (b, h, t, d); k, v (b, h / g, t, d); mask bool (b, 1, t, t) or None: all."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None,
                scaling: float) -> torch.Tensor:
        ctx.scaling = scaling
        b, h, t, _d = q.shape
        if t > LONGEST_KEPT:
            ctx.save_for_backward(q, k, v, mask, None)
            return _forward(q, k, v, mask, scaling)
        chances = _chances(q, k, mask, scaling)
        ctx.save_for_backward(q, k, v, mask, chances)
        return (chances.to(q.dtype) @ v).view(b, h, t, v.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, mask, chances = ctx.saved_tensors
        b, h, t, d = q.shape
        shared, e = k.shape[1], v.shape[-1]
        stacked, out = q.reshape(b, shared, -1, d), grads[0].reshape(b, shared, -1, e)
        if chances is None:
            chances = _chances(q, k, mask, ctx.scaling)
        grad_v = chances.to(q.dtype).transpose(2, 3) @ out
        grad_chances = (out @ v.transpose(2, 3)).float()
        grad_scores = chances * (grad_chances - (grad_chances * chances).sum(dim=-1, keepdim=True))
        grad_scores = grad_scores.mul_(ctx.scaling).to(q.dtype)
        return (grad_scores @ k).view(b, h, t, d), grad_scores.transpose(2, 3) @ stacked, grad_v, None, None


def _chances(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    """What each token takes from which, float32 (b, shared, h / shared * t, t).

    The heads that share a key stand below each other: one product instead of many.
    """
    b, _h, t, d = q.shape
    shared = k.shape[1]
    scores = (q.reshape(b, shared, -1, d) @ k.transpose(2, 3)).float().mul_(scaling)
    if mask is not None:
        # Not minus infinity: padding in a narrow window may see nothing at all, and would give no numbers.
        scores.view(b, shared, -1, t, t).masked_fill_(~mask[:, :, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)


def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    if k.shape[1] != q.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)


def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
           scaling: float | None = None, dropout: float = 0.0, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """Attention as Transformers calls it: heads before tokens in, tokens before heads out.

    attention_mask: True where a token is seen; None: everywhere. Falls back to Transformers' own way for what the short
    one cannot do: softcapped scores, dropout of probabilities, masks of numbers.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = attention_mask is None or attention_mask.dtype == torch.bool
    if not plain or dropout or kwargs.get("softcap") is not None or kwargs.get("position_bias") is not None:
        return _theirs(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    if torch.is_grad_enabled() and query.requires_grad and query.shape[2] <= LONGEST_RECOMPUTED:
        out = _Attention.apply(query, key, value, attention_mask, scaling)
    else:
        out = _forward(query, key, value, attention_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


def _theirs(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
            scaling: float, dropout: float, **kwargs: Any) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    softcap = kwargs.pop("softcap", None)
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, is_causal=False, **kwargs)
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    scores = torch.tanh((query @ key.transpose(2, 3)).float() * scaling / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    chances = torch.nn.functional.dropout(scores.softmax(dim=-1).to(query.dtype), dropout)
    return (chances @ value).transpose(1, 2).contiguous(), None


def register() -> None:
    """Makes the two names known to Transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

    def as_made(*args: Any, **kwargs: Any) -> Any:
        return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})  # so that None always means: all

    def both_ways(*args: Any, **kwargs: Any) -> Any:
        return sdpa_mask(*args, **{**kwargs, "mask_function": bidirectional_mask_function, "use_vmap": False,
                                   "allow_is_causal_skip": False, "allow_is_bidirectional_skip": True})

    masks: dict[str, Callable[..., Any]] = {AS_MADE: as_made, BOTH_WAYS: both_ways}
    for name, mask in masks.items():
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, mask)
