"""How the tables came to be, step by step. `upgrade` brings any older store to the newest."""
from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from machikoba.errors import StorageError
from machikoba.files import private_folder
from machikoba.language import _
from machikoba.store.database import Database

LOCK = 0x6D616369


def config() -> Config:
    """Alembic's settings."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return found


def newest() -> str:
    """The version that this machikoba works with."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head
    return head


def versions() -> list[str]:
    """All that this machikoba knows."""
    return [step.revision for step in ScriptDirectory.from_config(config()).walk_revisions()]


def current(connection: Connection) -> str | None:
    """The version of the store; None where there is none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database, version: str = "head") -> None:
    """Brings the store to `version`, whole or not at all; processes that start together wait for each other.

    Raises StorageError, store_newer where the store is of a newer machikoba.
    """
    if database.sqlite and database.url.database:
        private_folder(Path(database.url.database).parent)
    with database.writing() as session:
        upgrade_within(session.connection(), version)


def upgrade_within(connection: Connection, version: str = "head") -> None:
    """`upgrade` in the transaction of `connection`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    here = current(connection)
    if here is not None and here not in versions():
        raise StorageError("store_newer", _("The store was last used by a newer machikoba."),
                           expected=_("version {n} or older").format(n=newest()), found=_("version {n}").format(n=here),
                           next=_("Update machikoba: pip install --upgrade machikoba"))
    if here != newest() or version != "head":
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, version)
