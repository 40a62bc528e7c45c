"""One copy of a base for many bundles: texts of all of them go through it together, each with its own updates."""
from __future__ import annotations

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machikoba.base.adapter import PEFT_FACTS, PEFT_WEIGHTS
from machikoba.base.load import Base
from machikoba.base.lora import PREFIX, Shape
from machikoba.base.product import NotByRow
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk, batches
from machikoba.base.weights import not_finite
from machikoba.errors import BundleError
from machikoba.language import _


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank updates by the layer's name in the model: A (rank, in) and B (out, rank), which count `scaling` times.

    All are parts of one block of memory, made of the file's in one step: bundles by the thousand keep theirs on the disk and
    take them up again within a millisecond.
    """

    updates: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scaling: float
    nbytes: int

    @classmethod
    def load(cls, folder: Path, speed: Speed, layers: Container[str]) -> Adapter:
        """From PEFT's layout, in the number format of `speed`, for a model with these linear layers. Raises BundleError."""
        try:
            facts = json.loads((folder / PEFT_FACTS).read_bytes())
            scaling = Shape(facts["r"], facts["lora_alpha"], facts["use_rslora"]).scaling
            with (folder / PEFT_WEIGHTS).open("rb") as file:
                header = file.read(int.from_bytes(file.read(8), "little"))
                on_disk = np.memmap(file, np.float32, "c", offset=8 + len(header))
            block = torch.from_numpy(on_disk).to(speed.device, getattr(torch, speed.dtype), copy=True)
            names, shapes, sizes = _layout(header)
            if sum(sizes) != len(block):
                raise ValueError(f"{len(block)} numbers instead of {sum(sizes)}")
            parts = {name: part.view(shape) for name, shape, part in zip(names, shapes, block.split(sizes), strict=True)}
            updates = {}
            for name in facts["target_modules"]:
                if name not in layers:
                    raise KeyError(name)
                updates[name] = parts[f"{PREFIX}{name}.lora_A.weight"], parts[f"{PREFIX}{name}.lora_B.weight"]
        except (OSError, ValueError, OverflowError, KeyError) as error:
            raise BundleError("bundle_damaged", _("The updates in {folder} cannot be read.").format(folder=folder),
                              expected=f"{PEFT_FACTS}, {PEFT_WEIGHTS}", found=str(error),
                              next=_("Copy the whole folder again from where it was made, or tune again.")) from error
        return cls(updates, scaling, block.numel() * block.element_size())


@lru_cache(maxsize=16)
def _layout(header: bytes) -> tuple[list[str], list[list[int]], list[int]]:
    """Names, shapes and sizes of the tensors of a safetensors file in their order there. Raises ValueError."""
    tensors = json.loads(header)
    tensors.pop("__metadata__", None)
    names = sorted(tensors, key=lambda name: tensors[name]["data_offsets"])
    if odd := {tensors[name]["dtype"] for name in names} - {"F32"}:
        raise ValueError(f"{', '.join(sorted(odd))} instead of F32")
    shapes = [tensors[name]["shape"] for name in names]
    return names, shapes, [math.prod(shape) for shape in shapes]


@dataclass(frozen=True, eq=False)
class Reading:
    """How one bundle reads: the layer that its features come from, its token weights and its updates."""

    layer: str
    weights: TokenWeights
    adapter: Adapter | None = None


class SharedTrunk:
    """A base that many bundles read with. Not thread-safe. Raises BaseError."""

    def __init__(self, base: Base, speed: Speed, both_ways: bool = False) -> None:
        self.base, self.speed = base, speed
        self.trunk = Trunk(base, ("last",), speed, both_ways, reading=True)
        self.mixes = True  # whether this architecture can read texts of several bundles in one pass

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return "model" in vars(self.trunk)

    def load(self) -> None:
        """Brings the model into memory. Raises BaseError."""
        _model = self.trunk.model

    def adapter(self, folder: Path) -> Adapter:
        """The updates in `folder`, for texts to be read with. Raises BundleError."""
        return Adapter.load(folder, self.speed, self.trunk.linears)

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
            except NotByRow:
                self.mixes = False
                waiting += _apart(rows, readings)
        return found  # type: ignore[return-value]

    def _read(self, rows: np.ndarray, encoded: Sequence[Sequence[int]], readings: Sequence[Reading],
              found: list[np.ndarray | None]) -> None:
        """Reads one batch."""
        ordered = sorted(rows.tolist(), key=lambda i: id(readings[i].adapter))
        batch = [encoded[i] for i in ordered]
        self.trunk.rows.set([readings[i].adapter for i in ordered])
        layers = sorted({readings[i].layer for i in ordered})
        self.trunk.layers = tuple(layers)

        def weigh(ids: np.ndarray) -> np.ndarray:
            return np.stack([readings[i].weights.of(row) for i, row in zip(ordered, ids, strict=True)])

        values = self.trunk.forward(batch, weigh).cpu().numpy()
        if not np.isfinite(values).all():
            raise not_finite(self.base.folder, _("what it makes of a message"))
        for i, value in zip(ordered, values, strict=True):
            found[i] = value[layers.index(readings[i].layer)]


def _apart(rows: np.ndarray, readings: Sequence[Reading]) -> list[np.ndarray]:
    """Rows in groups that share their updates."""
    groups: dict[int, list[Any]] = {}
    for row in rows.tolist():
        groups.setdefault(id(readings[row].adapter), []).append(row)
    return [np.array(group) for group in groups.values()]
