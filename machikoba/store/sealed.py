"""A stream under a passphrase, in the format of `age`: whoever has that tool can open it without machikoba.

    FILE (zip, nothing compressed)
      key.age             a secret key, under the passphrase (scrypt)
      backup.tar.gz.age   the stream, for that key

The passphrase guards a key and not the stream itself, because only so is the stream written and read piece by piece. Both
run through a pipe, in a thread of their own: neither holds more than a block.
"""
from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import pyrage

from machikoba.errors import BackupError, OptionError
from machikoba.language import _

KEY, BODY = "key.age", "backup.tar.gz.age"
MOST_KEY_BYTES = 10_000
ENVIRONMENT = "MACHIKOBA_PASSPHRASE"
LEAST_PASSPHRASE = 10  # characters


def usable(passphrase: str) -> str:
    """The passphrase, for sealing. Raises OptionError, passphrase_unusable."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise OptionError("passphrase_unusable", _("This passphrase cannot be used."),
                          expected=_("at least {n} characters").format(n=LEAST_PASSPHRASE),
                          found=_("{n} characters").format(n=len(passphrase)), next=_("Choose a longer one, of several words."))
    return passphrase


def from_environment() -> str | None:
    """MACHIKOBA_PASSPHRASE, where it is set."""
    return os.environ.get(ENVIRONMENT) or None


@contextmanager
def sealing(file: IO[bytes], passphrase: str) -> Iterator[IO[bytes]]:
    """What is written here comes to `file` sealed."""
    identity = pyrage.x25519.Identity.generate()
    with zipfile.ZipFile(file, "w") as outer:
        outer.writestr(KEY, pyrage.passphrase.encrypt(f"{identity}\n".encode(), passphrase, armored=True))
        with outer.open(BODY, "w", force_zip64=True) as body:
            target = _Noting(body)
            pump = _Pump(lambda source: pyrage.encrypt_io(source, target, [identity.to_public()]), reads=True)
            try:
                with pump.end as sink:
                    yield sink
            except BrokenPipeError:
                pass  # the other end has told why, below
            finally:
                pump.join()
            if error := target.error or pump.error:
                raise error


@contextmanager
def unsealing(file: IO[bytes], passphrase: str) -> Iterator[IO[bytes]]:
    """What was sealed, to be read. Raises BackupError, passphrase_wrong; what was altered ends early or as an OSError."""
    with zipfile.ZipFile(file) as outer:
        try:
            secret = pyrage.passphrase.decrypt(outer.read(KEY)[:MOST_KEY_BYTES], passphrase).decode().strip()
            identity = pyrage.x25519.Identity.from_str(secret)
        except (pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError) as error:
            raise BackupError("passphrase_wrong", _("The backup does not open with this passphrase."),
                              expected=_("the passphrase that it was made with"), found="",
                              next=_("Try again; a passphrase that is lost cannot be found out.")) from error
        with outer.open(BODY) as body:
            pump = _Pump(lambda sink: pyrage.decrypt_io(body, sink, [identity]), reads=False)
            try:
                with pump.end as source:
                    yield source
            finally:
                pump.join()


class _Noting:
    """Remembers the error that a write met: what comes out of the library has lost its number."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.error = file, None

    error: Exception | None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except Exception as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Nothing is held back here."""


class _Pump(threading.Thread):
    """Runs `work` on one end of a pipe; `end` is the other. reads: whether `work` reads from its end."""

    def __init__(self, work: Callable[[IO[bytes]], Any], reads: bool) -> None:
        super().__init__(name="pump", daemon=True)
        out, into = os.pipe()
        self._theirs = os.fdopen(out, "rb") if reads else os.fdopen(into, "wb")
        self.end: IO[bytes] = os.fdopen(into, "wb") if reads else os.fdopen(out, "rb")
        self._work = work
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work(self._theirs)
        except Exception as error:
            self.error = error
        finally:
            with suppress(OSError):  # whoever read has gone
                self._theirs.close()
