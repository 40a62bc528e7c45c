"""A server in this process, with two businesses that must never meet."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from machikoba.desk import bundles
from machikoba.store import people
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import Business
from machikoba.web.app import create_app
from machikoba.web.workshop import Workshop


@dataclass
class Tenant:
    """A business with a bundle named "inquiries" and its keys."""

    id: str
    staff: dict[str, str]
    viewer: dict[str, str]


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(people, "_hasher", lambda: hasher)


@pytest.fixture
def shop(home: Path, made: Any, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop whose store and bundles lie in a home of its own."""
    home = tmp_path / "served"
    database = Database(default_url(home))
    upgrade(database)
    found = Workshop.start(home, database, local=False)
    yield found
    found.close()


def tenant(shop: Workshop, made: Any, name: str) -> Tenant:
    """A further business with a copy of the bundle."""
    with shop.database.writing() as session:
        business = people.add_business(session, name, "console")
        folder = shop.home / "businesses" / business.id / "bundles" / "1.bundle"
        shutil.copytree(made.path, folder)
        bundles.add(session, business.id, "inquiries", folder, shop.home, "console")
        keys = [people.add_key(session, business.id, "k", role, "console")[1] for role in ("staff", "viewer")]
    return Tenant(business.id, *({"Authorization": f"Bearer {secret}"} for secret in keys))


@pytest.fixture
def inn(shop: Workshop, made: Any) -> Tenant:
    return tenant(shop, made, "Minato Inn")


@pytest.fixture
def clinic(shop: Workshop, made: Any) -> Tenant:
    return tenant(shop, made, "Dental clinic")


@pytest.fixture
def app(shop: Workshop) -> FastAPI:
    return create_app(shop, ["testserver", "localhost"])


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Without the lifespan: the shop's fixture closes it."""
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def port() -> int:
    return free_port()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start(home: Path, made: Any, port: int) -> Iterator[Callable[..., Any]]:
    """Starts `machikoba serve` on the bundle; all that was started ends with the test.

    first: Python that the process runs before. env: what it has in its environment besides. log: where its words go; without
    it the console is read up to the owner's token, into `console`.
    """
    started = []
    (home / "bundles").mkdir(parents=True)
    shutil.copytree(made.path, home / "bundles" / "inquiries.bundle")

    def run(*options: str, wait: bool = True, port: int = port, first: str = "", env: dict[str, str] | None = None,
            log: Path | None = None) -> Any:
        environment = os.environ | {"MACHIKOBA_HOME": str(home), "PYTHONUNBUFFERED": "1"} | (env or {})
        run_it = ["-c", f"{first}\nfrom machikoba.cli import main; main()"] if first else ["-m", "machikoba"]
        with log.open("a") if log else nullcontext(subprocess.PIPE) as out:
            process: Any = subprocess.Popen([sys.executable, *run_it, "serve", "--port", str(port), *options], env=environment,
                                            stdout=out, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        if wait:
            answers(port, process, log)
        process.console = ""
        while wait and not log and "owner  " not in process.console:
            process.console += process.stdout.readline()
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(port: int, process: Any, log: Path | None = None) -> None:
    """Waits until the server answers."""
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text() if log else process.stdout.read()
            time.sleep(0.05)
    pytest.fail("the server never answered")


def own(process: Any) -> dict[str, str]:
    """What whoever started the server may send: the key that the console showed."""
    return {"Authorization": "Bearer " + process.console.partition("you ask with: ")[2].split()[0]}


def owner_key(database: Database) -> dict[str, str]:
    """A key with which a program may do everything in the first business of a store that may still be empty."""
    upgrade(database)
    with database.writing() as session:
        first = session.scalars(select(Business)).first() or people.add_business(session, "Minato Inn", "console")
        return {"Authorization": "Bearer " + people.add_key(session, first.id, "k", "owner", "console")[1]}
