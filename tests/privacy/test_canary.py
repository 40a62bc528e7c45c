"""A person who is put everywhere is forgotten, and found in no byte of the home any more."""
from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import timedelta

import numpy as np
import openpyxl
import pytest
from sqlalchemy import select

import machikoba
from machikoba.desk import bundles, corrections, exports
from machikoba.engine.explain import explain
from machikoba.pack import erased
from machikoba.pack.bundle import open_bundle
from machikoba.records.clean import normalise
from machikoba.store import audit, jobs, people
from machikoba.store.database import FILE, Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import BundleEntry, Correction, Entry, Job, Write, now
from machikoba.work import WorkFolder
from tests.conftest import messages, write_csv

LINE = "U" + "4af4980629" * 3 + "ab"
KNOWN = ["貉山 鼬子", "090-1234-5678", "Hanako.Mujina@example.jp", LINE]
SPELLINGS = ["貉山鼬子", "貉山 鼬子", "貉山　鼬子", "貉山・鼬子", "090-1234-5678", "09012345678", "０９０－１２３４－５６７８",
             "+81 90 1234 5678", "Hanako.Mujina@example.jp", "ＨＡＮＡＫＯ．ＭＵＪＩＮＡ＠ｅｘａｍｐｌｅ．ｊｐ", LINE,
             LINE.lower()]
MASKED = 6  # of these, before a message is kept
LABEL = "貉山鼬子 090-1234-5678 hanako.mujina@example.jp"  # labels are not masked


def rows(n=240):
    """Messages of others, some of the person that nothing masks, and a kind that is named after the person."""
    mine = [(f"{spelling}です。駐車場の車の台を見たい{spelling}", "parking") for spelling in SPELLINGS]
    return [*messages(n), *mine, *[(f"いつもの件{word}", LABEL) for word in "甲乙丙丁戊己庚"]]


class Place:
    """A home with the person in every corner of it."""

    def __init__(self, home, tmp_path):
        self.home, self.database = home, Database(default_url(home))
        upgrade(self.database)
        with self.database.writing() as session:
            self.inn = people.add_business(session, "Inn", "console").id
            self.clinic = people.add_business(session, "Clinic", "console").id
        self.own = home / "businesses" / self.inn
        table = write_csv(tmp_path / "貉山鼬子.csv", rows())
        self.served = machikoba.tune(table, self.own / "bundles" / f"{'1' * 32}.bundle", rungs=("words",)).path
        self.lying = machikoba.tune(table, home / "bundles" / "lying.bundle", rungs=("words",),
                                    never_automatic=("room", LABEL)).path
        self.replaced = shutil.copytree(self.served, self.own / "bundles" / f"{'2' * 32}.bundle")
        shutil.copytree(self.served, self.own / "bundles" / ".3.bundle.99999999.0a0a0a0a.draft")
        shutil.copytree(self.served, home / "bundles" / ".4.bundle.99999999.0a0a0a0a.draft")
        theirs = home / "businesses" / self.clinic / "bundles" / f"{'5' * 32}.bundle"
        self.others = machikoba.tune(write_csv(tmp_path / "others.csv", messages(160, seed=3)), theirs, rungs=("words",)).path
        for folder in (home / "work", self.own / "work"):
            WorkFolder(folder / "0").save("k", {"features": np.frombuffer("貉山鼬子".encode(), "uint8")})
        (self.own / "uploads").mkdir()
        book = openpyxl.Workbook()
        book.active.append(["text", "label"])
        book.active.append(["a", "b"])
        book.create_sheet("2").append([SPELLINGS[6]])
        book.save(self.own / "uploads" / "b.xlsx")
        write_csv(self.own / "uploads" / "a.csv", [(SPELLINGS[1], "x"), ("y", "z")])
        (self.own / "uploads" / "old.csv").write_bytes("text,label\n宿,x\n".encode("cp932") + SPELLINGS[4].encode())
        write_csv(self.own / "uploads" / "c.csv", messages(10))
        self.fill()

    def fill(self):
        with self.database.writing() as session:
            replaced = bundles.add(session, self.inn, "inquiries", self.replaced, self.home, "console")
            entry = bundles.add(session, self.inn, "inquiries", self.served, self.home, "console")
            bundles.add(session, self.clinic, "inquiries", self.others, self.home, "console")
            self.ids = [corrections.add(session, one, f"{spelling}より", "parking", "person:1").id
                        for spelling in SPELLINGS for one in (entry, replaced)]
            self.kept = corrections.add(session, entry, "風呂は何時まで", "bath", "person:1").id
            session.add(Write(business_id=self.inn, key="1", digest="d" * 64, status=201, answer={"id": self.ids[0]}))
            session.add(Write(business_id=self.inn, key="2", digest="d" * 64, status=201, answer={"name": SPELLINGS[3]}))
            session.add(Write(business_id=self.inn, key="3", digest="d" * 64, status=201, answer={"id": self.kept}))
            self.waiting = [jobs.add(session, self.inn, "tune", {"name": "n", "upload": name}, "person:1").id
                            for name in ("a.csv", "b.xlsx", "c.csv")]
            failed = jobs.add(session, self.inn, "tune", {"name": SPELLINGS[0], "upload": "old.csv"}, "person:1")
            failed.state, failed.error = "failed", {"code": "label_too_small", "message": "m", "found": f"{LABEL}: 3"}
            done = jobs.add(session, self.inn, "tune", {"name": "x"}, "person:1")
            done.state, done.result = "done", {"test": {"per_label": {LABEL: 1}}}
            self.ended = [failed.id, done.id]
            audit.record(session, "worker", "backup.add", f"backup:{'b' * 32}", None, {
                "made_at": (now() - timedelta(days=1)).isoformat(), "keep_days": 30, "here": False, "bytes": 1,
                "encrypted": True})
            self.export = jobs.add(session, self.inn, "export", {"bundle": entry.id, "name": "inquiries"}, "person:1").id
        exports.place(self.home, self.inn, "old").parent.mkdir()
        shutil.make_archive(str(exports.place(self.home, self.inn, "old").with_suffix("")), "zip", self.served / "weights")
        (self.home / "before-20260101-000000").mkdir()


