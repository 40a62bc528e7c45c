"""What a run has finished so far, on the disk: an interrupted one goes on from there, and ends with the same bytes.

Entries are tensors under a key made of all that they depend on, so that a stale one is never met again. No text of a
customer is in them.
"""
from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from machikoba import files

DAYS_KEPT = 14  # of a run that nobody went on with


class Work(Protocol):
    """Where steps of a run leave what they made."""

    def load(self, key: str) -> dict[str, np.ndarray] | None: ...

    def save(self, key: str, tensors: Mapping[str, np.ndarray]) -> None: ...


class NoWork:
    """Nothing is kept."""

    def load(self, key: str) -> None:
        """Nothing is known."""

    def save(self, key: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Nothing is kept."""


class WorkFolder:
    """Keeps tensors in `folder`, one file for each key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """What was saved under `key`; None where nothing was, or the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self._path(key).read_bytes())
        except (OSError, ValueError, SafetensorError):
            return None

    def save(self, key: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Keeps `tensors` under `key`, whole or not at all. Raises StorageError."""
        from safetensors.numpy import save_file

        path = self._path(key)
        with files.draft_file(path) as draft, files.storing(path):
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, draft)

    def begin(self) -> None:
        """Forgets what an earlier run left here, and what nobody went on with elsewhere."""
        self.end()
        clear_old(self.folder.parent)

    def end(self) -> None:
        """Takes everything away: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def clear_old(folder: Path) -> None:
    """Takes away what nobody went on with in `folder`."""
    for run in folder.glob("*"):
        if run.stat().st_mtime < time.time() - DAYS_KEPT * 86_400:
            shutil.rmtree(run, ignore_errors=True)


def key(*parts: object) -> str:
    """A name for all of `parts`, by what they print as (bytes: as they are)."""
    found = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else repr(part).encode()
        found.update(len(raw).to_bytes(8, "little") + raw)
    return found.hexdigest()[:32]
