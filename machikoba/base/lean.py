"""A block of the model for reading alone: what Transformers does in it, in a third of the steps.

A short message spends more time between the products than in them (docs/log.md): in the layers of Python around each, in
looking up how a function wants to be called, in dropout that drops nothing. Two layouts, which most models that a business
would take have, are therefore written out here: `_After`, with a norm after each half (BERT and its kin), and `_Before`, with
a norm before each half, rotated positions and a gate (Llama, Qwen, Gemma). A block is recognised by the names of its parts,
and then tried on the model's own states, in float32: it stays as it was made unless both give the same.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from machikoba.base import fast
from machikoba.base.calls import Call, watched
from machikoba.base.lora import linears_of, put
from machikoba.base.product import Product, Rows

AGREES = 2e-3  # of what the block adds to its input, in float32
UNHEEDED = ("attn_logit_softcapping", "clip_qkv")  # settings that might not show on the states that it is tried on


class _Stop(Exception):
    """Raised when a block cannot be of the layout tried."""


def settle(blocks: Sequence[tuple[str, torch.nn.Module]], run: Callable[[], Any], rows: Rows, exact: bool) -> frozenset[str]:
    """Readies `blocks` (name, block) of a model for reading, and gives the names of the linear layers that they had.

    run: lets the model read something. rows: which rows of a batch have which updates. exact: see `fast.hasten`.
    """
    calls, _given = watched([block for _name, block in blocks], run)
    names, kinds = frozenset(linears_of(blocks)), dict[str, type[_Form] | None]()
    for place, (name, block) in enumerate(blocks):
        kind = repr(block)
        if kind not in kinds:
            kinds[kind] = _layout(block, calls[place], exact) if len(calls) == len(blocks) else None
        chosen = kinds[kind]
        if chosen is None:
            for full, linear in linears_of([(name, block)]).items():
                put(block, full.removeprefix(f"{name}."), Product({full: linear}, rows))
            continue
        form = chosen(block, name, rows, exact)
        for full in linears_of([(name, block)]):
            put(block, full.removeprefix(f"{name}."), torch.nn.Identity())  # the form has its own copy
        block.forward = form.read
    return names


def _layout(block: torch.nn.Module, call: Call, exact: bool) -> type[_Form] | None:
    """The layout of `block`, tried on a call of it; None where it has another."""
    settings = [part.config for part in block.modules() if hasattr(part, "config")]
    if call.inputs == () or any(getattr(one, name, None) is not None for one in settings for name in UNHEEDED):
        return None
    copy = deepcopy(block).float()
    inputs, options = _wide(call.inputs), _wide(call.options)
    wanted = copy(*inputs, **options)
    if not isinstance(wanted, torch.Tensor):
        return None
    for layout in (_After, _Before):
        try:
            found = layout(copy, "", Rows(), exact).read(*inputs, **options)
        except (_Stop, AttributeError, RuntimeError, TypeError, ValueError, KeyError):
            continue
        if found.shape == wanted.shape:
            apart, change = (torch.linalg.vector_norm(one, dim=-1) for one in (found - wanted, wanted - inputs[0]))
            if bool((apart <= AGREES * change + 1e-6).all()):
                return layout
    return None


def _wide(value: Any) -> Any:
    """The same with its fractions in float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(map(_wide, value))
    if isinstance(value, Mapping):
        return {key: _wide(one) for key, one in value.items()}
    return value


class _Form:
    """What the layouts share: `product` and `norm` of a block's parts by their names in it."""

    def __init__(self, block: torch.nn.Module, name: str, rows: Rows, exact: bool) -> None:
        self.block, self.name, self.rows, self.exact = block, name, rows, exact
        self.ready()
        del self.block

    def ready(self) -> None:
        """Makes what `read` needs of `block`."""
        raise NotImplementedError

    def read(self, x: torch.Tensor, *_others: Any, **_options: Any) -> torch.Tensor:
        """The block's output (b, t, d)."""
        raise NotImplementedError

    def product(self, *names: str) -> Product:
        linears = {name: self.block.get_submodule(name) for name in names}
        if any(type(linear) is not torch.nn.Linear for linear in linears.values()):
            raise _Stop
        return Product({f"{self.name}.{name}": linear for name, linear in linears.items()}, self.rows)  # type: ignore[misc]

    def activation(self, name: str) -> str:
        kind = fast.activation(self.block.get_submodule(name), self.exact)
        if kind is None:
            raise _Stop
        return kind


