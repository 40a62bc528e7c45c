"""The commands of an owner's duties: forget a person, and how long texts are kept."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from machikoba.cli.app import Json, app
from machikoba.cli.output import Mode, progress, result, show
from machikoba.language import _

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from machikoba.desk.forget import Found
    from machikoba.store.database import Database
    from machikoba.store.tables import Business
    from machikoba.tune.ladder import Say
    from machikoba.worker.remake import Remade

SHOWN = 20  # places that are shown before it is asked
BusinessName = Annotated[str | None, typer.Option("--business", metavar="NAME", help=_("Only in this business: its name or id."))]


@app.command(help=_("Forget a person: take every message away, and make the bundles that learnt from them again."))
def forget(
    text: Annotated[list[str] | None, typer.Argument(
        metavar="[TEXT|ID]…", show_default=False,
        help=_("What is known of the person: phone, mail, name, LINE id, ids of messages. Left out, it is asked for."))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_("Only show what would go."))] = False,
    yes: Annotated[bool, typer.Option("--yes", help=_("Do not ask before it is done."))] = False,
    void: Annotated[bool, typer.Option("--void", help=_("Take the bundles out of use instead of making them again."))] = False,
    at_most: Annotated[int, typer.Option(help=_("Refuse when more places than this speak of the person."))] = 50,
    business: BusinessName = None, json: Json = False,
) -> None:
    from machikoba.settings import home
    from machikoba.store import inuse
    from machikoba.store.database import here

    asked, database = text or _asked(), here()
    with inuse.using(home()):
        _forget(asked, database, dry_run, yes, void, at_most, business)


def _forget(asked: list[str], database: Database, dry_run: bool, yes: bool, void: bool, at_most: int,
            business: str | None) -> None:
    from machikoba.desk import forget as desk
    from machikoba.desk import receipt
    from machikoba.errors import OptionError, StorageError
    from machikoba.records.person import Person
    from machikoba.settings import home
    from machikoba.store import audit
    from machikoba.store.migrations import upgrade

    person = Person.known_by(asked)
    upgrade(database)
    asks = not (dry_run or yes) and not Mode.json and sys.stdin.isatty()
    if dry_run or asks:
        with database.reading() as session:
            looked = _found(session, person, business)
            told = receipt.receipt(session, looked, person, home())
        rows = [vars(row) for one in looked for row in one.rows]
        if dry_run:
            result({**told, "rows": rows, "bundles": []}, [*_row_lines(rows), *_count_lines(looked), *told["notes"]])
            return
        show([*_row_lines(rows[:SHOWN]), *_count_lines(looked)])
        if (rows or any(one.unfinished for one in looked)) and not typer.confirm(_("Shall all this be forgotten?")):
            raise KeyboardInterrupt
    elif not yes:
        raise OptionError("yes_needed", _("Nobody can be asked here whether this shall be forgotten."), expected="--yes",
                          found="", next=_("Look with --dry-run first, then give --yes."))
    with database.writing() as session:
        audit.alone(session)
        found = _found(session, person, business)
        desk.few_enough(found, at_most)
        for one in found:
            desk.erase(session, one, person, "console", home())
        number = desk.note(session, found, "console", found[0].business if business else None)
        told = receipt.receipt(session, found, person, home(), number)
    Mode.unfinished = _("Stopped. The messages are gone; give the same command again to make the bundles again.")
    with progress() as say:
        made = [_renewed(database, path, one.business, say, void) for one in found for path in one.unfinished]
    try:
        database.scrub()
    except StorageError as error:
        told["notes"].append(error.message + " " + _("Until then deleted rows may remain in the database's files."))
    result({**told, "rows": [], "bundles": [vars(one) for one in made]},
           [_("receipt  {number} of {at}").format(number=number, at=told["at"]),
            _("asked    {texts}").format(texts=" · ".join(asked)), *_count_lines(found), *map(_made_line, made), *told["notes"]])
    if any(one.status == "waiting" for one in made):
        raise typer.Exit(1)


@app.command(help=_("Show or set how many days texts are kept."))
def retention(
    days: Annotated[str | None, typer.Argument(metavar="[DAYS|none]", show_default=False,
                                               help=_("Days, or none: until somebody deletes them."))] = None,
    business: BusinessName = None, json: Json = False,
) -> None:
    from machikoba.desk.retention import MOST_DAYS, set_days
    from machikoba.errors import OptionError
    from machikoba.store.database import here
    from machikoba.store.migrations import upgrade

    if days is not None and days != "none" and not days.isdecimal():
        raise OptionError("days_wrong", _("This number of days cannot be used."),
                          expected=_("1 to {n}, or none").format(n=MOST_DAYS), found=days, next=_("Choose another number."))
    database = here()
    upgrade(database)
    with database.writing() as session:
        businesses = _businesses(session, business)
        for one in businesses if days is not None else []:
            set_days(session, one, None if days == "none" else int(days or 0), "console")
    result({"businesses": [{"id": one.id, "name": one.name, "retention_days": one.retention_days} for one in businesses]},
           [_("{name}: texts are kept {n} days").format(name=one.name, n=one.retention_days) if one.retention_days
            else _("{name}: texts are kept until somebody deletes them").format(name=one.name) for one in businesses]
           or [_("No business yet. `machikoba serve` makes the first.")])


def _asked() -> list[str]:
    """What is known of the person, from the keyboard or a pipe: so it stays out of the shell's history."""
    if not sys.stdin.isatty():
        return [line.strip() for line in sys.stdin if line.strip()]
    return [part.strip() for part in typer.prompt(_("Phone, mail, name, LINE id or message ids, with commas between")).split(",")
            if part.strip()]


