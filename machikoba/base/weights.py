"""Reads a Transformers folder into memory once, in the number format wanted, and leaves its vocabulary on the disk.

Two thirds of a small model are the embeddings of words that a business never meets. They stay in the file, mapped into
memory, and each batch takes the rows that it needs: same numbers, a third of the memory (bench/results/bases.json).
"""
from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machikoba.errors import BaseError
from machikoba.language import _

HEADER_BYTES = 8  # of a safetensors file: the length of the JSON header, which gives each tensor's place
WEIGHTS = "*.safetensors"  # and no pickled *.bin: loading one can run anything
KEPT_ROWS = 64  # of the vocabulary that the model itself is built with: more than any padding token that positions count from


@dataclass(frozen=True)
class Stored:
    """A tensor in a file. kind: "F32", "F16" or "BF16"; start: its first byte."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int

    def read(self) -> Any:
        """The tensor, read without mapping: mapped pages would stay in memory beside the copy."""
        count = int(np.prod(self.shape, dtype=np.int64))
        with self.path.open("rb") as file:
            file.seek(self.start)
            raw = np.fromfile(file, dtype=_NUMPY[self.kind], count=count)
        return self._tensor(raw)

    def mapped(self, rows: slice | None = None) -> Any:
        """The tensor, or some rows of it, in the file: only what is looked at takes memory, until the tensor is dropped."""
        return self._in(self._whole_file(), rows)

    def lent(self) -> tuple[Any, Callable[[], None]]:
        """The tensor in the file, and what gives the memory of all that was looked at back to the system.

        A row that is looked at takes 64 KiB, because the system maps what lies around it as well.
        """
        whole = self._whole_file()
        back = (lambda: whole.madvise(mmap.MADV_DONTNEED)) if hasattr(mmap, "MADV_DONTNEED") else (lambda: None)
        return self._in(whole, None), back

    def _whole_file(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def _in(self, whole: mmap.mmap, rows: slice | None) -> Any:
        first, last = (0, self.shape[0]) if rows is None else (rows.start, rows.stop)
        width, kind = int(np.prod(self.shape[1:], dtype=np.int64)), np.dtype(_NUMPY[self.kind])
        return self._tensor(np.frombuffer(whole, kind, (last - first) * width, self.start + first * width * kind.itemsize))

    def _tensor(self, raw: np.ndarray) -> Any:
        import torch

        tensor = torch.from_numpy(raw).view(-1, *self.shape[1:])
        return tensor.view(torch.bfloat16) if self.kind == "BF16" else tensor


_NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.int16}


def stored(folder: Path) -> dict[str, Stored] | None:
    """Every tensor of a folder by name; None where one is of a number format that is not read here."""
    found = {}
    for path in sorted(folder.glob(WEIGHTS)):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_BYTES), "little")
            if HEADER_BYTES + length > path.stat().st_size:
                raise ValueError(f"{path.name} is not a safetensors file")
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in _NUMPY:
                return None
            begin, end = entry["data_offsets"]
            if HEADER_BYTES + length + end > path.stat().st_size:
                raise ValueError(f"{path.name} ends before {name}")
            found[name] = Stored(path, entry["dtype"], tuple(entry["shape"]), HEADER_BYTES + length + begin)
    return found


def load_lean(folder: Path, dtype: Any, attention: str | None) -> Any | None:
    """The model without its output head, its vocabulary left in the file; None where its layout is not understood.

    Raises BaseError(base_not_finite), ValueError.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = AutoModel._model_mapping.get(type(config), None)
    tensors = stored(folder)
    size = getattr(config, "vocab_size", None)
    if not isinstance(kind, type) or tensors is None or not isinstance(size, int) or not hasattr(kind, "from_pretrained"):
        return None
    large = [name for name, tensor in tensors.items() if len(tensor.shape) == 2 and tensor.shape[0] == size]
    words = [name for name in large if "embed" in name]
    if len(words) != 1 or size <= KEPT_ROWS:
        return None
    ready = {}
    for name, tensor in tensors.items():
        if name in words:
            ready[name] = tensor.mapped()[:KEPT_ROWS].to(dtype)
        elif name not in large:  # an output head is of no use here
            ready[name] = tensor.read().to(dtype)
            if not torch.isfinite(ready[name].sum()):
                raise not_finite(folder, name)
    # The model is built with a small vocabulary and told the true one afterwards.
    padding, config.vocab_size = config.pad_token_id, KEPT_ROWS
    if padding is not None and padding >= KEPT_ROWS:
        config.pad_token_id = None
    model = kind.from_pretrained(None, config=config, state_dict=ready, dtype=dtype, local_files_only=True,
                                 attn_implementation=attention)
    embedding = model.get_input_embeddings()
    if embedding is None or tuple(embedding.weight.shape) != (KEPT_ROWS, tensors[words[0]].shape[1]):
        return None
    model.config.vocab_size, model.config.pad_token_id = size, padding
    _look_up(embedding, tensors[words[0]], dtype)
    return model


def _look_up(embedding: Any, vocabulary: Stored, dtype: Any) -> None:
    """Lets `embedding` take its rows from `vocabulary`, a batch at a time.

    The module itself runs as always, on the rows that the batch needs: what it does besides (Gemma scales) stays its own.
    """
    import torch

    table, give_back = vocabulary.lent()
    embedding.weight.requires_grad_(False)
    embedding.padding_idx = None

    def take(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        ids = inputs[0]
        module.weight = torch.nn.Parameter(table[ids.flatten().to("cpu")].to(ids.device, dtype), requires_grad=False)
        places = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        give_back()
        return (places, *inputs[1:])

    embedding.register_forward_pre_hook(take)
    embedding.num_embeddings = vocabulary.shape[0]


def not_finite(folder: Path, where: str) -> BaseError:
    """The error for weights, or what comes of them, that are not numbers."""
    return BaseError("base_not_finite", _("The model in {folder} does not give numbers.").format(folder=folder),
                     expected=_("weights that are finite numbers"), found=_("NaN or infinity in {name}").format(name=where),
                     next=_("Fetch the model again, or choose another with --base; `machikoba bases` lists them."))
