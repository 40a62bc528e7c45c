"""A backup comes back: unpacked beside, checked, and only then put in place. It is there whole or not at all.

    draft ── unpacked, checked ──> HOME/restoring ── each part renamed into place ──> done
              nothing has changed        from here on every start goes on with it

The new store of SQLite is one of the parts. On PostgreSQL all is one transaction; whether it was committed decides.
"""
from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from machikoba import files
from machikoba.errors import RequirementError, StorageError
from machikoba.language import _
from machikoba.store import archive, audit, dump, inuse, verdict
from machikoba.store.archive import Facts, Reader
from machikoba.store.backup import FOLDERS, KEPT, MOMENT
from machikoba.store.database import FILE, Database, default_url
from machikoba.store.jobs import OPEN
from machikoba.store.migrations import upgrade_within, versions
from machikoba.store.tables import Entry, Job, SignIn, now

PENDING, ABOUT, NEW = "restoring", "restore.json", "new"
BEFORE = "before-"  # and the moment: what a restore put aside
LEDGER = "certified.jsonl"
Say = Callable[[str, int, int], None]


def restore(file: Path, home: Path, database: Database, passphrase: str | None = None, replace: bool = False,
            say: Say = lambda *_: None) -> dict[str, Any]:
    """Brings the backup `file` back into `home` and `database`; what the full check found.

    replace: what is there is put aside, not deleted. Raises BackupError; StorageError; RequirementError: home_in_use,
    home_not_empty, database_not_empty.
    """
    with inuse.alone(home):
        finish_alone(home, database)
        _refuse(home, database, replace)
        with ExitStack() as both:
            if database.sqlite:  # its new file is a part of the folder, which comes into place last
                draft = both.enter_context(files.draft_folder(home / PENDING))
                own = both.enter_context(closing(Database(default_url(_new(draft)))))
                session = both.enter_context(own.writing())
            else:  # the folder waits for the commit
                session = both.enter_context(database.writing())
                draft = both.enter_context(files.draft_folder(home / PENDING))
                _new(draft)
            found = _unpacked(file, passphrase, session, draft / NEW, home, say)
            found |= _ready(session, home, draft / NEW, found["id"])
            files.write(draft / ABOUT, json.dumps({
                "id": found["restore"], "before": f"{BEFORE}{now().strftime(MOMENT)}",
                "store": str(Path(database.url.database or "").absolute()) if database.sqlite else None}).encode())
        before = finish_alone(home, database)
    return {**found, "before": str(before) if before else None}


def check(file: Path, home: Path, passphrase: str | None = None, say: Say = lambda *_: None) -> dict[str, Any]:
    """The full check alone: unpacked into a folder that is deleted again. Raises BackupError, StorageError."""
    with files.scratch_folder(home / "check") as draft, closing(Database(default_url(_new(draft)))) as own, \
            own.writing() as session:
        return _unpacked(file, passphrase, session, draft / NEW, home, say)


def finish(home: Path, database: Database) -> None:
    """Goes on with a restore that was killed after its check. Raises RequirementError while one is under way."""
    if (home / PENDING).exists():
        with inuse.alone(home):
            finish_alone(home, database)


def finish_alone(home: Path, database: Database) -> Path | None:
    """`finish` for whoever has the home alone; the folder of what was put aside."""
    pending = home / PENDING
    if (pending / ABOUT).exists():
        about = json.loads((pending / ABOUT).read_bytes())
        before = home / about["before"]
        if about["store"] is None and not _committed(database, about["id"]):
            shutil.rmtree(pending / NEW, ignore_errors=True)
        for part in sorted((pending / NEW).glob("*")):
            target = Path(about["store"]) if part.name == FILE else home / part.name
            aside = before if target.parent == home else target.parent / about["before"]
            with files.storing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                # The new part is still here, so what lies in its place is the old one.
                for old in [*(target.with_name(target.name + more) for more in ("-wal", "-shm") if part.name == FILE), target]:
                    if old.exists():
                        aside.mkdir(exist_ok=True)
                        old.rename(_free(aside / old.name))
                _move(part, target)
            files.sync_folder(target.parent)
        (pending / ABOUT).unlink()
        shutil.rmtree(pending, ignore_errors=True)
        return before if before.exists() else None
    shutil.rmtree(pending, ignore_errors=True)
    return None


