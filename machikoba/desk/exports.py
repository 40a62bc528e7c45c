"""Where exported bundles wait to be fetched, and for how long."""
from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

DAYS = 7


def place(home: Path, business_id: str, job_id: str) -> Path:
    """The file that the job of this id makes."""
    return home / "businesses" / business_id / "exports" / f"{job_id}.zip"


def clear(home: Path) -> None:
    """Deletes those that nobody fetched in time."""
    for path in home.glob("businesses/*/exports/*.zip"):
        with suppress(FileNotFoundError):  # another worker was quicker
            if path.stat().st_mtime < time.time() - DAYS * 86_400:
                path.unlink()
