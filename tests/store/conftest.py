"""Every test of the store runs on SQLite and on a real PostgreSQL server, started here on loopback."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from machikoba.store import sealed
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import Business, new_id
from tests.store.kept import fill


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server without databases of its own; MACHIKOBA_NEEDS_POSTGRESQL makes a missing one a failure."""
    found = shutil.which("initdb") or next((str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        if os.environ.get("MACHIKOBA_NEEDS_POSTGRESQL"):
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed")
    programs = Path(found).resolve().parent
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="machikoba-postgresql-"))
    if user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
                   check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c shared_buffers=16MB"
    start = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options]
    subprocess.run([*start, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], check=True,
                       stdout=subprocess.DEVNULL, cwd=folder, **user)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if kind == "sqlite":
        yield default_url(folder)
        return
    server = request.getfixturevalue("postgresql").replace("postgresql:", "postgresql+psycopg:")
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.rpartition("/")[0] + f"/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own for each test."""
    with empty_database(request.param, request, tmp_path / "store") as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Another empty database, of either kind."""
    with empty_database(request.param, request, tmp_path / "other") as made:
        yield made


@pytest.fixture
def quick_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second that each use of a passphrase takes."""
    monkeypatch.setattr(sealed.pyrage.passphrase, "encrypt", lambda text, *_more, **_options: text)
    monkeypatch.setattr(sealed.pyrage.passphrase, "decrypt", lambda text, _passphrase: text)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    upgrade(made)
    yield made
    made.close()


@pytest.fixture
def business(database: Database) -> str:
    """The id of a business."""
    name = new_id()
    with database.writing() as session:
        session.add(Business(id=name, name="Minato Inn"))
    return name


@pytest.fixture
def kept(home: Path, database: Database, made: Any) -> dict[str, Any]:
    """A home with something of everything in it; what tells whether it is all there."""
    home.mkdir()
    return fill(home, database, made.path)
