"""A backup of a home at work: whole, of one moment, and nothing half-made."""
from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, corrections
from machikoba.errors import OptionError, RequirementError, StorageError
from machikoba.store import archive, audit, backup, inuse, restore
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import BundleEntry, Correction, Entry, Job
from tests.store.kept import PASSPHRASE, code


def names(file):
    with archive.reading(file, None) as reader:
        return [name for name, content in reader.members()]


def test_what_is_in_it(home, database, kept):
    made = backup.make(home, database)
    file = Path(made["file"])
    assert file.parent == home / "backups"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert (made["businesses"], made["bundles"], made["encrypted"], made["kept_until"]) == (2, 3, False, None)
    assert made["bytes"] == file.stat().st_size
    held = names(file)
    assert {"home/settings.toml", "home/certified.jsonl", "home/bundles/旅館.bundle/proof.json"} <= set(held)
    assert sum(name.endswith("uploads/queued.csv") for name in held) == 2
    assert not [name for name in held if "done.csv" in name or "cache" in name or "backups" in name]
    with tarfile.open(file) as plain:  # any tool opens it
        assert json.load(plain.extractfile("manifest.json"))["businesses"] == 2


def test_it_is_in_the_audit_and_on_the_list(home, database, kept, tmp_path):
    here = backup.make(home, database, keep_days=30)
    there = backup.make(home, database, tmp_path / "usb" / "名前.bin", PASSPHRASE, keep_days=30)
    with database.reading() as session:
        facts = [json.loads(entry.facts) for entry in session.scalars(select(Entry).where(Entry.action == "backup.add"))]
        found = backup.known(session, home)
        assert audit.verify(session) is None
    assert [one["hash"] for one in facts] == [here["sha256"], there["sha256"]]
    assert "名前" not in json.dumps(facts, ensure_ascii=False)
    assert [(one.id, one.here, one.encrypted) for one in found] == [(here["id"], True, False), (there["id"], False, True)]
    assert found[0].kept_until == found[0].made_at + timedelta(days=30)
    assert found[1].kept_until is None, "what a person named only a person deletes"
    Path(here["file"]).unlink()
    with database.reading() as session:
        assert [one.id for one in backup.known(session, home)] == [there["id"]]


def test_old_ones_go_as_they_said(home, database, kept, tmp_path, monkeypatch):
    moment = backup.now()
    kept_long, kept_short, foreign = backup.make(home, database), backup.make(home, database, keep_days=2), home / "backups" / (
        "20200101-000000-" + "0" * 8 + ".txt")
    foreign.write_text("x")
    other = tmp_path / "usb" / f"20200101-000000-deadbeef{backup.ENDING}"
    other.parent.mkdir()
    other.write_bytes(b"of another home")
    monkeypatch.setattr(backup, "now", lambda: moment + timedelta(days=3))
    later = backup.make(home, database)
    assert later["deleted"] == [Path(kept_short["file"]).name], "its time was over by its own word"
    assert Path(kept_long["file"]).exists()
    assert backup.make(home, database, tmp_path / "usb", keep_days=1)["deleted"] == []
    monkeypatch.setattr(backup, "now", lambda: moment + timedelta(days=9))
    assert backup.make(home, database, keep_days=7)["deleted"] == [Path(kept_long["file"]).name]
    assert foreign.exists()
    assert other.exists()
    with database.reading() as session:
        assert len(backup.known(session, home)) == 3


def test_the_same_job_makes_it_once(home, database, kept):
    first, again = (backup.make(home, database, id="a" * 32) for _ in range(2))
    assert (first["file"], first["sha256"], first["made_at"]) == (again["file"], again["sha256"], again["made_at"])
    assert len(list((home / "backups").iterdir())) == 1


