"""A backup: everything that must survive, in one file, made while server and worker run.

    store/TABLE.0001.jsonl   the rows, all of one moment; the same from SQLite and PostgreSQL
    home/…                   bundles in use, versions that are kept, files that wait for the worker, settings, how often rows
                             were certified on

Not in it: open models and what is made from them again, measurements, how far interrupted runs are, other backups.
"""
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from machikoba import files
from machikoba.errors import BundleError, OptionError
from machikoba.language import _
from machikoba.pack.bundle import SUFFIX, sealed_files
from machikoba.sort import folder as sorting
from machikoba.store import archive, audit, dump, inuse
from machikoba.store.archive import Facts, Writer
from machikoba.store.database import Database
from machikoba.store.jobs import KEPT as KEPT_JOBS
from machikoba.store.migrations import current, upgrade
from machikoba.store.tables import Entry, new_id, now

FOLDER, ENDING = "backups", ".machikoba-backup"
NAME = re.compile(r"(\d{8}-\d{6})-([0-9a-f]{8})" + re.escape(ENDING))
MOMENT = "%Y%m%d-%H%M%S"
FOLDERS, KEPT = ("bundles", "businesses"), ("settings.toml", "certified.jsonl")  # of the home
MOST_BLOCK_BYTES = 4 << 20  # of rows in one member
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Known:
    """A backup that may still be there. kept_until: the first one made after that deletes it; None: only a person does.

    here: in the home's own folder; else it was written elsewhere, and may have been deleted there since.
    """

    id: str
    made_at: datetime
    kept_until: datetime | None
    bytes: int
    encrypted: bool
    here: bool


def make(home: Path, database: Database, target: Path | None = None, passphrase: str | None = None, keep_days: int | None = None,
         actor: str = "console", say: Say = lambda *_: None, id: str | None = None) -> dict[str, Any]:
    """Makes a backup, reads it once more from the disk, and deletes those beside it whose time is over.

    target: a file that is not there yet, or a folder; default: HOME/backups. keep_days: how long it, and those made before it
    in the same folder, are kept. id: of the job that wants it; one that is made already is not made again.
    Raises OptionError, StorageError, RequirementError (home_in_use, while a backup is being restored).
    """
    with inuse.using(home):
        with database.reading() as session:
            empty = current(session.connection()) is None
        if empty:
            upgrade(database)
        moment, id = now(), id or new_id()
        place = home / FOLDER if target is None else target if target.is_dir() else target.parent
        path = place / f"{moment.strftime(MOMENT)}-{id[:8]}{ENDING}" if target is None or target.is_dir() else target
        if made := next((file for file in _files(place) if (match := NAME.fullmatch(file.name)) and match[2] == id[:8]), None):
            path, manifest = made, archive.verify(made, passphrase)
        elif os.path.lexists(path):
            raise OptionError("file_exists", _("{path} is there already.").format(path=path),
                              expected=_("a new file, or a folder"),
                              next=_("Choose another name; in a folder the date becomes the name."))
        else:
            manifest = _make(home, database, path, passphrase, keep_days, actor, say, id, moment)
        deleted = _expire(home, database, place, path, keep_days, actor)
    until = datetime.fromisoformat(manifest["made_at"]) + timedelta(days=keep_days) if keep_days and _is_named(path) else None
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": files.digest(path), "id": id,
            "made_at": manifest["made_at"], "encrypted": passphrase is not None,
            "rows": sum(table["rows"] for table in manifest["tables"].values()),
            **{name: manifest[name] for name in ("businesses", "bundles", "gone", "damaged", "outside")},
            "kept_until": until and until.isoformat(), "deleted": [old.name for old in deleted]}


