"""Frozen linear layers for reading: one product for those that read the same input, and each text with its bundle's updates.

    y = x Wᵀ + bias;   rows of a bundle with updates:  + scaling · (x Aᵀ) Bᵀ        A (rank, in), B (out, rank)

The products with the frozen weights, nearly all of the work, are made for the whole batch at once; then each bundle's rows
get their low-rank updates added (as Punica, arXiv 2310.18547, and S-LoRA, arXiv 2311.03285, do on GPUs). Rows that share
updates lie next to each other, so that a bundle costs two small products per layer, however many rows it has.

A CPU's library lays a weight out anew for every product, which on a short message takes as long as the product itself
(docs/log.md). Here each weight is laid out once, and the copy that the model came with is dropped.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import linear

from machikoba.base import fast

if TYPE_CHECKING:
    from machikoba.base.shared import Adapter

LAID_OUT_FOR = 16  # rows of a product; what is laid out for these is best for any number above it too
TRIED_ROWS = 4
Apply = Callable[[torch.Tensor, str | None], torch.Tensor]
# What torch calls an activation that comes with the product.
FUSED = {None: ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "silu": ("swish", "")}


class NotByRow(Exception):
    """A layer was asked about something that has no row per text: then only one bundle's texts go together."""


class Rows:
    """Which rows of the batch on its way have which updates: (first row, row after the last, adapter)."""

    def __init__(self) -> None:
        self.number, self.segments = 0, list[tuple[int, int, "Adapter"]]()

    def set(self, adapters: Sequence[Adapter | None]) -> None:
        """adapters: of each row; rows that share one should lie next to each other."""
        self.number, self.segments = len(adapters), []
        for row, adapter in enumerate(adapters):
            if adapter is None:
                continue
            if self.segments and self.segments[-1][1] == row and self.segments[-1][2] is adapter:
                self.segments[-1] = (self.segments[-1][0], row + 1, adapter)
            else:
                self.segments.append((row, row + 1, adapter))


class Product(torch.nn.Module):
    """Linear layers (by their full names in the model) with the same input, as one with their outputs side by side."""

    def __init__(self, linears: Mapping[str, torch.nn.Linear], rows: Rows) -> None:
        super().__init__()
        layers, self.rows = list(linears.values()), rows
        self.sizes = [layer.out_features for layer in layers]
        self.in_features, self.out_features = layers[0].in_features, sum(self.sizes)
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        self.parts = [(name, slice(end - size, end)) for name, size, end in zip(linears, self.sizes, ends, strict=True)]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
        self.weight, self._apply_frozen = _laid_out(weight, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._apply_frozen(x, None)
        if self.rows.segments:
            self._add_updates(x, y)
        return y

    def activated(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        """The activation `kind` of it, see `fast.activation`; in one step with the product where there are no updates."""
        return fast.activate(self(x), kind) if self.rows.segments else self._apply_frozen(x, kind)

    def _add_updates(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Adds to y what the updates of its rows make of x. Raises NotByRow."""
        number, segments = self.rows.number, self.rows.segments
        by_row = x.dim() == 3 and x.shape[0] == number
        if not by_row and (len(segments) > 1 or segments[0][:2] != (0, number)):
            raise NotByRow
        below, beside = x.reshape(-1, self.in_features), y.view(-1, self.out_features)
        each = len(below) // number if by_row else 0  # rows of the product per text
        for start, end, adapter in segments:
            lines = slice(start * each, end * each) if by_row else slice(None)
            for name, columns in self.parts:
                if (pair := adapter.updates.get(name)) is not None:
                    beside[lines, columns].addmm_(below[lines] @ pair[0].t(), pair[1].t(), alpha=adapter.scaling)


def _laid_out(weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Apply]:
    """weight (out, in) as this machine's products want it, and (x, activation) ↦ activation(x Wᵀ + bias) with it.

    As it was where the machine wants nothing.
    """
    def plain(x: torch.Tensor, kind: str | None) -> torch.Tensor:
        y = linear(x, weight, bias)
        return y if kind is None else fast.activate(y, kind)

    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return weight, plain
    trial = torch.randn(TRIED_ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, LAID_OUT_FOR)
        multiply = torch.ops.mkldnn._linear_pointwise.default

        def quick(x: torch.Tensor, kind: str | None) -> torch.Tensor:
            name, way = FUSED[kind]
            y: torch.Tensor = multiply(x, laid_out, bias, name, [], way)
            return y

        close = all(torch.allclose(quick(trial, kind).float(), plain(trial, kind).float(), rtol=0.02, atol=0.02)
                    for kind in FUSED)
    except (RuntimeError, AttributeError, NotImplementedError):  # torch's own compiler uses these; other builds may lack them
        return weight, plain
    return (laid_out, quick) if close else (weight, plain)
