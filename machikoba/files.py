"""Every byte that must survive goes through here: written, flushed to the disk, renamed into place, or not there."""
from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from machikoba.errors import StorageError
from machikoba.language import _

DRAFT = re.compile(r"\.(.+)\.(\d+)\.[0-9a-f]{8}\.draft")  # its target, the process that makes it
FULL = (errno.ENOSPC, errno.EDQUOT)
WAIT_SECONDS = 0.01  # between two looks at a lock
PLACES = 1_000  # Windows knows no shared locks: there each holder of a file locks one byte, and whoever wants it alone all
FULL_IN_RUST = f"(os error {errno.ENOSPC})"  # safetensors passes the system's words on, not its number


def write(path: Path, data: bytes) -> None:
    """Writes `data` and waits until the disk has it. Raises StorageError."""
    with storing(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def unreadable(path: Path, error: OSError) -> StorageError:
    """What is said of a file that is there and cannot be read."""
    return StorageError("disk_refused", _("{path} could not be read.").format(path=path), expected=_("permission to read"),
                        found=error.strerror or str(error), next=_("Look at the disk, and at who may read the file."))


def flush(path: Path) -> None:
    """Waits until the disk has what was written to `path`."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in `folder`; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    with storing(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def storing(path: Path, expected: str = "", next: str = "") -> Iterator[None]:
    """Turns what the system says of a full or forbidden disk into a StorageError about `path`; `expected` and `next`
    may say more than the usual words."""
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in FULL or FULL_IN_RUST in str(error)
        if not full and getattr(error, "errno", None) is None:
            raise  # not the system's: libraries raise OSError for unreadable content too
        raise StorageError(
            "disk_full" if full else "disk_refused", _("{path} could not be written.").format(path=path),
            expected=expected or _("room on the disk and permission to write"),
            found=getattr(error, "strerror", None) or str(error),
            next=next or (_("Make room on the disk.") if full
                          else _("Choose another folder, or ask whoever owns this one.")),
        ) from error


def private_folder(path: Path) -> Path:
    """The folder `path`, its user's alone where it is made here. Raises StorageError."""
    with storing(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that is gone at the end of the block; those that killed runs left for it go now."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.draft")
    try:
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            clear_drafts(target.parent, target.name)
            draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def clear_drafts(folder: Path, name: str | None = None) -> None:
    """Deletes what killed runs left in `folder`, only that for `name` where it is given."""
    for stale in folder.glob(".*.draft"):
        made = DRAFT.fullmatch(stale.name)
        if made and name in (None, made[1]) and not psutil.pid_exists(int(made[2])):
            shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` at the end of the block, whole, or leaves nothing. Raises StorageError."""
    with scratch_folder(target) as draft:
        yield draft
        for folder in [draft, *(path for path in draft.rglob("*") if path.is_dir())]:
            sync_folder(folder)
        with storing(target):
            draft.rename(target)
        sync_folder(target.parent)


@contextmanager
def draft_file(target: Path) -> Iterator[Path]:
    """A path beside `target` that replaces it at the end of the block, or leaves it as it was. Raises StorageError."""
    draft = target.with_name(f".{uuid.uuid4().hex[:8]}.draft{target.suffix}")
    try:
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with storing(target):
            flush(draft)
            draft.replace(target)
        sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Of all processes that come here with the same `path` one is in the block at a time, and the others wait. Raises
    StorageError."""
    with lock_file(path.with_name(path.name + ".lock")) as file:
        while not lock(file, alone=True):
            time.sleep(WAIT_SECONDS)
        yield


@contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to be locked until the end of the block. Raises StorageError."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        yield file


if os.name == "nt":
    import msvcrt

    def lock(file: IO[bytes], alone: bool) -> bool:
        """Holds `file` alone or together with others that do not want it alone; False where that cannot be now.

        The system lets go when the file is closed or the process dies.
        """
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

    def lock(file: IO[bytes], alone: bool) -> bool:
        """Holds `file` alone or together with others that do not want it alone; False where that cannot be now.

        The system lets go when the file is closed or the process dies.
        """
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False


def digest(*paths: Path) -> str:
    """SHA-256 over the bytes of `paths`, one after the other, hexadecimal."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()
