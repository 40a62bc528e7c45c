"""The file of a backup: what it tells of itself, what of damage, and under a passphrase."""
from __future__ import annotations

import errno
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from machikoba.errors import BackupError, OptionError
from machikoba.store import archive, backup, sealed
from tests.store.kept import PASSPHRASE, code


def contents(file, passphrase):
    with archive.reading(file, passphrase) as reader:
        return {name: content.read() for name, content in reader.members()} | {"manifest": reader.manifest}


class Short:
    """A file with room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_beyond_the_pipe_is_told_as_such(tmp_path):
    def write(file):
        with sealed.sealing(Short(file, 200_000), PASSPHRASE) as sink:
            for _ in range(100):
                sink.write(os.urandom(10_000))

    with (tmp_path / "a").open("wb") as file, pytest.raises(OSError, match="No space left") as caught:
        write(file)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_damage_is_told_apart(home, database, kept, tmp_path, passphrase, quick_seals):
    file = Path(backup.make(home, database, passphrase=passphrase)["file"])
    whole, other = file.read_bytes(), tmp_path / "other"
    found, told, unseen = set(), 0, 0
    for place in range(40, len(whole) - 200, len(whole) // 40):  # at its end a few bits may be anything
        other.write_bytes(whole[:place])
        found.add(code(BackupError, archive.verify, other, passphrase))
        other.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        try:
            archive.verify(other, passphrase)
        except BackupError as error:
            found.add(error.code)
            told += 1
        else:  # in a run of zeros deflate may copy from elsewhere and mean the same
            assert contents(other, passphrase) == contents(file, passphrase)
            unseen += 1
    assert told > 10 * unseen
    assert found <= {"backup_damaged", "backup_unknown", "passphrase_wrong"}
    assert "backup_damaged" in found
    for content in (b"", b"PK\x03\x04", b"\x1f\x8b", os.urandom(1_000), b"\x1f\x8b\x08" + bytes(100)):
        other.write_bytes(content)
        assert code(BackupError, archive.verify, other, passphrase) in ("backup_unknown", "backup_damaged")
    assert code(BackupError, archive.verify, tmp_path / "none", passphrase) == "backup_missing"
    assert code(BackupError, archive.verify, tmp_path, passphrase) == "backup_missing"


def test_other_archives_are_no_backups(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(__file__, "code.py")
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path)
    for name in ("a.tar.gz", "b.zip"):
        assert code(BackupError, archive.verify, tmp_path / name, None) == "backup_unknown"


def test_a_newer_format(tmp_path):
    with archive.writing(tmp_path / "a", None, {"id": "a"}) as writer:
        writer.add("x", b"y")
    assert code(BackupError, archive.verify, tmp_path / "a", None) == "backup_damaged"  # it says nowhere that it is whole
    real, archive.FORMAT = archive.FORMAT, 2
    try:
        with archive.writing(tmp_path / "b", None, {"id": "a"}) as writer:
            writer.close({})
    finally:
        archive.FORMAT = real
    assert code(BackupError, archive.verify, tmp_path / "b", None) == "backup_newer"


def test_passphrases(home, database, kept, tmp_path):
    file = Path(backup.make(home, database, passphrase=PASSPHRASE)["file"])
    assert archive.is_sealed(file)
    assert archive.verify(file, PASSPHRASE)["businesses"] == 2
    assert code(BackupError, archive.verify, file, None) == "passphrase_needed"
    assert code(BackupError, archive.verify, file, "yama kawa umi") == "passphrase_wrong"
    assert "駐車場".encode() not in file.read_bytes()
    assert code(OptionError, sealed.usable, "short") == "passphrase_unusable"


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
def test_the_tool_age_opens_it(home, database, kept, tmp_path):
    file = Path(backup.make(home, database, passphrase=PASSPHRASE)["file"])
    shutil.unpack_archive(file, tmp_path / "out", "zip")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path / "out")
        os.execvp("age", ["age", "-d", "-i", sealed.KEY, "-o", "backup.tar.gz", sealed.BODY])
    said = b""
    while b"passphrase" not in said:
        said += os.read(terminal, 1_000)
    os.write(terminal, f"{PASSPHRASE}\n".encode())
    while True:
        try:
            said += os.read(terminal, 1_000)
        except OSError:
            break
    assert os.waitpid(process, 0)[1] == 0, said
    listed = subprocess.run(["tar", "tzf", tmp_path / "out" / "backup.tar.gz"], check=True, capture_output=True, text=True).stdout
    assert "home/settings.toml" in listed


def test_a_long_stream_takes_little_memory(tmp_path):
    """300 MB through seal and archive, both ways, in less than its size beyond what the passphrase takes."""
    program = f"""
import io, resource, sys
from machikoba.store import archive
class Zeros(io.RawIOBase):
    def read(self, n=-1): return bytes(n)
with archive.writing(__import__("pathlib").Path({str(tmp_path / "a")!r}), "{PASSPHRASE}", {{"id": "a"}}) as writer:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    writer.stream("x", Zeros(), 300_000_000)
    writer.close({{}})
archive.verify(__import__("pathlib").Path({str(tmp_path / "a")!r}), "{PASSPHRASE}")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""
    more = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert int(more) < 100, f"{more} MiB more than scrypt's"
