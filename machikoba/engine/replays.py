"""How replays of proofs ended on this machine: remembered in the home, so that each is made once."""
from __future__ import annotations

import json
from pathlib import Path

from machikoba import files
from machikoba.errors import StorageError


def known(home: Path) -> dict[str, bool]:
    """Whether the certificate stood, by bundle and machine."""
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


def _path(home: Path) -> Path:
    return home / "cache" / "replays.json"
