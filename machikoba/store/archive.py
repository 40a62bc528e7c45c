"""The file of a backup: a compressed tar, read and written from front to back in bounded memory; under a passphrase if asked.

    backup.json      what it is: format, id, when, by which version
    …                whatever is in it
    manifest.json    the same, and the size and hash of every member: without it the file was cut off
"""
from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from machikoba import files
from machikoba.errors import BackupError
from machikoba.language import _
from machikoba.store import sealed

FORMAT = 1
HEAD, MANIFEST = "backup.json", "manifest.json"
LEVEL = 1  # weights shrink by a tenth more at 6, in three times the time
BLOCK = 1 << 20
MOST_FACTS_BYTES = 256 << 20  # of one of the two descriptions: a million files
Facts = dict[str, Any]


class Writer:
    """Adds members to a backup."""

    def __init__(self, tar: tarfile.TarFile, head: Facts) -> None:
        self._tar = tar
        self.members: dict[str, Facts] = {}
        self.head = {"format": FORMAT, **head}
        self.add(HEAD, _json(self.head))

    def add(self, name: str, data: bytes) -> None:
        """A member of these bytes."""
        self.stream(name, io.BytesIO(data), len(data))

    def stream(self, name: str, source: IO[bytes], size: int) -> None:
        """A member of exactly `size` bytes of `source`; where that ends early its hash tells, and the archive stays whole."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        counted = _Counted(source, size)
        self._tar.addfile(member, counted)  # type: ignore[arg-type]
        self.members[name] = {"bytes": size, "sha256": counted.hash.hexdigest()}

    def close(self, facts: Facts) -> Facts:
        """Writes the manifest; what it says."""
        whole = {**self.head, **facts, "members": self.members}
        self.add(MANIFEST, _json(whole))
        return whole


class _Counted:
    """Gives `size` bytes and hashes them."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self.source, self.left, self.hash = source, size, hashlib.sha256()

    def read(self, size: int) -> bytes:
        wanted = min(size, self.left)
        data = self.source.read(wanted)
        data += bytes(wanted - len(data))
        self.left -= wanted
        self.hash.update(data)
        return data


@contextmanager
def writing(path: Path, passphrase: str | None, head: Facts) -> Iterator[Writer]:
    """A backup at `path`, on the disk at the end of the block. Raises OSError."""
    with path.open("wb") as file:
        with ExitStack() as layers:
            stream = layers.enter_context(sealed.sealing(file, passphrase)) if passphrase else file
            packed = layers.enter_context(gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=LEVEL, mtime=0, filename=""))
            tar = layers.enter_context(tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT))
            yield Writer(tar, head)
        file.flush()
        os.fsync(file.fileno())


@dataclass
class Reader:
    """head: what the backup is; members: what else is in it, one after the other, each to be read before the next.

    manifest: what it says of itself; there once the last member has been met.
    """

    head: Facts
    _tar: tarfile.TarFile
    manifest: Facts | None = None

    def members(self) -> Iterator[tuple[str, IO[bytes]]]:
        while member := self._tar.next():
            content = self._tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise damaged(member.name)  # a link or a device: none was put in
            if member.name == MANIFEST:
                self.manifest = _facts(content, MANIFEST)
            else:
                yield member.name, content


@contextmanager
def reading(path: Path, passphrase: str | None) -> Iterator[Reader]:
    """The backup at `path`, from front to back.

    Raises BackupError: backup_missing, backup_unknown, backup_newer, backup_damaged, passphrase_needed, passphrase_wrong;
    StorageError where it cannot be read.
    """
    under = is_sealed(path)
    if under and passphrase is None:
        raise BackupError("passphrase_needed", _("The backup is under a passphrase."), expected="--passphrase-file",
                          next=_("Give the passphrase that it was made with."))
    try:
        with ExitStack() as layers:
            stream: IO[bytes] = layers.enter_context(path.open("rb"))
            if under:
                stream = layers.enter_context(sealed.unsealing(stream, passphrase or ""))
            packed = layers.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
            try:
                tar = layers.enter_context(tarfile.open(fileobj=packed, mode="r|"))
            except tarfile.ReadError as error:
                raise _unknown(path) from error
            reader = Reader(_head(tar, path), tar)
            yield reader
            while packed.read(BLOCK):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise damaged(str(error)) from error
    except OSError as error:
        if error.errno is None:  # not the system's: what was read is not what was written
            raise damaged(str(error)) from error
        raise files.unreadable(path, error) from error
    if reader.manifest is None:
        raise damaged(_("its end is missing"))


