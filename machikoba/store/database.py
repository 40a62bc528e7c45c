"""The database: SQLite in the home, or PostgreSQL by URL. What one block writes is there whole or not at all."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from machikoba.errors import MachikobaError, OptionError, StorageError
from machikoba.language import _
from machikoba.settings import home

FILE = "machikoba.sqlite"
WAIT_SECONDS = 10  # for whoever is writing
CONNECTIONS = 10
WITH_TEXTS = ("corrections", "writes", "jobs")  # tables that may hold a customer's words
# What the databases say when the disk is full: SQLite in words, PostgreSQL by a code.
FULL_WORDS, FULL_CODES = ("database or disk is full", "no space left on device"), ("53100",)
READ_ONLY_WORDS, READ_ONLY_CODES = ("readonly database", "unable to open database file"), ("25006", "42501")
BUSY_WORDS, BUSY_CODES = ("database is locked", "database table is locked"), ("55P03", "40001", "40P01")


class Database:
    """Where rows are kept. Nothing is opened before the first use. Raises OptionError for a URL that cannot be used."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {} if self.sqlite else {"pool_pre_ping": True, "pool_size": CONNECTIONS, "max_overflow": 0,
                                                          "pool_timeout": WAIT_SECONDS}
        if self.sqlite:
            options["connect_args"] = {"timeout": WAIT_SECONDS}
        else:
            options["connect_args"] = {"connect_timeout": WAIT_SECONDS, "options": f"-c lock_timeout={WAIT_SECONDS}s"}
        try:
            self.engine: Engine = create_engine(self.url, hide_parameters=True, **options)
        except ModuleNotFoundError as error:
            raise OptionError("database_driver_missing", _("The driver for this database is not installed."),
                              expected="psycopg", found=str(error.name),
                              next=_("Install it: pip install 'machikoba[postgresql]'")) from error
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = self.engine.execution_options(machikoba_writes=True)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the block, or undone. Writers wait for each other on SQLite.

        Raises StorageError: store_full, store_refused, store_busy, store_unreachable.
        """
        with self._session(self._writer) as session:
            try:
                yield session
                session.commit()
            except DBAPIError:
                session.invalidate()  # its connection may still be in the transaction, and hold up every other writer
                raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent look; what is changed in it is not kept."""
        with self._session(self.engine) as session:
            yield session

    def scrub(self, anew: bool = True) -> None:
        """What was deleted is not to be found in the database's files any more. Raises StorageError.

        SQLite overwrites what is deleted (`secure_delete`); here its log is emptied. anew: SQLite's file, or the tables of
        PostgreSQL that hold texts, are written anew, for copies that were moved about; without, PostgreSQL only frees the
        room. PostgreSQL's own log (WAL) keeps deleted rows until it is recycled.
        """
        alone = {"machikoba_alone": True} if self.sqlite else {"isolation_level": "AUTOCOMMIT"}
        try:
            with self.engine.execution_options(**alone).connect() as connection:
                if not self.sqlite:
                    for table in WITH_TEXTS:
                        connection.exec_driver_sql(f"VACUUM {'(FULL) ' if anew else ''}{table}")
                    return
                if anew:
                    connection.exec_driver_sql("VACUUM")
                if connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
                    raise self._error("store_busy", "wal_checkpoint", _("Try again in a moment."))
        except DBAPIError as error:
            raise self.told(error) from error

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session:
                yield session
        except DBAPIError as error:
            raise self.told(error) from error
        except TimeoutError as error:
            raise self._error("store_busy", str(error), _("Try again in a moment.")) from error

    def told(self, error: DBAPIError) -> MachikobaError:
        """What the database complains of, in the user's words. Programming errors are not the user's: they are raised."""
        words, code = str(error.orig).lower(), str(getattr(error.orig, "sqlstate", "") or "")
        found = str(error.orig).splitlines()[0] if str(error.orig) else code

        def says(expected_words: tuple[str, ...], codes: tuple[str, ...]) -> bool:
            return code in codes or any(word in words for word in expected_words)

        if says(FULL_WORDS, FULL_CODES):
            return self._error("store_full", found, _("Make room on the disk."))
        if says(READ_ONLY_WORDS, READ_ONLY_CODES):
            return self._error("store_refused", found, _("Give the user that runs machikoba permission to write there."))
        if says(BUSY_WORDS, BUSY_CODES):
            return self._error("store_busy", found, _("Try again in a moment."))
        lost = error.connection_invalidated or code.startswith(("08", "57P"))
        if lost or type(error.orig).__name__ in ("OperationalError", "InterfaceError", "AdminShutdown"):
            return self._error("store_unreachable", found, _("Start the database, then try again."))
        raise error

    def _error(self, code: str, found: str, next: str) -> StorageError:
        where = self.url.database if self.sqlite else self.url.render_as_string(hide_password=True)
        return StorageError(code, _("The store could not be used: {where}").format(where=where),
                            expected=_("a database that answers and has room"), found=found, next=next)


def here() -> Database:
    """The store of this installation: MACHIKOBA_DATABASE, else SQLite in the home. A restore that was killed goes on first.

    Raises OptionError, StorageError, RequirementError.
    """
    from machikoba.store.restore import finish  # which needs this module

    found = Database(os.environ.get("MACHIKOBA_DATABASE") or default_url(home()))
    finish(home(), found)
    return found


def default_url(home: Path) -> str:
    """SQLite in the home."""
    return URL.create("sqlite", database=str(home / FILE)).render_as_string()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise _unusable(url.split("://")[0]) from error
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database:
        raise _unusable(backend)
    return parsed


def _unusable(found: str) -> OptionError:
    return OptionError("database_url", _("This is not a database that machikoba can use."),
                       expected="sqlite:////FOLDER/machikoba.sqlite · postgresql://NAME:PASSWORD@HOST/DATABASE",
                       found=found, next=_("Correct MACHIKOBA_DATABASE, or leave it out for SQLite in the home."))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin below, as SQLite itself would begin them
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")


def _begin_sqlite(connection: Any) -> None:
    if connection.get_execution_options().get("machikoba_alone"):
        return  # VACUUM and checkpoints stand outside of transactions
    # A transaction that reads first and then writes would fail instead of wait when another has written in between.
    immediate = connection.get_execution_options().get("machikoba_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