@pytest.fixture
def place(home, tmp_path):
    made = Place(home, tmp_path)
    yield made
    made.database.close()


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "machikoba", *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | environment, check=False, encoding="utf-8")


def traces():
    """Every spelling as bytes, in each encoding that something could be written in."""
    for spelling in {*SPELLINGS, *(normalise(one) for one in SPELLINGS), LABEL}:
        for encoding in ("utf-8", "utf-16-le", "cp932", "euc_jp"):
            try:
                yield spelling.encode(encoding)
            except UnicodeEncodeError:
                continue
        yield json.dumps(spelling)[1:-1].encode()


def holders(home):
    """Files of the home in which a trace of the person is, by name or content."""
    wanted = set(traces())
    found = []
    for path in home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if "鼬" in path.name or any(trace in content for trace in wanted):
            found.append(path)
    return found


def grams(texts):
    padded = [f" {word} " for text in texts for word in normalise(text).split()]
    return {word[i:i + n] for word in padded for n in range(1, 5) for i in range(len(word) - n + 1)}


def test_nothing_of_the_person_remains_anywhere(place):
    before = (place.others / "MANIFEST.sha256").read_bytes()
    assert len(holders(place.home)) > 10
    done = run("forget", *KNOWN, "--yes", "--at-most", 500, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert not any(spelling in done.stdout for spelling in SPELLINGS)
    assert holders(place.home) == []
    dump = "\n".join(sqlite3.connect(place.home / FILE).iterdump())
    assert not any(spelling in dump for spelling in SPELLINGS)
    assert told["found"]["corrections"] == len(SPELLINGS) * 2
    assert told["found"]["files"] == 3
    assert {one["bundle"]: one["status"] for one in told["bundles"]} == {
        place.served.name: "apprentice", "lying.bundle": "apprentice"}
    assert told["unsearched"] == []
    until = (now() + timedelta(days=29)).date().isoformat()
    assert [(one["id"], one["until"][:10]) for one in told["backups"]] == [("b" * 32, until)]
    assert any(until in note for note in told["notes"])
    assert told["put_aside"] == ["before-20260101-000000"]
    assert any("before-20260101-000000" in note for note in told["notes"])
    assert not exports.place(place.home, place.inn, "old").exists()
    for path in (place.served, place.lying):
        bundle = open_bundle(path)
        vocabulary = set(json.loads((path / "weights" / "vocabulary.json").read_bytes()))
        others = grams([example["text"] for example in bundle.examples()])
        assert not vocabulary & (grams(SPELLINGS) - others)
        assert vocabulary & others
        assert LABEL not in bundle.facts["labels"]
        assert len(bundle.examples()) == 240 + MASKED
        assert all("〔" in example["text"] for example in bundle.examples()[240:])
        assert len(explain(machikoba.load(path), "無料の駐車場").neighbours) == 3
        assert not (path.with_name(f".{path.name}{erased.REMADE}")).exists()
    assert open_bundle(place.lying).facts["never_automatic"] == ["room"]
    assert not place.replaced.exists()
    assert (place.others / "MANIFEST.sha256").read_bytes() == before, "the other business is as it was"
    with place.database.reading() as session:
        assert [one.id for one in session.scalars(select(Correction))] == [place.kept]
        assert [one.key for one in session.scalars(select(Write))] == ["3"]
        states = {one.id: one.state for one in session.scalars(select(Job))}
        assert [states[one] for one in place.waiting] == ["cancelled", "cancelled", "queued"]
        assert set(told["stopped"]) == {*place.waiting[:2], place.export}
        failed = session.get(Job, place.ended[0])
        assert (failed.error["code"], failed.error["found"], failed.options) == ("label_too_small", "", {})
        entry = session.scalars(select(Entry).where(Entry.action == "forget")).one()
        assert told["receipt"] == f"{entry.number}-{entry.hash[:8]}"
        assert all(isinstance(value, int) for value in json.loads(entry.facts).values())
        assert audit.verify(session) is None
        assert bundles.find(session, place.inn, "inquiries").folder == place.served.relative_to(place.home).as_posix()
        assert session.scalars(select(BundleEntry).where(BundleEntry.business_id == place.clinic)).one().removed_at is None
    again = json.loads(run("forget", *KNOWN, "--yes", "--json").stdout)
    assert sum(again["found"].values()) == 0
    assert any("masked" in note for note in again["notes"])