def known(session: Session, home: Path) -> list[Known]:
    """The backups of this home that may still be there, oldest first."""
    found: dict[str, Known] = {}
    here = {match[2]: file for file in _files(home / FOLDER) if (match := NAME.fullmatch(file.name))}
    for entry in session.scalars(select(Entry).where(Entry.action.in_(("backup.add", "backup.delete"))).order_by(Entry.number)):
        id, facts = entry.subject.removeprefix("backup:"), json.loads(entry.facts)
        found.pop(id, None)
        if entry.action == "backup.add" and (not facts["here"] or id[:8] in here):
            made_at = datetime.fromisoformat(facts["made_at"])
            until = made_at + timedelta(days=facts["keep_days"]) if facts["keep_days"] else None
            found[id] = Known(id, made_at, until, facts["bytes"], facts["encrypted"], facts["here"])
    told = {id[:8] for id, one in found.items() if one.here}
    for start, file in here.items():  # made before an older state was restored, or killed before it was told
        if start not in told:
            with suppress(FileNotFoundError):  # deleted in this moment
                found[start] = Known(start, _moment(file), None, file.stat().st_size, archive.starts_sealed(file), True)
    return sorted(found.values(), key=lambda one: one.made_at)


def _make(home: Path, database: Database, path: Path, passphrase: str | None, keep_days: int | None, actor: str, say: Say,
          id: str, moment: datetime) -> Facts:
    with files.scratch_folder(path.parent / "backup") as scratch:
        draft = scratch / path.name
        with files.storing(path):
            draft.touch(mode=0o600)
            with archive.writing(draft, passphrase, _head(database, id, moment)) as writer:
                _fill(writer, home, database, say)
        manifest = archive.verify(draft, passphrase)
        named = _is_named(path)
        facts: dict[str, audit.Fact] = {
            "made_at": moment.isoformat(), "hash": files.digest(draft), "bytes": draft.stat().st_size,
            "keep_days": keep_days if named else None, "encrypted": passphrase is not None,
            "here": named and path.parent.resolve() == (home / FOLDER).resolve()}
        # Told first: a backup that is listed and was never finished misleads nobody, one that is not listed would.
        with database.writing() as session:
            audit.record(session, actor, "backup.add", f"backup:{id}", facts=facts)
        with files.storing(path):
            draft.rename(path)
        files.sync_folder(path.parent)
    return manifest


def _head(database: Database, id: str, moment: datetime) -> Facts:
    with database.reading() as session:
        revision = current(session.connection())
    return {"id": id, "machikoba": version("machikoba"), "revision": revision, "made_at": moment.isoformat()}


def _fill(writer: Writer, home: Path, database: Database, say: Say) -> None:
    facts: Facts = {"gone": [], "damaged": []}
    with database.reading() as session:
        if not database.sqlite:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        facts["tables"], folders, uploads = _rows(writer, session.connection(), say)
        last = session.execute(select(Entry.number, Entry.hash).order_by(Entry.number.desc()).limit(1)).first()
        facts["audit"] = list(last) if last else None
    facts["businesses"] = facts["tables"]["businesses"]["rows"]
    inside = sorted({folder for folder in folders if _is_inside(folder)}
                    | {f"bundles/{path.name}" for path in (home / "bundles").glob(f"*{SUFFIX}")})
    facts["outside"] = len(folders) - sum(map(_is_inside, folders))
    for number, folder in enumerate(inside):
        say("bundles", number, len(inside))
        if state := _bundle(writer, home, folder):
            facts[state].append(folder)
    facts["bundles"] = len(inside) - len(facts["gone"])
    say("bundles", len(inside), len(inside))
    # The ledger last: what a bundle was certified on is noted there before the bundle is made.
    for name in [*uploads, *KEPT]:
        _file(writer, home, name)
    writer.close(facts)


