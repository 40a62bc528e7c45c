"""Where a certificate stands without being replayed: where it was made, and where a replay ended well.

Where: the processor and the libraries that compute, each in its version. Replays are remembered in the home, so that each is
made once.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machikoba import files
from machikoba.base.speed import machine
from machikoba.errors import StorageError


def stands(known: Mapping[str, bool], facts: Mapping[str, Any], fingerprint: str) -> bool | None:
    """Whether the certificate of a bundle stands here; None where that takes a replay. known: as of `known`."""
    if _place(facts["machine"], facts.get("versions", {})) == _here(facts):
        return True
    return known.get(key(facts, fingerprint))


def key(facts: Mapping[str, Any], fingerprint: str) -> str:
    """A bundle in this place, for `remember`."""
    return f"{fingerprint}/{_here(facts)}"


def known(home: Path) -> dict[str, bool]:
    """How replays ended, by bundle and place."""
    try:
        found = json.loads(_path(home).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(home: Path, key: str, stands: bool) -> None:
    """Keeps how a replay ended; where that cannot be written, the next load replays once more."""
    try:
        with files.draft_file(_path(home)) as draft:
            files.write(draft, json.dumps({**known(home), key: stands}).encode())
    except StorageError:
        pass


def _here(facts: Mapping[str, Any]) -> str:
    return _place(machine(), {name: _version(name) for name in facts.get("versions", {})})


def _place(processor: str, versions: Mapping[str, str]) -> str:
    # machikoba's own changes are proved by its tests; which build of a library it is, "+cpu", its metadata does not always say.
    computing = sorted((name, number.split("+")[0]) for name, number in versions.items() if name != "machikoba")
    return ", ".join([processor, *(f"{name} {number}" for name, number in computing)])


@lru_cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _path(home: Path) -> Path:
    return home / "cache" / "replays.json"