def test_a_file_that_is_there_is_left_alone(home, database, kept, tmp_path):
    (tmp_path / "inquiries.xlsx").write_bytes(b"mine")
    assert code(OptionError, backup.make, home, database, tmp_path / "inquiries.xlsx") == "file_exists"
    assert (tmp_path / "inquiries.xlsx").read_bytes() == b"mine"


def test_an_empty_home(home, database, tmp_path):
    made = backup.make(home, database)
    assert (made["businesses"], made["bundles"]) == (0, 0)
    restore.check(Path(made["file"]), tmp_path / "elsewhere")


def test_while_others_write(home, database, kept, tmp_path):
    """The rows are of one moment: the chain is whole and every correction in it has its entry."""
    stop = threading.Event()

    def write():
        while not stop.is_set():
            with database.writing() as session:
                entry = session.scalars(select(BundleEntry)).first()
                corrections.add(session, entry, "x" * 500, "parking", "person:1")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        made = [backup.make(home, database) for _ in range(3)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for number, one in enumerate(made):
        own = Database(default_url(tmp_path / f"r{number}"))
        restore.restore(Path(one["file"]), tmp_path / f"r{number}", own)
        with own.reading() as session:
            assert audit.verify(session) is None
            entries = session.scalars(select(Entry.subject).where(Entry.action == "correction.add")).all()
            assert sorted(entries) == sorted(f"correction:{id}" for id in session.scalars(select(Correction.id)))
        own.close()


def test_a_bundle_deleted_between_rows_and_files_is_told(home, database, kept, monkeypatch, tmp_path):
    real, folders = backup._rows, []

    def rows(*arguments):
        found = real(*arguments)
        folders.append(sorted(found[1])[0])
        shutil.rmtree(home / folders[0])
        return found

    monkeypatch.setattr(backup, "_rows", rows)
    made = backup.make(home, database)
    assert (made["gone"], made["bundles"]) == (folders, 2)
    found = restore.check(Path(made["file"]), tmp_path / "elsewhere")
    assert (found["gone"], found["bundles"]) == (folders, 2)


@pytest.mark.parametrize("what", ["rewritten", "deleted"])
def test_a_bundle_that_changes_while_it_is_copied(home, database, kept, monkeypatch, tmp_path, made, what):
    """As when a person's text is taken out of it, or it is cleared away, in the middle."""
    real, done = backup._file, []

    def file(writer, where, name):
        found = real(writer, where, name)
        if name == "bundles/旅館.bundle/card.md" and not done:
            done.append(name)
            folder = home / "bundles" / "旅館.bundle"
            if what == "deleted":
                shutil.rmtree(folder)
            else:
                (folder / "examples.jsonl").write_bytes(b"")
                from machikoba.pack.bundle import seal
                seal(folder)
        return found

    monkeypatch.setattr(backup, "_file", file)
    kept_now = backup.make(home, database)
    target = Database(default_url(tmp_path / "new"))
    found = restore.restore(Path(kept_now["file"]), tmp_path / "new", target)
    target.close()
    assert found["gone"] == (["bundles/旅館.bundle"] if what == "deleted" else [])
    there = tmp_path / "new" / "bundles" / "旅館.bundle"
    assert not there.exists() if what == "deleted" else (there / "examples.jsonl").read_bytes() == b""


def test_a_bundle_that_is_damaged_already_comes_along_and_is_told(home, database, kept, tmp_path):
    (home / "bundles" / "旅館.bundle" / "card.md").write_text("changed")
    made = backup.make(home, database)
    assert made["damaged"] == ["bundles/旅館.bundle"]
    found = restore.check(Path(made["file"]), tmp_path / "elsewhere")
    assert (found["damaged"], found["bundles"]) == (["bundles/旅館.bundle"], 2)


def test_a_bundle_outside_the_home_is_told(home, database, kept, tmp_path, made):
    with database.writing() as session:
        business = session.scalars(select(BundleEntry.business_id)).first()
        bundles.add(session, business, "outside", tmp_path / "elsewhere.bundle", home, "console")
    assert backup.make(home, database)["outside"] == 1


class Full:
    """The n-th write, flush or rename under the backups meets a full disk."""

    def __init__(self, monkeypatch, at):
        self.at, self.count = at, 0
        fsync, rename = os.fsync, Path.rename
        write = archive.gzip.GzipFile.write

        def tick():
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(archive.gzip.GzipFile, "write", lambda file, data: (tick(), write(file, data))[1])
        monkeypatch.setattr(os, "fsync", lambda handle: (tick(), fsync(handle))[1])
        monkeypatch.setattr(Path, "rename", lambda path, target: (tick(), rename(path, target))[1])


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_disk_that_fills_up_leaves_nothing(home, database, monkeypatch, passphrase, made, quick_seals):
    home.mkdir()
    shutil.copytree(made.path, home / "bundles" / "a.bundle")
    at = 1
    while True:
        with monkeypatch.context() as patched:
            full = Full(patched, at)
            try:
                backup.make(home, database, passphrase=passphrase)
            except StorageError as error:
                assert error.code == "disk_full"  # noqa: PT017
        left = list((home / "backups").iterdir())
        if full.count < at:
            break
        # What is there was refused no more than the last flush of its folder.
        assert all(file.name.endswith(backup.ENDING) for file in left)
        for file in left:
            archive.verify(file, passphrase)
            file.unlink()
        at += 3
    assert at > 10


def test_who_uses_a_home(home):
    with inuse.using(home), inuse.using(home):
        assert code(RequirementError, lambda: inuse.alone(home).__enter__()) == "home_in_use"
    with inuse.alone(home):
        assert code(RequirementError, lambda: inuse.using(home).__enter__()) == "home_in_use"
    with inuse.using(home):
        pass


def test_no_backup_while_one_comes_back(home, database, kept):
    with inuse.alone(home):
        assert code(RequirementError, backup.make, home, database) == "home_in_use"
    assert not (home / "backups").exists()


def test_a_job_that_is_cut_off_in_the_middle_leaves_nothing(home, database, kept):
    def stop(what, _done, _total):
        if what == "bundles":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup.make(home, database, passphrase=PASSPHRASE, say=stop)
    assert list((home / "backups").iterdir()) == []
    with database.reading() as session:
        assert session.scalars(select(Job)).all()
        assert backup.known(session, home) == []


def test_a_store_of_an_older_version_is_not_changed_by_a_backup(url, home, tmp_path):
    own = Database(url)
    upgrade(own, "0001")
    made = backup.make(home, own)
    assert archive.verify(Path(made["file"]), None)["revision"] == "0001"
    own.close()


def test_a_sorting_is_in_it_with_every_answer(home, database, kept, tmp_path):
    from machikoba.sort import folder as place
    from machikoba.sort import kept as sorting
    from machikoba.sort.session import Session
    from tests.sort.conftest import made as pool_of

    with database.writing() as session:
        business = session.scalars(select(BundleEntry.business_id)).first()
        job = Job(business_id=business, kind="sort", options={"filename": "a.csv"}, state="done", made_by="console")
        session.add(job)
        session.flush()
        id = job.id
    pool, _kinds = pool_of(40)
    sorting.save_new(place.place(home, business, id), pool, [None] * len(pool), [])
    sitting = Session(place.place(home, business, id))
    sitting.do("a", {"do": "new", "name": "駐車場", "message": pool.ids[0]})
    file = Path(backup.make(home, database)["file"])
    sitting.do("a", {"do": "answer", "message": pool.ids[1], "label": 0})
    assert len([name for name in names(file) if f"sorting/{id}/" in name]) == len(place.FILES)
    other = tmp_path / "other"
    elsewhere = Database(default_url(other))
    restore.restore(file, other, elsewhere)
    again = Session(place.place(other, business, id))
    assert again.answers.given == {pool.ids[0]: 0}
    assert again.answers.names == {0: "駐車場"}
