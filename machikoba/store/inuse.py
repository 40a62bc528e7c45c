"""Who uses a home: server and worker together, a restore alone. The system lets go of the lock when a process dies."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from machikoba.errors import RequirementError
from machikoba.files import storing
from machikoba.language import _

FILE = "in-use.lock"
PLACES = 1_000  # Windows knows no shared locks: there each user of a home locks one byte, and whoever wants it alone all


@contextmanager
def using(home: Path) -> Iterator[None]:
    """The home is in use until the end of the block. Raises RequirementError, home_in_use, while it is being restored."""
    with _opened(home) as file:
        if not _lock(file, alone=False):
            raise RequirementError("home_in_use", _("A backup is being restored into {home}.").format(home=home), expected="",
                                   found="", next=_("Wait until that has ended."))
        yield


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nobody else uses the home until the end of the block. Raises RequirementError, home_in_use."""
    with _opened(home) as file:
        if not _lock(file, alone=True):
            raise RequirementError("home_in_use", _("A server, a worker or a backup is at work in {home}.").format(home=home),
                                   expected=_("that nobody uses it"), found="",
                                   next=_("Stop `machikoba serve` and `worker` first."))
        yield


@contextmanager
def _opened(home: Path) -> Iterator[IO[bytes]]:
    path = home / FILE
    with storing(path):
        home.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        yield file


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[bytes], alone: bool) -> bool:
        for place in [0] if alone else range(PLACES):
            file.seek(place)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, PLACES if alone else 1)  # type: ignore[attr-defined,unused-ignore]
                return True
            except PermissionError:
                continue
        return False
else:
    import fcntl

    def _lock(file: IO[bytes], alone: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
