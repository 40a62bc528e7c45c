"""A home with something of everything that must survive."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select

from machikoba.desk import bundles, corrections
from machikoba.errors import MachikobaError
from machikoba.store import audit, jobs, people
from machikoba.store.database import Database
from machikoba.store.tables import BundleEntry, Correction, Entry, Job, Person, SignIn, now

PASSPHRASE = "yama kawa umi sora"


def code(kind: type[MachikobaError], call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The code of the error that a call raises."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert caught.value.message
    return caught.value.code


def fill(home: Path, database: Database, bundle: Path) -> dict[str, Any]:
    """Two businesses at work; what tells whether all of it came back."""
    shutil.copytree(bundle, home / "bundles" / "旅館.bundle")
    (home / "settings.toml").write_text("[prices]\nwatts = 40\n", encoding="utf-8")
    (home / "certified.jsonl").write_text('{"fingerprint": "a", "k": 1, "groups": ["g"]}\n', encoding="utf-8")
    (home / "cache").mkdir()
    (home / "cache" / "replays.json").write_text("{}")
    with database.writing() as session:
        for name in ("Minato Inn", "歯科 𠮷"):
            business = people.add_business(session, name, "console")
            folder = home / "businesses" / business.id / "bundles" / "1.bundle"
            shutil.copytree(bundle, folder)
            entry = bundles.add(session, business.id, "inquiries", folder, home, "console")
            corrections.add(session, entry, "大型バイクは停められますか\n🚌", "parking", "person:1", "food", 0.125)
            people.add_key(session, business.id, "desk", "staff", "console")
            uploads = home / "businesses" / business.id / "uploads"
            uploads.mkdir()
            for state in ("queued", "done"):
                (uploads / f"{state}.csv").write_text("text,label\n駐車場,x\n", encoding="utf-8")
                jobs.add(session, business.id, "tune", {"name": "新", "upload": f"{state}.csv"}, "person:1").state = state
        session.add(Person(id="p" * 32, mail="a@example.jp", name="A", password="x"))
        session.flush()
        session.add(SignIn(person_id="p" * 32, token="t" * 64, device="Firefox", expires_at=now() + timedelta(days=1)))
    assert jobs.take(database, "w")
    return told(database)


def told(database: Database) -> dict[str, Any]:
    """What is in the store, but for what a restore changes."""
    with database.reading() as session:
        assert audit.verify(session) is None
        return {
            "bundles": sorted((row.id, row.name, row.folder, row.created_at) for row in session.scalars(select(BundleEntry))),
            "corrections": sorted((row.id, row.text, row.confidence, row.created_at) for row in session.scalars(
                select(Correction))),
            "jobs": sorted((row.id, row.options["name"], row.attempt) for row in session.scalars(select(Job))),
            "audit": [row.hash for row in session.scalars(select(Entry).order_by(Entry.number)) if row.action in (
                "bundle.add", "correction.add", "key.add", "job.add", "business.add")]}


def found_after(home: Path, database: Database) -> dict[str, Any] | None:
    """What is there: None for nothing, else what the store tells, its files being there too."""
    with database.reading() as session:
        if "businesses" not in inspect(session.connection()).get_table_names():
            assert not list(home.glob("businesses/*"))
            assert not (home / "certified.jsonl").exists()
            return None
        folders = session.scalars(select(BundleEntry.folder).where(BundleEntry.removed_at.is_(None))).all()
    assert all((home / folder / "bundle.json").exists() for folder in folders)
    assert (home / "certified.jsonl").exists()
    return told(database)