def _renewed(database: Database, path: Path, business: str | None, say: Say, void: bool) -> Remade:
    """The bundle at `path` made again; where that fails for now, it waits: its messages are gone already."""
    from machikoba.errors import BundleError, RequirementError, StorageError
    from machikoba.settings import home
    from machikoba.worker.remake import Remade, renewed

    work = home() / "businesses" / business / "work" if business else home() / "work"
    try:
        return renewed(database, path, home(), "console", say, work, void=void)
    except (BundleError, RequirementError, StorageError) as error:
        return Remade(path.name, None, None, None, "waiting", f"{error.message} {error.found}")


def _found(session: Session, person: Any, business: str | None) -> list[Found]:
    from machikoba.desk.forget import find, find_lying
    from machikoba.settings import home

    found = [find(session, one.id, person, home()) for one in _businesses(session, business)]
    return found if business else [*found, find_lying(session, person, home())]


def _businesses(session: Session, wanted: str | None) -> list[Business]:
    """The business of this name or id; all of them where none is named. Raises OptionError, business_not_here."""
    from sqlalchemy import select

    from machikoba.store import businesses
    from machikoba.store.tables import Business

    if wanted is None:
        return list(session.scalars(select(Business).order_by(Business.created_at)))
    return [one for one in [businesses.find(session, wanted)] if one]


def _row_lines(rows: list[dict[str, Any]]) -> list[str]:
    kinds = {"message": _("message"), "item": _("message on the desk"), "correction": _("correction"),
             "file": _("waiting file"), "task": _("task"), "answer": _("kept answer"), "sorting": _("message being sorted")}
    return [_("found    {kind} {id} {place}: {text}").format(
        kind=kinds[row["kind"]], id=row["id"], place=row["place"], text=row["text"].replace("\n", " ")[:80]) for row in rows]


def _count_lines(found: list[Found]) -> list[str]:
    from machikoba.desk.forget import totals

    n = totals(found)
    return [_("places   {messages} messages in bundles, {items} on the desk, {corrections} corrections, {files} waiting files, "
              "{tasks} tasks, {answers} kept answers, {sortings} messages being sorted, {unused} folders not in use").format(**n),
            _("bundles  {bundles} to be made again; {stopped} tasks to be stopped").format(**n)]


def _made_line(made: Remade) -> str:
    if made.status == "void":
        return _("void     {bundle}: out of use and deleted, {why}").format(bundle=made.bundle, why=made.why)
    if made.status == "waiting":
        return _("waits    {bundle}: not made again yet, {why}; give the same command again").format(
            bundle=made.bundle, why=made.why)
    if made.status == "unchanged":
        return _("bundle   {bundle}: another worker has made it again").format(bundle=made.bundle)
    names = {"qualified": _("qualified"), "apprentice": _("apprentice")}
    return _("bundle   {bundle}: made again, {before} → {after}, was {old}, is {new}").format(
        bundle=made.bundle, before=made.before, after=made.after, old=names[made.status_before or "apprentice"],
        new=names[made.status])
