"""Faults on purpose: the k-th write, flush, rename or commit fails, or the process dies there; k = 1, 2, 3 … until none does.

Hooked are files opened for writing, what is written to them, os.fsync, renames, deletions, and of the database the statements
that change it and its commits. The product knows nothing of it.

    full     there is no room: half is written, or nothing
    lost     it is done, and then an error says that it is not
    killed   the process ends there, as by kill -9; only in a child (`dies`)
"""
from __future__ import annotations

import errno
import os
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine.default import DefaultDialect

HOWS = ["full", "lost", "killed"] if hasattr(os, "fork") else ["full", "lost"]
KILLED = 77
CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")


class Fault:
    """Goes off at the `at`-th place of the block that it is the context of. count: places that were passed."""

    def __init__(self, at: int, how: str = "full") -> None:
        self.at, self.how, self.count = at, how, 0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Fault:
        real_open = Path.open

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & {"w", "a", "x"}:
                return real_open(path, mode, *args, **kwargs)
            self.due() and self.disk()
            return _File(self, real_open(path, mode, *args, **kwargs))

        self._patch.setattr(Path, "open", opened)
        self._patch.setattr(os, "fsync", self._around(os.fsync))
        self._patch.setattr(Path, "rename", self._around(Path.rename))
        self._patch.setattr(Path, "replace", self._around(Path.replace))
        if self.how == "killed":  # no full disk refuses a deletion
            self._patch.setattr(Path, "unlink", self._around(Path.unlink))
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            self._patch.setattr(DefaultDialect, name, self._statement(getattr(DefaultDialect, name)))
        self._patch.setattr(DefaultDialect, "do_commit", self._commit(DefaultDialect.do_commit))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    @property
    def went_off(self) -> bool:
        return self.count >= self.at

    def due(self) -> bool:
        """Whether this place is the one; a process that is to be killed dies here."""
        self.count += 1
        if self.count == self.at and self.how == "killed":
            os._exit(KILLED)
        return self.count == self.at

    def disk(self) -> None:
        number = errno.ENOSPC if self.how == "full" else errno.EIO
        raise OSError(number, os.strerror(number))

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            due = self.due()
            if due and self.how == "full":
                self.disk()
            found = real(*args, **kwargs)
            if due:
                self.disk()
            return found

        return watched

    def _statement(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(dialect: Any, cursor: Any, statement: str, *args: Any, **kwargs: Any) -> Any:
            if statement.lstrip().upper().startswith(CHANGES) and self.due():
                self._database(dialect)
            return real(dialect, cursor, statement, *args, **kwargs)

        return watched

    def _commit(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(dialect: Any, connection: Any) -> None:
            due = self.due()
            if due and self.how == "full":
                self._database(dialect)
            real(dialect, connection)
            if due:
                self._database(dialect)

        return watched

    def _database(self, dialect: Any) -> None:
        if dialect.name == "sqlite":
            raise sqlite3.OperationalError("database or disk is full" if self.how == "full" else "disk I/O error")
        import psycopg

        if self.how == "full":
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")
        raise psycopg.OperationalError("server closed the connection unexpectedly")


class _File:
    """A file whose writing may stop half-way."""

    def __init__(self, fault: Fault, file: Any) -> None:
        self._fault, self._file = fault, file

    def write(self, data: Any) -> int:
        if self._fault.due():
            self._file.write(data[:len(data) // 2])
            self._file.flush()
            self._fault.disk()
        return int(self._file.write(data))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def dies(act: Callable[[], Any], at: int) -> bool:
    """Does `act` in a child that is killed at the `at`-th place; False where it came to its end before.

    The child shares nothing that is open with this process as long as `act` opens what it needs itself.
    """
    child = os.fork()
    if child == 0:
        try:
            with Fault(at, "killed"):
                act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), "the child failed in another way"
    return code == KILLED
