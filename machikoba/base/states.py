"""What enters an upper block of the model, of each text, computed once and kept on the disk while the blocks above train."""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from machikoba.base.trunk import Entering, Trunk, batches
from machikoba.files import storing


class States:
    """Keeps what enters block number `first` in a file that vanishes with this object, in the model's number format."""

    def __init__(self, trunk: Trunk, first: int, folder: Path) -> None:
        self.trunk, self.first, self._folder = trunk, first, folder
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this object)
        self._places: dict[tuple[int, ...], int] = {}
        self._width, self._format = 0, torch.float32

    def read(self, encoded: Sequence[Sequence[int]]) -> None:
        """Computes what enters for those of the tokenised texts that are not known yet. Raises StorageError."""
        fresh = [ids for ids in dict.fromkeys(map(tuple, encoded)) if ids not in self._places]
        for rows in batches([len(ids) for ids in fresh]):
            found = self.trunk.entering([fresh[i] for i in rows], self.first)
            for i, states in zip(rows, found.states, strict=True):
                self._places[fresh[i]] = self._file.seek(0, 2)
                self._width, self._format = states.shape[1], states.dtype
                with storing(self._folder):
                    self._file.write(states.cpu().contiguous().view(torch.uint8).numpy().tobytes())

    def of(self, encoded: Sequence[Sequence[int]]) -> Entering:
        """What enters for texts that have been read."""
        found = []
        for ids in encoded:
            self._file.seek(self._places[tuple(ids)])
            raw = self._file.read(len(ids) * self._width * self._format.itemsize)
            found.append(torch.frombuffer(bytearray(raw), dtype=self._format).view(len(ids), self._width))
        return Entering(self.first, found)
