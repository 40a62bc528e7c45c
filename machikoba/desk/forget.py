"""Forgets a person: what speaks of them is found and taken away, everywhere that a business has texts.

    waiting files      the task is stopped and its file deleted, so that nothing new is made of it
    items of the desk  deleted, decided or not
    corrections        deleted, with the answers kept for their idempotency keys
    sortings           the messages are emptied; what was learnt of them is learnt anew
    ended tasks        what they told is emptied
    bundles            the messages are emptied at once; `worker.remake` then makes the bundle again without them
    exports of these, versions and other folders not in use, unfinished work: deleted

In this order nothing comes after that could still learn from the person. Cut short at any point, it is finished by asking
for the same again: an emptied message marks its bundle as unfinished.
"""
from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from machikoba.desk import bundles, exports, versions
from machikoba.desk.bundles import kept_as
from machikoba.errors import BundleError, MachikobaError, RequirementError
from machikoba.language import _
from machikoba.pack import erased
from machikoba.pack.bundle import EXAMPLES, SUFFIX, Bundle, open_bundle
from machikoba.records.person import Person
from machikoba.records.read import every_text
from machikoba.sort.folder import place, speaks_anywhere
from machikoba.store import audit, jobs
from machikoba.store.jobs import KEPT, OPEN
from machikoba.store.tables import BundleEntry, Business, Correction, Item, Job, Key, Membership, Version, Write
from machikoba.store.tables import Person as Account

MOST_ROWS = 50  # of one person; more are forgotten only when they are expected


@dataclass(frozen=True)
class Row:
    """Something that speaks of the person. kind: "message", "item", "correction", "file", "task", "answer" or "sorting";
    place: of a message, its bundle; text: shown to whoever may see past texts, stored nowhere."""

    kind: str
    place: str
    id: str
    text: str