class _After(_Form):
    """norm(x + attention(x)), then norm(x + out(act(inner(x)))), as in BERT."""

    def ready(self) -> None:
        own = self.block.get_submodule("attention.self")
        self.heads: int = own.num_attention_heads  # type: ignore[assignment]
        self.scaling: float = own.attention_head_size ** -0.5  # type: ignore[operator, assignment]
        self.qkv = self.product("attention.self.query", "attention.self.key", "attention.self.value")
        self.mix, self.mix_norm = self.product("attention.output.dense"), self.norm("attention.output.LayerNorm")
        self.inner, self.act = self.product("intermediate.dense"), self.activation("intermediate.intermediate_act_fn")
        self.outer, self.outer_norm = self.product("output.dense"), self.norm("output.LayerNorm")

    def norm(self, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        made = self.block.get_submodule(name)
        if not isinstance(made, torch.nn.LayerNorm):
            raise _Stop
        return lambda x: layer_norm(x, made.normalized_shape, made.weight, made.bias, made.eps)

    def read(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None, *_others: Any, **_options: Any) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, scale=self.scaling)
        x = self.mix_norm(self.mix(seen.transpose(1, 2).reshape(b, t, d)).add_(x))
        return self.outer_norm(self.outer(self.inner.activated(x, self.act)).add_(x))


class _Before(_Form):
    """x + attention(norm(x)), then x + down(act(gate(norm(x))) · up(norm(x))), as in Llama; each half normed again in Gemma."""

    def ready(self) -> None:
        own = self.block.get_submodule("self_attn")
        self.width, self.scaling = int(own.head_dim), float(own.scaling)  # type: ignore[arg-type]
        self.qkv = self.product("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.heads, self.shared, _values = (size // self.width for size in self.qkv.sizes)
        self.turned_norm = self.both("self_attn.q_norm", "self_attn.k_norm")
        self.mix, self.first_norm = self.product("self_attn.o_proj"), self.norm("input_layernorm")
        self.gate, self.act = self.product("mlp.gate_proj"), self.activation("mlp.act_fn")
        self.up, self.down = self.product("mlp.up_proj"), self.product("mlp.down_proj")
        four = hasattr(self.block, "pre_feedforward_layernorm")
        self.second_norm = self.norm("pre_feedforward_layernorm" if four else "post_attention_layernorm")
        self.mixed_norm = self.norm("post_attention_layernorm") if four else None
        self.fed_norm = self.norm("post_feedforward_layernorm") if four else None

    def scale(self, name: str) -> tuple[torch.Tensor, float]:
        """The scale (d,) and the epsilon of a root mean square norm."""
        made = self.block.get_submodule(name)
        if not hasattr(made, "fast_scale"):
            raise _Stop
        return made.fast_scale, made.fast_eps  # type: ignore[return-value]

    def norm(self, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        scale, eps = self.scale(name)
        return lambda x: fast.normed(x, scale, eps)

    def both(self, queries: str, keys: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The norms of queries and keys, which lie side by side, in one step; None where there are none."""
        if not hasattr(self.block.get_submodule("self_attn"), "q_norm"):
            return None
        (of_queries, eps), (of_keys, same) = self.scale(queries), self.scale(keys)
        if eps != same or len(of_queries) != self.width:
            raise _Stop
        scale = torch.cat([of_queries.expand(self.heads, -1), of_keys.expand(self.shared, -1)])
        return lambda x: fast.normed(x, scale, eps)

    def read(self, x: torch.Tensor, *_others: Any, position_embeddings: Any = None,
             attention_mask: torch.Tensor | None = None, **_options: Any) -> torch.Tensor:
        b, t, _d = x.shape
        turned, v = self.qkv(self.first_norm(x)).view(b, t, -1, self.width).split([self.heads + self.shared, self.shared], 2)
        if self.turned_norm is not None:
            turned = self.turned_norm(turned)
        q, k = _rotated(turned, *position_embeddings).split([self.heads, self.shared], 2)
        seen = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=attention_mask,
                                            scale=self.scaling, enable_gqa=self.shared != self.heads)
        mixed = self.mix(seen.transpose(1, 2).reshape(b, t, -1))
        x = x + (mixed if self.mixed_norm is None else self.mixed_norm(mixed))
        inner = self.second_norm(x)
        fed = self.down(self.gate.activated(inner, self.act).mul_(self.up(inner)))
        return x + (fed if self.fed_norm is None else self.fed_norm(fed))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Heads x (b, t, h, d) turned by their positions; cos and sin (b or 1, t, d), the same in both halves of d."""
    half = x.shape[-1] // 2
    swapped = x.roll(half, -1)
    swapped[..., :half].neg_()
    return torch.addcmul(x * cos.unsqueeze(2), swapped, sin.unsqueeze(2))
