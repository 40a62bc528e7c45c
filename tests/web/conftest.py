"""A server in this process, with two businesses that must never meet."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from machikoba.desk import bundles
from machikoba.store import people
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
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