@dataclass
class Found:
    """All that speaks of the person in one business, or (business None) in bundles of the home that none has.

    bundles: folders with messages of the person; unfinished: folders to be made again, these and earlier ones; unused: to be
    deleted; unsearched: names of what could not be looked into; named: kinds of things whose name, which somebody chose,
    speaks of the person, with their ids.
    """

    business: str | None
    rows: list[Row] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    answers: list[Write] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)
    told: list[Job] = field(default_factory=list)
    uploads: list[Path] = field(default_factory=list)
    sortings: list[Path] = field(default_factory=list)
    bundles: list[Path] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    named: list[tuple[str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many there are of each kind; numbers only, as the audit may hold them."""
        kinds = ("message", "item", "correction", "file", "task", "answer", "sorting")
        return {f"{kind}s": sum(row.kind == kind for row in self.rows) for kind in kinds} | {
            "stopped": len(self.stopped), "bundles": len(self.unfinished), "unused": len(self.unused)}


def totals(found: Sequence[Found]) -> dict[str, int]:
    """`Found.counts`, added up."""
    counts: Counter[str] = Counter()
    for one in found:
        counts.update(one.counts())
    return dict(counts)


def find(session: Session, business_id: str, person: Person, home: Path) -> Found:
    """What speaks of `person` in a business; nothing is changed."""
    found = Found(business_id)
    found.uploads = [path for path in _inside(home / "businesses" / business_id / "uploads") if _in_file(found, path, person)]
    found.rows = [Row("file", "", path.stem, "") for path in found.uploads]
    # A job that is about to end is waited for: what it made is then among the bundles below.
    for job in session.scalars(select(Job).where(Job.business_id == business_id).with_for_update()):
        _look_at_job(found, job, person)
    for item in session.scalars(select(Item).where(Item.business_id == business_id).execution_options(yield_per=1_000)):
        if person.within([item.text, item.label, item.said], item.id):
            found.items.append(item)
            found.rows.append(Row("item", item.bundle_id, item.id, item.text))
    for one in session.scalars(select(Correction).where(Correction.business_id == business_id)):
        if person.within([one.text, one.label, one.predicted], one.id):
            found.corrections.append(one)
            found.rows.append(Row("correction", one.bundle_id, one.id, one.text))
    gone = {one.id for one in found.corrections}
    for answer in session.scalars(select(Write).where(Write.business_id == business_id)):
        if answer.answer.get("id") in gone or person.within(_strings(answer.answer)):
            found.answers.append(answer)
            found.rows.append(Row("answer", "", answer.key, ""))
    for folder in _inside(place(home, business_id, "")):
        _look_at_sorting(found, folder, person)
    _look_at_bundles(found, session, business_id, person, home)
    # An export holds weights; it would copy those that have learnt from the person. A bundle that learns anew may be learning it.
    making = (["export"] if found.unfinished else []) + (["again"] if found.unfinished or found.corrections else [])
    found.stopped += [job for job in session.scalars(select(Job).where(
        Job.business_id == business_id, Job.kind.in_(making), Job.state.in_(OPEN))) if job not in found.stopped]
    _look_at_names(found, session, business_id, person)
    return found


def find_lying(session: Session, person: Person, home: Path) -> Found:
    """What speaks of `person` in bundles of the home that no business has: those of the command line."""
    found = Found(None)
    known = {home / folder for table in (BundleEntry, Version) for folder in session.scalars(select(table.folder))}
    for path in _inside(home / "bundles"):
        if path.name.startswith(".") and path.is_dir():  # left by a run that was killed
            found.unused += [path] if _any_speaks(path, person) else []
        elif path.name.endswith(SUFFIX) and path not in known:
            _look_into(found, path, path.name, person)
            if person.within([path.name]):
                found.named.append(("bundle", path.name))
    return found


def few_enough(found: Sequence[Found], at_most: int) -> None:
    """Raises RequirementError, forget_too_many: a word that is in every message must not empty a business."""
    rows = sum(len(one.rows) for one in found)
    if rows > at_most:
        raise RequirementError(
            "forget_too_many", _("This speaks of more than one person would have written. Nothing was changed."),
            expected=_("at most {n} places").format(n=at_most), found=_("{n} places").format(n=rows),
            next=_("Look at them with --dry-run. Give more of the name, or ids; if all of them shall go, raise --at-most."))


def erase(session: Session, found: Found, person: Person, actor: str, home: Path) -> None:
    """Takes away what was found, in a transaction that `audit.alone` began. Raises StorageError."""
    for job in found.stopped:
        jobs.cancel(session, job, actor)
    for upload in found.uploads:
        upload.unlink(missing_ok=True)
    for job in found.told:
        exports.place(home, job.business_id, job.id).unlink(missing_ok=True)
        job.options, job.result, job.doing = {}, None, ""
        job.error = {**dict.fromkeys(job.error, ""), "code": job.error.get("code", "")} if job.error else None
    for row in (*found.items, *found.corrections, *found.answers):
        session.delete(row)
    for folder in found.sortings:
        from machikoba.sort import kept  # libraries that most commands never need

        kept.erase(folder, lambda text, identity: person.within([text], identity), _("removed"))
    for path in found.bundles:
        erased.erase(open_bundle(path), lambda example: _speaks(example, person))
    for folder in found.unused:
        for entry in session.scalars(select(BundleEntry).where(
                BundleEntry.folder == kept_as(folder, home), BundleEntry.removed_at.is_(None))):
            bundles.remove(session, entry, actor)
        versions.forget_folder(session, kept_as(folder, home))
        shutil.rmtree(folder, ignore_errors=True)
    if found.business and found.unfinished:
        shutil.rmtree(exports.place(home, found.business, "").parent, ignore_errors=True)
    shutil.rmtree(_work_folder(home, found.business), ignore_errors=True)  # numbers made of texts that nobody can tell apart
    session.flush()


def remake_later(session: Session, found: Found, actor: str, home: Path, void: bool = False) -> list[str]:
    """Ids of the jobs that make the unfinished bundles of a business again, or with `void` take them out of use; those that
    wait already are among them."""
    assert found.business is not None
    waiting = {job.options.get("folder"): job.id for job in session.scalars(
        select(Job).where(Job.business_id == found.business, Job.kind == "remake", Job.state.in_(OPEN)))}
    return [waiting.get(folder) or jobs.add(session, found.business, "remake", {"folder": folder, "void": void}, actor).id
            for folder in (kept_as(path, home) for path in found.unfinished)]


def note(session: Session, found: Sequence[Found], actor: str, business_id: str | None = None) -> str:
    """Writes into the audit how many of what was forgotten, never whom; the receipt's number, by which the entry is found."""
    entry = audit.record(session, actor, "forget", f"business:{business_id}" if business_id else "home", business_id,
                         totals(found))
    return f"{entry.number}-{entry.hash[:8]}"


def _work_folder(home: Path, business_id: str | None) -> Path:
    return home / "businesses" / business_id / "work" if business_id else home / "work"


def _look_at_job(found: Found, job: Job, person: Person) -> None:
    if job.kind == "remake" and job.state in OPEN:
        return
    speaks = person.within(_strings([job.options, job.result, job.error, job.doing]), job.id)
    in_file = any(path.name == job.options.get("upload") for path in found.uploads)
    if job.state in KEPT and (speaks or in_file):
        found.stopped.append(job)
    if speaks:
        found.told.append(job)
        found.rows.append(Row("task", "", job.id, ""))


def _look_at_sorting(found: Found, folder: Path, person: Person) -> None:
    try:
        mine = speaks_anywhere(folder, lambda text, identity: person.within([text], identity))
    except (OSError, ValueError):
        found.unsearched.append(folder.name)
        return
    found.rows += [Row("sorting", folder.name, identity, text) for identity, text in mine]
    found.sortings += [folder] if mine else []


def _look_at_bundles(found: Found, session: Session, business_id: str, person: Person, home: Path) -> None:
    entries = session.scalars(select(BundleEntry).where(BundleEntry.business_id == business_id)).all()
    own = home / "businesses" / business_id / "bundles"
    used = {home / entry.folder: entry.name for entry in entries if entry.removed_at is None}
    for entry in entries:  # one that was replaced, but lies where whoever uses the command line finds it
        if entry.removed_at is not None and not (home / entry.folder).is_relative_to(own):
            used.setdefault(home / entry.folder, entry.name)
    names = {entry.id: entry.name for entry in entries}
    for version in session.scalars(select(Version).where(Version.business_id == business_id)):
        if not (home / version.folder).is_relative_to(own):
            used.setdefault(home / version.folder, names[version.bundle_id])
    for path, name in used.items():
        if path.exists():
            _look_into(found, path, name, person)
    for path in _inside(own):
        if path not in used and path.is_dir() and _any_speaks(path, person):
            found.unused.append(path)


def _look_into(found: Found, path: Path, name: str, person: Person) -> None:
    try:
        bundle = open_bundle(path)
        examples = bundle.examples()
    except (BundleError, OSError, ValueError):
        if (path / "bundle.json").exists() and _any_speaks(path, person):  # it answers nothing, but can be read
            found.unused.append(path)
        else:
            found.unsearched.append(name)
        return
    if not (path / EXAMPLES).exists():
        found.unsearched.append(name)
    mine = [example for example in examples if _speaks(example, person)]
    found.rows += [Row("message", name, example["id"], example["text"]) for example in mine]
    if mine:
        found.bundles.append(path)
    if mine or erased.unfinished(path):
        found.unfinished.append(path)


def _look_at_names(found: Found, session: Session, business_id: str, person: Person) -> None:
    business = session.get(Business, business_id)
    assert business is not None
    named: list[tuple[str, str, list[str]]] = [("business", business.id, [business.name])]
    named += [("bundle", one.id, [one.name]) for one in session.scalars(
        select(BundleEntry).where(BundleEntry.business_id == business_id))]
    named += [("key", one.id, [one.name]) for one in session.scalars(select(Key).where(Key.business_id == business_id))]
    named += [("account", one.id, [one.name, one.mail]) for one in session.scalars(
        select(Account).join(Membership, Membership.person_id == Account.id).where(Membership.business_id == business_id))]
    found.named += [(kind, id) for kind, id, words in named if person.within(words)]


def _in_file(found: Found, path: Path, person: Person) -> bool:
    try:
        return any(person.within([words]) for words in every_text(path))
    except (MachikobaError, OSError):
        found.unsearched.append(path.name)
        return False


def _any_speaks(folder: Path, person: Person) -> bool:
    """Whether a message in a folder that need not be a whole bundle is the person's."""
    try:
        return any(_speaks(example, person) for example in Bundle(folder, {}).examples())
    except (OSError, ValueError, KeyError, TypeError):
        try:
            return person.within([(folder / EXAMPLES).read_text(encoding="utf-8", errors="replace")])
        except OSError:
            return False


def _speaks(example: dict[str, Any], person: Person) -> bool:
    return bool(example["text"]) and person.within([example["text"], example["label"]], example["id"])


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _strings(value: Any) -> Iterator[str]:
    """Every text in what JSON holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (found for one in value.items() for part in one for found in _strings(part))
    elif isinstance(value, list):
        yield from (found for part in value for found in _strings(part))