def _rows(writer: Writer, connection: Connection, say: Say) -> tuple[dict[str, Any], set[str], list[str]]:
    """Writes all rows: what each table holds, the folders of bundles that are kept, the files that jobs wait for."""
    found, folders, uploads = {}, set[str](), list[str]()
    every = dump.tables(connection)
    for number, table in enumerate(every):
        say("rows", number, len(every))
        content, block, part = dump.Content(), bytearray(), 0
        for row in dump.read(connection, table):
            content.add(line := dump.line(row))
            if block and len(block) + len(line) > MOST_BLOCK_BYTES:
                part += 1
                writer.add(f"store/{table.name}.{part:04}.jsonl", bytes(block))
                say("rows", number, len(every))
                block.clear()
            block += line
            if table.name in ("bundles", "versions") and row["removed_at"] is None:
                folders.add(row["folder"])
            if table.name == "jobs" and row["state"] in KEPT_JOBS and (upload := json.loads(row["options"]).get("upload")):
                uploads.append(f"businesses/{row['business_id']}/uploads/{Path(upload).name}")
            if table.name == "jobs" and row["kind"] == "sort":
                uploads += [f"businesses/{row['business_id']}/{sorting.FOLDER}/{row['id']}/{name}" for name in sorting.FILES]
        if block:
            writer.add(f"store/{table.name}.{part + 1:04}.jsonl", bytes(block))
        found[table.name] = content.to_dict()
    say("rows", len(every), len(every))
    return found, folders, uploads


def _bundle(writer: Writer, home: Path, folder: str) -> str | None:
    """Writes a bundle. None where it is whole, "gone" where it was deleted in the meantime, else "damaged".

    One that is rewritten or deleted while it is copied is tried again; of what was copied before nothing counts.
    """
    for last in (False, True):
        copied = []
        try:
            names = sealed_files(home / folder)
        except BundleError:
            names = {}
        for path in sorted((home / folder).rglob("*")):
            name = path.relative_to(home).as_posix()
            if path.is_file() and not path.is_symlink() and _file(writer, home, name):
                copied.append(name)
        found = {name: writer.members.get(f"home/{folder}/{name}", {}).get("sha256") for name in names}
        if names and found == names:
            return None
        gone = not (home / folder / "bundle.json").exists()
        if gone or not last:
            for name in copied:
                del writer.members[f"home/{name}"]
    return "gone" if gone else "damaged"


def _file(writer: Writer, home: Path, name: str) -> bool:
    """Writes a file of the home; False where there is none."""
    path = home / name
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise files.unreadable(path, error) from error
    with file:
        writer.stream(f"home/{name}", file, os.fstat(file.fileno()).st_size)
    return True


def _expire(home: Path, database: Database, place: Path, made: Path, keep_days: int | None, actor: str) -> list[Path]:
    """Deletes backups in `place` that machikoba named, and whose time is over by their own word or by `keep_days`."""
    with database.reading() as session:
        mine = {one.id[:8]: one for one in known(session, home)}
    deleted, moment = [], now()
    for file in sorted(_files(place)):
        match = NAME.fullmatch(file.name)
        one = mine.get(match[2]) if match else None
        if one is None or file == made:  # on a shared disk another home's may lie beside
            continue
        over = one.kept_until is not None and one.kept_until <= moment
        if over or (keep_days is not None and one.made_at < moment - timedelta(days=keep_days)):
            with files.storing(file):
                file.unlink(missing_ok=True)
            with database.writing() as session:
                audit.record(session, actor, "backup.delete", f"backup:{one.id}")
            deleted.append(file)
    return deleted


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob(f"*{ENDING}") if path.is_file())


def _is_named(file: Path) -> bool:
    """Whether machikoba chose the name: such a backup it may delete."""
    return NAME.fullmatch(file.name) is not None


def _moment(file: Path) -> datetime:
    """When a backup was made, by its name."""
    match = NAME.fullmatch(file.name)
    assert match
    return datetime.strptime(match[1], MOMENT).replace(tzinfo=UTC)


def _is_inside(folder: str) -> bool:
    """Whether the folder of a bundle lies where the home keeps bundles."""
    parts = PurePosixPath(folder).parts
    return parts[:1] in [(name,) for name in FOLDERS] and ".." not in parts
