"""A backup comes back, into either database, from any older version: whole or not at all."""
from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from machikoba.desk import bundles
from machikoba.engine.runtime import Engine
from machikoba.errors import BackupError, RequirementError, StorageError
from machikoba.store import archive, backup, dump, inuse, migrations, restore
from machikoba.store.database import Database, default_url, here
from machikoba.store.tables import BundleEntry, Entry, Job, SignIn
from tests.store.kept import PASSPHRASE, code, fill, found_after, told


@pytest.fixture
def file(home, database, kept):
    return Path(backup.make(home, database)["file"])


@pytest.fixture
def target(other_url):
    made = Database(other_url)
    yield made
    made.close()


@pytest.fixture
def new(tmp_path):
    return tmp_path / "new"


def test_from_either_database_into_either(file, kept, target, new, home):
    found = restore.restore(file, new, target)
    assert told(target) == kept
    assert (found["businesses"], found["bundles"], found["before"]) == (2, 3, None)
    assert [(one["base"], one["rows"] > 0, one["stands"]) for one in found["asked"]] == [(None, True, True)]
    assert (new / "settings.toml").read_bytes() == (home / "settings.toml").read_bytes()
    assert (new / "certified.jsonl").read_bytes() == (home / "certified.jsonl").read_bytes()
    with target.reading() as session:
        assert {job.state for job in session.scalars(select(Job))} == {"queued", "done"}
        assert all(one.ended_at for one in session.scalars(select(SignIn)))
        last = session.scalars(select(Entry).order_by(Entry.number.desc())).first()
        assert (last.action, json.loads(last.facts)["backup"]) == ("store.restore", found["id"])
        entry = bundles.find(session, session.scalars(select(BundleEntry.business_id)).first(), "inquiries")
        service = Engine(new).open(bundles.folder_of(entry, new))
    assert service.predict(["無料の駐車場"])[0].label == "parking"
    left = sorted(path.name for path in new.iterdir())
    assert left == ["bundles", "businesses", "certified.jsonl", "in-use.lock", "settings.toml"]
    with target.writing() as session, pytest.raises(Exception, match="only grows"):
        session.execute(text("DELETE FROM audit"))


def test_a_backup_of_a_restored_home_holds_the_same(file, target, new, tmp_path):
    restore.restore(file, new, target)
    again = backup.make(new, target, tmp_path / "again")
    first, second = archive.verify(file, None), archive.verify(Path(again["file"]), None)
    for table in ("businesses", "bundles", "corrections", "keys", "people"):
        assert first["tables"][table] == second["tables"][table]
    assert {name: fact for name, fact in first["members"].items() if name.startswith("home/")} == {
        name: fact for name, fact in second["members"].items() if name.startswith("home/")}


def test_only_checked_nothing_changes(file, home, new):
    before = sorted(path.name for path in home.iterdir())
    assert restore.check(file, home)["bundles"] == 3
    assert sorted(path.name for path in home.iterdir()) == before
    restore.check(file, new)
    assert list(new.iterdir()) == []


def test_what_is_in_use_is_not_overwritten(file, target, new, made):
    restore.restore(file, new, target)
    kept = told(target)
    expected = "home_not_empty" if target.sqlite else "database_not_empty"
    assert code(RequirementError, restore.restore, file, new, target) == expected
    assert told(target) == kept


def test_what_is_replaced_lies_beside(file, target, new, tmp_path):
    if not target.sqlite:
        restore.restore(file, new, target)
        assert code(RequirementError, restore.restore, file, new, target, replace=True) == "database_not_empty"
        return
    own = Database(default_url(new))
    restore.restore(file, new, own)
    (new / "bundles" / "mark").write_text("old")
    with (new / "certified.jsonl").open("a") as ledger:
        ledger.write('{"fingerprint": "b", "k": 2, "groups": ["g"]}\n')
    with own.writing() as session:
        session.execute(text("UPDATE businesses SET name = 'old'"))
    own.close()
    found = restore.restore(file, new, own, replace=True)
    own.close()
    aside = Path(found["before"])
    assert [aside] == restore.put_aside(new)
    assert (aside / "bundles" / "mark").read_text() == "old"
    assert not (new / "bundles" / "mark").exists()
    old = Database(default_url(aside))
    with old.reading() as session:
        assert set(session.scalars(text("SELECT name FROM businesses"))) == {"old"}
    old.close()
    assert [json.loads(line)["fingerprint"] for line in (new / "certified.jsonl").read_text().splitlines()] == ["a", "b"], \
        "rows that were certified on since stay counted"


def test_a_store_that_cannot_be_read_is_put_aside_too(file, new):
    new.mkdir()
    (new / "machikoba.sqlite").write_bytes(b"no database" * 1_000)
    own = Database(default_url(new))
    assert code(RequirementError, restore.restore, file, new, own) == "home_not_empty"
    found = restore.restore(file, new, own, replace=True)
    own.close()
    assert (Path(found["before"]) / "machikoba.sqlite").read_bytes().startswith(b"no database")