def put_aside(home: Path) -> list[Path]:
    """What restores have put aside in the home, oldest first: whole stores and bundles, until somebody deletes them."""
    return sorted(path for path in home.glob(f"{BEFORE}*") if path.is_dir())


def _new(draft: Path) -> Path:
    """The folder of new parts; the folders of a home are always among them, so that old ones go."""
    for name in FOLDERS:
        (draft / NEW / name).mkdir(parents=True)
    return draft / NEW


def _refuse(home: Path, database: Database, replace: bool) -> None:
    if not database.sqlite:
        with database.reading() as session:
            if inspect(session.connection()).get_table_names():
                raise RequirementError(
                    "database_not_empty", _("The database is not empty."), expected=_("an empty database"),
                    found=database.url.render_as_string(hide_password=True),
                    next=_("Create a new one and name it in MACHIKOBA_DATABASE; the old one stays as it is."))
    if mounted := [name for name in FOLDERS if (home / name).is_mount()]:
        raise RequirementError("home_split", _("A folder of {home} lies on a disk of its own.").format(home=home),
                               expected=_("folders that can be renamed"), found=", ".join(mounted),
                               next=_("Set MACHIKOBA_HOME to another folder, and mount there what you need afterwards."))
    used = [name for name in (*FOLDERS, LEDGER) if (path := home / name).is_file() or any(path.glob("*"))]
    if database.sqlite and database.url.database and Path(database.url.database).exists() and _has_rows(database):
        used.append(FILE)
    if used and not replace:
        raise RequirementError("home_not_empty", _("{home} is in use.").format(home=home), expected=_("an empty home"),
                               found=", ".join(used), next=_("Set MACHIKOBA_HOME to another folder, or add --replace: what is "
                                                             "there is then put aside."))


def _has_rows(database: Database) -> bool:
    try:
        with database.reading() as session:
            return dump.count(session.connection()) > 0
    except (StorageError, DBAPIError):
        return True  # what cannot be read may be worth keeping
    finally:
        database.close()


def _unpacked(file: Path, passphrase: str | None, session: Session, folder: Path, home: Path, say: Say) -> dict[str, Any]:
    """Fills store and folder, and checks both against what the backup says of itself."""
    connection = session.connection()
    with archive.reading(file, passphrase) as reader:
        head = reader.head
        if head["revision"] not in versions():
            raise archive.newer(_("a store of version {n} or older").format(n=versions()[0]),
                                _("version {n}").format(n=head["revision"]))
        upgrade_within(connection, head["revision"])
        members = _members(reader, connection, folder, say)
    manifest = reader.manifest
    assert manifest is not None
    archive.compare(manifest, members)
    for name in members.keys() - manifest["members"].keys():  # of a bundle that was rewritten while it was copied
        _forget(folder, PurePosixPath(name).relative_to("home"))
    for table, content in dump.contents(connection).items():
        if manifest["tables"].get(table) != content:
            raise archive.damaged(f"store/{table}")
    upgrade_within(connection)
    seen = (manifest["audit"][0], manifest["audit"][1]) if manifest["audit"] else None
    if broken := audit.verify(session, seen):
        raise archive.damaged(f"audit {broken.number}: {broken.why}")
    return {"file": str(file), **{name: manifest[name] for name in (
                "id", "made_at", "machikoba", "businesses", "gone", "outside")},
            "encrypted": archive.starts_sealed(file), "members": len(members),
            "rows": {table: content["rows"] for table, content in manifest["tables"].items()},
            "audit": seen[0] if seen else 0, **verdict.bundles(folder, home, manifest["damaged"], say)}


