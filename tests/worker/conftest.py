"""A business with its store, and a worker for it."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machikoba.desk import bundles
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import Business
from machikoba.worker.run import Worker

BUSINESS = "b" * 32


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    found = Database(default_url(home))
    upgrade(found)
    with found.writing() as session:
        session.add(Business(id=BUSINESS, name="Inn"))
    yield found
    found.close()


@pytest.fixture
def in_use(home: Path, database: Database, made: Any) -> None:
    """The business has a bundle, 受付."""
    folder = home / "businesses" / BUSINESS / "bundles" / "1.bundle"
    shutil.copytree(made.path, folder)
    with database.writing() as session:
        bundles.add(session, BUSINESS, "受付", folder, home, "console")


@pytest.fixture
def worker(home: Path, database: Database) -> Worker:
    return Worker(home, database, "w")
