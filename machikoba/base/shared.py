"""One copy of a base for many bundles: texts of all of them go through it together, each with its own updates.

The products with the frozen weights, nearly all of the work, are made for the whole batch at once; then each bundle's rows
get its low-rank updates added (as Punica, arXiv 2310.18547, and S-LoRA, arXiv 2311.03285, do on GPUs). Rows that share
updates lie next to each other, so that a bundle costs two small products per layer, however many rows it has.
"""
from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machikoba.base.adapter import PEFT_FACTS, PEFT_WEIGHTS
from machikoba.base.load import Base
from machikoba.base.lora import PREFIX, Shape, linears_of, put
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk, batches
from machikoba.base.weights import not_finite
from machikoba.errors import BundleError
from machikoba.language import _


class _NotByRow(Exception):
    """A layer was asked about something that has no row per text: then only one bundle's texts go together."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank updates by the layer's name in the model: Aᵀ (in, rank), and Bᵀ (rank, out) with the scaling in it."""

    updates: dict[str, tuple[torch.Tensor, torch.Tensor]]

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for pair in self.updates.values() for part in pair)

    @classmethod
    def load(cls, folder: Path, speed: Speed, layers: Container[str]) -> Adapter:
        """From PEFT's layout, in the number format of `speed`, for a model with these linear layers. Raises BundleError."""
        from safetensors.torch import load_file

        dtype, updates = getattr(torch, speed.dtype), {}
        try:
            facts = json.loads((folder / PEFT_FACTS).read_bytes())
            tensors = load_file(folder / PEFT_WEIGHTS)
            scaling = Shape(facts["r"], facts["lora_alpha"], facts["use_rslora"]).scaling
            for name in facts["target_modules"]:
                if name not in layers:
                    raise KeyError(name)
                a, b = (tensors[f"{PREFIX}{name}.lora_{half}.weight"] for half in "AB")
                pair = (a.t().contiguous(), (b * scaling).t().contiguous())
                updates[name] = (pair[0].to(speed.device, dtype), pair[1].to(speed.device, dtype))
        except (OSError, ValueError, KeyError) as error:
            raise BundleError("bundle_damaged", _("The updates in {folder} cannot be read.").format(folder=folder),
                              expected=f"{PEFT_FACTS}, {PEFT_WEIGHTS}", found=str(error),
                              next=_("Copy the whole folder again from where it was made, or tune again.")) from error
        return cls(updates)


@dataclass(frozen=True, eq=False)
class Reading:
    """How one bundle reads: the layer that its features come from, its token weights and its updates."""

    layer: str
    weights: TokenWeights
    adapter: Adapter | None = None


class _Rows:
    """Which rows of the batch on its way have which updates: (first row, row after the last, adapter)."""

    def __init__(self) -> None:
        self.number, self.segments = 0, list[tuple[int, int, Adapter]]()


class _SharedLinear(torch.nn.Module):
    """A frozen linear layer, with each row's updates added."""

    def __init__(self, linear: torch.nn.Linear, name: str, rows: _Rows) -> None:
        super().__init__()
        self.weight, self.bias, self.name, self.rows = linear.weight, linear.bias, name, rows
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.linear(x, self.weight, self.bias)
        segments = self.rows.segments
        by_row = x.dim() == 3 and x.shape[0] == self.rows.number
        if not by_row and segments and (len(segments) > 1 or segments[0][:2] != (0, self.rows.number)):
            raise _NotByRow
        for start, end, adapter in segments:
            if (pair := adapter.updates.get(self.name)) is not None:
                here, out = (x[start:end], y[start:end]) if by_row else (x, y)
                low = here.reshape(-1, self.in_features) @ pair[0]
                out.view(-1, self.out_features).addmm_(low, pair[1])
        return y


class SharedTrunk:
    """A base that many bundles read with. Not thread-safe. Raises BaseError."""

    def __init__(self, base: Base, speed: Speed, both_ways: bool = False) -> None:
        self.base, self.speed = base, speed
        self.trunk = Trunk(base, ("last",), speed, both_ways)
        self.mixes = True  # whether this architecture can read texts of several bundles in one pass
        self._rows = _Rows()
        self._linears: dict[str, torch.nn.Linear] | None = None

    def adapter(self, folder: Path) -> Adapter:
        """The updates in `folder`, for texts to be read with. Raises BundleError."""
        if self._linears is None:
            self._linears = linears_of(self.trunk.blocks())
            for name, linear in self._linears.items():  # without updates they compute the same
                put(self.trunk.model, name, _SharedLinear(linear, name, self._rows))
        return Adapter.load(folder, self.speed, self._linears)

    def pool(self, texts: Sequence[str], readings: Sequence[Reading]) -> list[np.ndarray]:
        """Features (d,) float32 of each text, read as `readings` (n,) says. Raises BaseError, BundleError.

        What stands beside a text in its batch changes only the rounding.
        """
        encoded = self.trunk.tokens(texts)
        found: list[np.ndarray | None] = [None] * len(texts)
        waiting = [np.arange(len(texts))] if self.mixes else _apart(np.arange(len(texts)), readings)
        while waiting:
            rows = waiting.pop()
            try:
                with torch.inference_mode():
                    for chosen in batches([len(encoded[i]) for i in rows], self.trunk.batch_tokens):
                        self._read(rows[chosen], encoded, readings, found)
            except _NotByRow:
                self.mixes = False
                waiting += _apart(rows, readings)
        return found  # type: ignore[return-value]

    def _read(self, rows: np.ndarray, encoded: Sequence[Sequence[int]], readings: Sequence[Reading],
              found: list[np.ndarray | None]) -> None:
        """Reads one batch."""
        ordered = sorted(rows.tolist(), key=lambda i: id(readings[i].adapter))
        batch = [encoded[i] for i in ordered]
        self._rows.number, self._rows.segments = len(ordered), _segments([readings[i].adapter for i in ordered])
        layers = sorted({readings[i].layer for i in ordered})
        self.trunk.layers = tuple(layers)

        def weigh(ids: torch.Tensor) -> torch.Tensor:
            each = [readings[i].weights.of(row) for i, row in zip(ordered, ids.cpu().numpy(), strict=True)]
            return torch.from_numpy(np.stack(each)).to(ids.device)

        values = self.trunk.forward(batch, weigh).cpu().numpy()
        if not np.isfinite(values).all():
            raise not_finite(self.base.folder, _("what it makes of a message"))
        for i, value in zip(ordered, values, strict=True):
            found[i] = value[layers.index(readings[i].layer)]


def _segments(adapters: Sequence[Adapter | None]) -> list[tuple[int, int, Adapter]]:
    """Runs of rows with the same updates."""
    found: list[tuple[int, int, Adapter]] = []
    for row, adapter in enumerate(adapters):
        if adapter is None:
            continue
        if found and found[-1][1] == row and found[-1][2] is adapter:
            found[-1] = (found[-1][0], row + 1, adapter)
        else:
            found.append((row, row + 1, adapter))
    return found


def _apart(rows: np.ndarray, readings: Sequence[Reading]) -> list[np.ndarray]:
    """Rows in groups that share their updates."""
    groups: dict[int, list[Any]] = {}
    for row in rows.tolist():
        groups.setdefault(id(readings[row].adapter), []).append(row)
    return [np.array(group) for group in groups.values()]
