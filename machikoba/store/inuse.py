"""Who uses a home: server and worker together, a restore alone. The system lets go of the lock when a process dies."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machikoba import files
from machikoba.errors import RequirementError
from machikoba.language import _

FILE = "in-use.lock"


@contextmanager
def using(home: Path) -> Iterator[None]:
    """The home is in use until the end of the block. Raises RequirementError, home_in_use, while it is being restored."""
    with files.lock_file(files.private_folder(home) / FILE) as file:
        if not files.lock(file, alone=False):
            raise RequirementError("home_in_use", _("A backup is being restored into {home}.").format(home=home), expected="",
                                   found="", next=_("Wait until that has ended."))
        yield


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nobody else uses the home until the end of the block. Raises RequirementError, home_in_use."""
    with files.lock_file(files.private_folder(home) / FILE) as file:
        if not files.lock(file, alone=True):
            raise RequirementError("home_in_use", _("A server, a worker or a backup is at work in {home}.").format(home=home),
                                   expected=_("that nobody uses it"), found="",
                                   next=_("Stop `machikoba serve` and `worker` first."))
        yield