def test_not_while_a_server_or_worker_runs(file, target, new):
    with inuse.using(new):
        assert code(RequirementError, restore.restore, file, new, target) == "home_in_use"
    assert restore.restore(file, new, target)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_damage_anywhere_leaves_nothing(home, database, kept, target, new, tmp_path, passphrase, quick_seals):
    whole = Path(backup.make(home, database, passphrase=passphrase)["file"]).read_bytes()
    for place in range(500, len(whole), len(whole) // (4 if passphrase else 10)):
        (tmp_path / "b").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        with pytest.raises(BackupError):
            restore.restore(tmp_path / "b", new, target, passphrase)
        assert [path.name for path in new.iterdir()] == ["in-use.lock"]
    (tmp_path / "b").write_bytes(whole)
    restore.restore(tmp_path / "b", new, target, passphrase)
    assert told(target) == kept


def forged(path, change):
    """A backup that is whole in itself, with a member changed by `change(name, data)`; None leaves it out."""
    members, manifest = {}, None
    with tarfile.open(path) as tar:
        for member in tar:
            members[member.name] = tar.extractfile(member).read()
    manifest = json.loads(members.pop("manifest.json"))
    head = json.loads(members.pop("backup.json"))
    forged_path = path.with_name("forged")
    with archive.writing(forged_path, None, {name: head[name] for name in ("id", "machikoba", "revision", "made_at")}) as writer:
        for name, data in members.items():
            for new_name, new_data in change(name, data) or ():
                writer.add(new_name, new_data)
        writer.close({name: fact for name, fact in manifest.items() if name != "members"})
    return forged_path


@pytest.mark.parametrize("change", [
    lambda name, data: [(name, data)] + ([("home/../../evil", b"x")] if "settings" in name else []),
    lambda name, data: [(name, data)] + ([("/etc/evil", b"x")] if "settings" in name else []),
    lambda name, data: [(name, data)] + ([("home/bundles/a\\b", b"x")] if "settings" in name else []),
    lambda name, data: [(name, data)] + ([("home/machikoba.sqlite", b"x")] if "settings" in name else []),
    lambda name, data: [(name, data)] + ([("store/none.0001.jsonl", b"{}\n")] if "settings" in name else []),
    lambda name, data: None if "corrections" in name else [(name, data)],
    lambda name, data: [(name, data.replace(b'"owner"', b'"staff"').replace("大型".encode(), "中型".encode()))],
    lambda name, data: [(name, data.replace(b'"staff"', b'"owner"'))],
    lambda name, data: [(name, data[:-1] + b"!") if name.endswith("card.md") else (name, data)],
    lambda name, data: [(name, b"\n".join(data.split(b"\n")[1:])) if "audit" in name else (name, data)],
    lambda name, data: [(name, b"not json\n") if "keys" in name else (name, data)]],
    ids=["up", "absolute", "backslash", "store", "table", "rows-gone", "text", "role", "bundle", "audit", "json"])
def test_a_backup_that_was_altered_with_its_hashes_is_found_out(file, target, new, tmp_path, change):
    with pytest.raises(BackupError) as caught:
        restore.restore(forged(file, change), new, target)
    assert caught.value.code == "backup_damaged"
    assert [path.name for path in new.iterdir()] == ["in-use.lock"]
    assert not (tmp_path / "evil").exists()
    if target.sqlite:
        assert not Path(target.url.database).exists()
    else:
        with target.reading() as session:
            assert inspect(session.connection()).get_table_names() == []


def test_links_are_no_files(file, target, new, tmp_path):
    with tarfile.open(file) as old, tarfile.open(tmp_path / "b", "w:gz") as tar:
        for member in old:
            tar.addfile(member, old.extractfile(member))
            if member.name == "backup.json":
                link = tarfile.TarInfo("home/bundles/link")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc"
                tar.addfile(link)
    assert code(BackupError, restore.restore, tmp_path / "b", new, target) == "backup_damaged"


def test_every_older_version_comes_to_the_newest(url, target, new, home):
    for number, step in enumerate(ScriptDirectory.from_config(migrations.config()).walk_revisions()):
        if number and not target.sqlite:
            break  # one database of its own for each would be needed
        own = Database(default_url(home.parent / step.revision))
        migrations.upgrade(own, step.revision)
        with own.writing() as session:
            table = next(table for table in dump.tables(session.connection()) if table.name == "businesses")
            dump.write(session.connection(), table, [{**{column.name: None for column in table.columns}, "id": "b" * 32,
                                                      "name": "Inn", "created_at": "2026-01-01T00:00:00+00:00"}])
        made = backup.make(home, own, home.parent / f"{step.revision}.backup")
        own.close()
        place = target if number == 0 else Database(default_url(new / step.revision))
        restore.restore(Path(made["file"]), new / step.revision, place)
        with place.engine.connect() as connection:
            assert migrations.current(connection) == migrations.newest()
            assert connection.scalar(text("SELECT name FROM businesses")) == "Inn"
        place.close()


def test_a_store_of_a_newer_version(file, home, database, target, new):
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer = Path(backup.make(home, database)["file"])
    assert code(BackupError, restore.restore, newer, new, target) == "backup_newer"


def test_a_base_that_is_not_here_is_told(home, database, kept, target, new, tmp_path, inquiries, tiny_encoder):
    import machikoba

    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    machikoba.tune(inquiries, home / "bundles" / "f.bundle", rungs=("features",), bases=(str(base),))
    first, second = (Path(backup.make(home, database)["file"]) for _ in range(2))
    here_ = restore.check(first, home)["asked"]
    shutil.rmtree(base)
    gone = restore.restore(second, new, target)["asked"]
    assert [one["why_not"] for one in here_] == [None, None]
    assert sorted(str(one["why_not"]) for one in gone) == ["None", "base_not_here"]


class Stopped(BaseException):
    """The process is gone."""


def steps(monkeypatch, at, error):
    """The `at`-th write, flush, rename or commit of a restore fails."""
    count = [0]

    def tick():
        count[0] += 1
        if count[0] == at:
            raise error

    fsync, rename, written = os.fsync, Path.rename, restore._written
    commit = restore.Session.commit
    monkeypatch.setattr(os, "fsync", lambda handle: (tick(), fsync(handle))[1])
    monkeypatch.setattr(Path, "rename", lambda path, place: (tick(), rename(path, place), tick())[1])
    monkeypatch.setattr(restore, "_written", lambda content, place: (tick(), written(content, place))[1])
    monkeypatch.setattr(restore.Session, "commit", lambda session: (tick(), commit(session), tick())[1])
    return count


@pytest.mark.parametrize("error", [Stopped(), OSError(errno.ENOSPC, "No space left on device")], ids=["killed", "full"])
def test_stopped_anywhere_all_is_there_or_nothing(home, database, made, target, tmp_path, monkeypatch, error):
    home.mkdir()
    kept = fill(home, database, made.path)
    for folder in list(home.glob("businesses/*/bundles/1.bundle"))[1:] + [home / "bundles" / "旅館.bundle"]:
        shutil.rmtree(folder)  # one is enough to be told from none
    with database.writing() as session:
        for entry in session.scalars(select(BundleEntry)):
            if not (home / entry.folder).exists():
                entry.removed_at = backup.now()
    file = Path(backup.make(home, database)["file"])
    monkeypatch.setattr(restore.verdict, "bundles", lambda *_: {"bundles": 1, "damaged": [], "asked": []})
    outcomes, at = set(), 1
    while True:
        new = tmp_path / f"new{at}"
        own = target if not target.sqlite else Database(default_url(new))
        with monkeypatch.context() as patched:
            count = steps(patched, at, error)
            with suppress(Stopped, StorageError, OSError):  # the last where a commit fails in a way that no database would
                restore.restore(file, new, own)
        if count[0] < at:
            break
        own.close()
        restore.finish(new, own)  # what every start does
        found = found_after(new, own)
        assert found in (None, kept)
        outcomes.add(found is None)
        assert not [path.name for path in new.iterdir() if path.name in (restore.PENDING, "new")]
        if found is not None and not own.sqlite:
            empty(own)
        own.close()
        at += 4
    own.close()
    assert outcomes == {True, False}


def empty(database):
    with database.writing() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))


def test_a_killed_restore_goes_on_at_the_next_start(file, kept, new, monkeypatch):
    own = Database(default_url(new))
    with monkeypatch.context() as patched:
        patched.setattr(restore, "_move", lambda *_: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            restore.restore(file, new, own)
    own.close()
    monkeypatch.setenv("MACHIKOBA_HOME", str(new))
    monkeypatch.delenv("MACHIKOBA_DATABASE", raising=False)
    found = here()
    assert told(found) == kept
    found.close()


def test_what_is_told_in_words(file, new, monkeypatch):
    from machikoba.cli.verdict import backup_lines, restore_lines

    own = Database(default_url(new))
    lines = "\n".join(restore_lines(restore.restore(file, new, own)))
    own.close()
    for words in ("2 businesses", "are as in its proof", "sign-ins ended", "begin again"):
        assert words in lines
    assert "nothing was changed" in "\n".join(restore_lines(restore.check(file, new)))
    assert "not encrypted" in "\n".join(backup_lines(backup.make(new, own)))
    own.close()