def _members(reader: Reader, connection: Connection, folder: Path, say: Say) -> dict[str, Facts]:
    """Rows into the store, files into the folder; size and hash of each, those of files as the disk has them."""
    found, tables = {}, {table.name: table for table in dump.tables(connection)}
    for number, (name, content) in enumerate(reader.members(), 1):
        say("unpacking", number, number)
        parts = PurePosixPath(name).parts
        if parts[0] == "store" and len(parts) == 2:
            block = content.read()
            found[name] = archive.hashed(io.BytesIO(block))
            try:
                dump.write(connection, tables[parts[1].split(".")[0]], map(dump.parsed, block.rstrip(b"\n").split(b"\n")))
            except (KeyError, TypeError, ValueError, DBAPIError) as error:
                raise archive.damaged(name) from error
        elif parts[0] == "home" and len(parts) > 1 and (parts[1] in FOLDERS or name.removeprefix("home/") in KEPT):
            found[name] = _written(content, folder.joinpath(*map(_plain, parts[1:])))
        else:
            raise archive.damaged(name)
    return found


def _plain(part: str) -> str:
    """A part of a path that leads nowhere else, on any system."""
    if part in ("..", ".") or set(part) & set('\\/:\0'):
        raise archive.damaged(part)
    return part


def _written(content: IO[bytes], target: Path) -> Facts:
    with files.storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        into = target.open("wb")
    with into:
        while block := content.read(archive.BLOCK):
            with files.storing(target):
                into.write(block)
        with files.storing(target):
            into.flush()
            os.fsync(into.fileno())
    with target.open("rb") as file:
        return archive.hashed(file)


def _forget(folder: Path, name: PurePosixPath) -> None:
    """Deletes a file, and the folders that are empty then."""
    (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        for parent in list(name.parents)[:-2]:
            (folder / parent).rmdir()


def _ready(session: Session, home: Path, folder: Path, backup_id: str) -> dict[str, Any]:
    """What must be otherwise than it was: nobody is signed in, no worker is at work, rows certified on since stay counted."""
    moment = now()
    ended = session.execute(update(SignIn).where(SignIn.ended_at.is_(None), SignIn.expires_at > moment).values(ended_at=moment))
    stopped = session.execute(update(Job).where(Job.state.in_(OPEN), Job.kind == "backup").values(
        state="cancelled", ended_at=moment, worker=None, lease_until=None))
    queued = session.execute(update(Job).where(Job.state == "running").values(state="queued", worker=None, lease_until=None))
    counts = {"sign_ins_ended": ended.rowcount, "jobs_queued": queued.rowcount,  # type: ignore[attr-defined]
              "jobs_stopped": stopped.rowcount}  # type: ignore[attr-defined]
    made = f"restore:{backup_id[:16]}{os.urandom(8).hex()}"
    audit.record(session, "console", "store.restore", made, facts={"backup": backup_id, **counts})
    _merge_ledger(home / LEDGER, folder / LEDGER)
    return {"restore": made, **counts}


def _merge_ledger(old: Path, new: Path) -> None:
    """Adds the lines of the home that the backup has not: to go back undoes no look at the rows."""
    if old.is_file():
        kept = new.read_bytes().splitlines() if new.exists() else []
        files.write(new, b"".join(line + b"\n" for line in dict.fromkeys([*kept, *old.read_bytes().splitlines()])))


def _committed(database: Database, id: str) -> bool:
    with database.reading() as session:
        return bool(inspect(session.connection()).has_table(Entry.__tablename__)
                    and session.scalars(select(Entry.number).where(Entry.subject == id)).first())


def _move(part: Path, target: Path) -> None:
    """Renames; to another disk, copies whole and then deletes."""
    if part.is_dir() or part.stat().st_dev == target.parent.stat().st_dev:
        part.rename(target)
        return
    with files.draft_file(target) as draft:
        shutil.copyfile(part, draft)
    part.unlink()


def _free(path: Path) -> Path:
    """`path`, or where that is taken another beside it."""
    return next(free for n in range(1_000) if not (free := path.with_name(f"{path.name}.{n}") if n else path).exists())