def is_sealed(path: Path) -> bool:
    """Whether the backup at `path` is under a passphrase. Raises BackupError, StorageError."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start.startswith(b"\x1f\x8b"):
                return False
            if start.startswith(b"PK") and {sealed.KEY, sealed.BODY} <= set(zipfile.ZipFile(file).namelist()):
                return True
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BackupError("backup_missing", _("{path} is not there.").format(path=path),
                          expected=_("a file made by `machikoba backup`"),
                          found=_("a folder") if path.is_dir() else _("nothing there"), next=_("Name the file.")) from error
    except zipfile.BadZipFile as error:
        raise damaged(str(error)) from error
    except OSError as error:
        raise files.unreadable(path, error) from error
    raise _unknown(path)


def starts_sealed(path: Path) -> bool:
    """Whether a file that is taken for a backup looks like one under a passphrase."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def verify(path: Path, passphrase: str | None) -> Facts:
    """Reads every byte; the manifest. Raises as `reading`."""
    found = {}
    with reading(path, passphrase) as reader:
        for name, content in reader.members():
            found[name] = hashed(content)
    assert reader.manifest is not None
    compare(reader.manifest, found)
    return reader.manifest


def compare(manifest: Facts, found: dict[str, Facts]) -> None:
    """Raises BackupError unless everything that `manifest` lists was `found` as it was."""
    for name, expected in manifest["members"].items():
        if name != HEAD and found.get(name) != expected:
            raise damaged(name)


def hashed(content: IO[bytes]) -> Facts:
    """Size and hash of what is read."""
    found, size = hashlib.sha256(), 0
    while block := content.read(BLOCK):
        found.update(block)
        size += len(block)
    return {"bytes": size, "sha256": found.hexdigest()}


def damaged(found: str) -> BackupError:
    """What is said of a backup that was altered or cut off."""
    return BackupError("backup_damaged", _("The backup is damaged: it was altered or cut off."),
                       expected=_("the bytes that were written"), found=found[:200],
                       next=_("Copy it again from where it was made, or take an older one."))


def _head(tar: tarfile.TarFile, path: Path) -> Facts:
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == HEAD and first.isreg() else None
    if content is None:
        raise _unknown(path)
    head = _facts(content, HEAD)
    if int(head["format"]) > FORMAT:
        raise newer(_("format {n} or older").format(n=FORMAT), _("format {n}").format(n=head["format"]))
    return head


def newer(expected: str, found: str) -> BackupError:
    """What is said of a backup that this machikoba cannot know."""
    return BackupError("backup_newer", _("The backup was made by a newer machikoba."), expected=expected, found=found,
                       next=_("Update machikoba: pip install --upgrade machikoba"))


def _unknown(path: Path) -> BackupError:
    return BackupError("backup_unknown", _("{path} is not a backup.").format(path=path.name),
                       expected=_("a file made by `machikoba backup`"), next=_("Name another file."))


def _facts(content: IO[bytes], name: str) -> Facts:
    try:
        found = json.loads(content.read(MOST_FACTS_BYTES))
        if not isinstance(found, dict) or "format" not in found:
            raise ValueError(name)
        return found
    except ValueError as error:
        raise damaged(name) from error


def _json(facts: Facts) -> bytes:
    return json.dumps(facts, ensure_ascii=False, indent=1).encode() + b"\n"
