"""Sorting messages that have no kinds yet: kinds proposed and chosen, one message after the other, and a sorter made of it."""
from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session as Rows
from starlette.concurrency import run_in_threadpool

from machikoba.errors import MachikobaError, OptionError, RequirementError
from machikoba.language import _
from machikoba.records.check import LEAST_PER_LABEL
from machikoba.sort import folder
from machikoba.sort.answers import NOTHING, SKIPPED
from machikoba.sort.session import Session, facts
from machikoba.store import audit, jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Job
from machikoba.web.access import Shop
from machikoba.web.pages import outlooks
from machikoba.web.pages.page import KEYS, Id, Page, Who, fields, fragment, go, nothing_here, render, seconds_of, several, told
from machikoba.web.pages.start import change_draft, keep_draft
from machikoba.web.tasks import must_have_room
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
MOST_NAME = 60  # characters of a kind
SHOWN = 100  # messages of a kind
SHOWN_PROPOSALS = 12  # at first: the largest; nobody reads thirty before beginning


@router.post("/start/{job_id}/sort")
async def begin(job_id: Id, who: Who, shop: Shop, request: Request) -> Response:
    """The file has no kinds: what is alike in it is put together, then the sorting begins."""
    form = await fields(request)

    def write(session: Rows, job: Job) -> None:
        job.kind, job.options = "sort", {**job.options, "text": form.get("text", ""), "sheet": form.get("sheet", ""), "label": ""}
        must_have_room(session, who.business_id)
        session.flush()  # what `start` reads anew
        jobs.start(session, job, who.who)

    await run_in_threadpool(change_draft, shop, who, job_id, write)
    return go(f"/work/{job_id}")


@router.get("/sort/{job_id}")
async def show(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    job = await run_in_threadpool(_job, shop, who, job_id)
    if job.state != "done":
        return go(f"/work/{job_id}")
    found = await run_in_threadpool(_next, shop, who, job)
    return render(request, "sort.html", **found) if found["kinds"] else go(f"/sort/{job_id}/kinds")


@router.post("/sort/{job_id}")
async def decide(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """Keeps an answer, or takes the last step back, and shows the next message."""
    job = await run_in_threadpool(_job, shop, who, job_id)
    form = await fields(request)
    trouble = await run_in_threadpool(_tried, shop, who, job, lambda session: _answer(session, who, form))
    if "application/json" in request.headers.get("accept", ""):
        found = await run_in_threadpool(_next, shop, who, job)
        return JSONResponse({"html": fragment(request, "sort_item.html", **found | {"trouble": trouble})})
    if trouble:
        return render(request, "sort.html", 409, **await run_in_threadpool(_next, shop, who, job) | {"trouble": trouble})
    return go(f"/sort/{job_id}")


@router.get("/sort/{job_id}/kinds")
async def kinds(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """The kinds there are, and those proposed."""
    job = await run_in_threadpool(_job, shop, who, job_id)
    return render(request, "sort_kinds.html", **await run_in_threadpool(_kinds, shop, job))


@router.post("/sort/{job_id}/kinds")
async def change_kinds(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """Takes over proposals, or names, merges or parts kinds."""
    job = await run_in_threadpool(_job, shop, who, job_id)
    form, chosen = await fields(request), await several(request, "chosen")
    trouble = await run_in_threadpool(_tried, shop, who, job, lambda session: _change(session, who, form, chosen))
    if trouble:
        return render(request, "sort_kinds.html", 409, **await run_in_threadpool(_kinds, shop, job) | {"trouble": trouble})
    return go(f"/sort/{job_id}" if form.get("do") == "take" else f"/sort/{job_id}/kinds")


@router.get("/sort/{job_id}/kinds/{label}")
async def one_kind(request: Request, job_id: Id, label: int, who: Who, shop: Shop) -> Response:
    """The messages of a kind, to look through and to part."""
    job = await run_in_threadpool(_job, shop, who, job_id)
    return render(request, "sort_kind.html", **await run_in_threadpool(_kind, shop, job, label))


@router.post("/sort/{job_id}/kinds/{label}")
async def part(request: Request, job_id: Id, label: int, who: Who, shop: Shop) -> Response:
    """Moves some messages of a kind to a new one."""
    job = await run_in_threadpool(_job, shop, who, job_id)
    form, messages = await fields(request), await several(request, "message")
    trouble = await run_in_threadpool(_tried, shop, who, job, lambda session: session.do(who.who, {
        "do": "split", "label": label, "messages": messages, "name": _named(form)}))
    if trouble:
        found = await run_in_threadpool(_kind, shop, job, label)
        return render(request, "sort_kind.html", 409, **found | {
            "trouble": trouble, "chosen": set(messages), "name": form.get("name", "")})
    return go(f"/sort/{job_id}/kinds")


@router.post("/sort/{job_id}/make")
async def make(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """What was sorted becomes a file, and the way from a file to a sorter begins."""
    who.must_be("owner")
    job = await run_in_threadpool(_job, shop, who, job_id)

    def write() -> Job:
        with shop.sortings.at(_folder(shop, job)) as session:
            table, options = _table(session)
        stem = Path(job.options["filename"]).stem
        name = _("{name} (sorted).csv").format(name=stem)
        return keep_draft(shop, who, name, io.BytesIO(table), options)[0]

    try:
        draft = await run_in_threadpool(write)
    except MachikobaError as error:
        return render(request, "sort.html", 409, **await run_in_threadpool(_next, shop, who, job) | {"trouble": told(error)})
    return go(f"/start/{draft.id}")


@router.post("/sort/{job_id}/delete")
async def delete(job_id: Id, who: Who, shop: Shop) -> Response:
    """Takes a sorting away, with all its messages."""
    who.must_be("owner")
    job = await run_in_threadpool(_job, shop, who, job_id)

    def write() -> None:
        with shop.database.writing() as session:
            audit.record(session, who.who, "sorting.delete", f"job:{job.id}", who.business_id)
        folder.remove(_folder(shop, job))

    await run_in_threadpool(write)
    return go("/")


def _job(shop: Workshop, who: Visitor, job_id: str) -> Job:
    """The sorting's job. Raises AccessError, RequestError."""
    who.must_be("staff")
    with shop.database.reading() as session:
        job = session.get(Job, job_id)
    if job is None or job.business_id != who.business_id or job.kind != "sort":
        raise nothing_here()
    return job


def _folder(shop: Workshop, job: Job) -> Path:
    return folder.place(shop.home, job.business_id, job.id)


def _tried(shop: Workshop, who: Visitor, job: Job, work: Callable[[Session], object]) -> dict[str, str] | None:
    """Does something with the session; what went wrong, as a page tells it. Raises RequirementError where it is gone."""
    with shop.sortings.at(_folder(shop, job)) as session:
        try:
            work(session)
        except (OptionError, RequirementError) as error:
            return told(error)
        except (ValueError, KeyError):  # of a page that was shown long ago, or by another clerk's change in the meantime
            return told(RequirementError("sorting_changed", _("This can no longer be done: something has changed meanwhile."),
                                         next=_("Look at it again and go on.")))
    return None


def _answer(session: Session, who: Visitor, form: dict[str, str]) -> None:
    message, seconds = form.get("item", ""), seconds_of(form)
    if form.get("undo"):
        try:
            session.undo(who.who)
        except ValueError:
            raise RequirementError("undo_none", _("There is nothing to take back any more.")) from None
    elif form.get("pass"):
        session.do(who.who, {"do": "answer", "message": message, "label": SKIPPED, "seconds": seconds})
    elif form.get("none"):
        session.do(who.who, {"do": "answer", "message": message, "label": NOTHING, "seconds": seconds})
    elif "new" in form:
        name = _named(form, "new")
        there = next((label for label, other in session.answers.names.items() if other == name), None)
        session.do(who.who, {"do": "new", "name": name, "message": message, "seconds": seconds} if there is None else
                   {"do": "answer", "message": message, "label": there, "seconds": seconds})
    elif form.get("at_random"):
        session.do(who.who, {"do": "at_random", "on": form["at_random"] == "1"})
    else:
        session.do(who.who, {"do": "answer", "message": message, "label": int(form.get("label", "")), "seconds": seconds})


def _change(session: Session, who: Visitor, form: dict[str, str], chosen: list[str]) -> None:
    what = form.get("do")
    if what == "take":  # proposals; a name that is there already is not taken twice
        for number in chosen:
            name = _named(form, f"name-{number}")
            if name not in session.answers.names.values():
                session.do(who.who, {"do": "new", "name": name})
    elif what == "new":
        session.do(who.who, {"do": "new", "name": _named(form)})
    elif what == "rename":
        session.do(who.who, {"do": "rename", "label": int(form["label"]), "name": _named(form)})
    elif what == "merge":
        session.do(who.who, {"do": "merge", "label": int(form["label"]), "into": int(form["into"])})
    else:
        session.undo(who.who)


def _named(form: dict[str, str], field: str = "name") -> str:
    """The name of a kind. Raises OptionError."""
    name = " ".join(form.get(field, "").split())
    if not 1 <= len(name) <= MOST_NAME or any(ord(c) < 32 for c in name):
        raise OptionError("kind_unusable", _("A kind needs a name."), expected=_("1 to {n} characters").format(n=MOST_NAME),
                          found=name[:MOST_NAME], next=_("Write a short name, such as “Parking”."))
    return name


def _next(shop: Workshop, who: Visitor, job: Job) -> dict[str, Any]:
    """What the page shows: the next message, the kinds with their keys, how far it is."""
    with shop.sortings.at(_folder(shop, job)) as session:
        asked = session.question(who.who)
        names, counts, how = dict(session.answers.names), session.counts(), facts(session)
        random = session.at_random
        words = outlooks.words(session, how)
        ready = _ready(session)
    keys = dict(zip(names, KEYS, strict=False))
    kinds = [(label, name, keys.get(label, ""), counts[label]) for label, name in names.items()]
    return {"job": job, "asked": asked, "kinds": kinds, "names": names, "how": how, "outlook": words, "ready": ready,
            "at_random": random, "trouble": None}


def _kinds(shop: Workshop, job: Job) -> dict[str, Any]:
    with shop.sortings.at(_folder(shop, job)) as session:
        names, counts, pool = dict(session.answers.names), session.counts(), session.pool
        proposals = [(i, one, [pool.texts[pool.row[m]] for m in one.messages[:3] if m in pool.row])
                     for i, one in enumerate(session.proposals) if one.name not in names.values()]
        return {"job": job, "names": names, "counts": counts, "proposals": proposals, "trouble": None, "shown": SHOWN_PROPOSALS,
                "advice": outlooks.advice(session), "begun": bool(session.answers.given)}


def _kind(shop: Workshop, job: Job, label: int) -> dict[str, Any]:
    """Messages of a kind; those of one of two topics that seem to be in it are chosen beforehand."""
    with shop.sortings.at(_folder(shop, job)) as session:
        if label not in session.answers.names:
            raise nothing_here()
        rows = [m for m, other in session.answers.given.items() if other == label and m in session.pool.row]
        parted = next((one for one in outlooks.divided(session) if one["label"] == label), None)
        return {"job": job, "label": label, "kind": session.answers.names[label], "trouble": None,
                "messages": [(m, session.pool.texts[session.pool.row[m]]) for m in rows[:SHOWN]],
                "chosen": set(parted["messages"][1]) if parted else set(), "name": parted["names"][1] if parted else ""}


def _ready(session: Session) -> bool:
    counts = session.counts()
    return sum(counts[label] >= LEAST_PER_LABEL for label in session.answers.names) >= 2


def _table(session: Session) -> tuple[bytes, dict[str, str]]:
    """What was sorted as a file, and how a tuning reads it. What fits no kind, or one that is still too small, is left to a
    person. Raises RequirementError."""
    if not _ready(session):
        raise RequirementError("sorted_too_little", _("Not enough is sorted yet."),
                               expected=_("two kinds with {n} messages each").format(n=LEAST_PER_LABEL),
                               next=_("Sort some more messages."))
    counts, names = session.counts(), session.answers.names
    rest = _("Something else")
    while rest in names.values():
        rest += "…"
    columns = {"text": _("Message"), "label": _("Kind"), "date": _("Date")}
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(columns.values())
    others = False
    for text, date, label in session.sorted_rows():
        known = label != NOTHING and counts[label] >= LEAST_PER_LABEL
        others |= not known
        writer.writerow((text, names[label] if known else rest, date or ""))
    return table.getvalue().encode("utf-8-sig"), {
        "text": columns["text"], "label": columns["label"], "none_label": rest if others else ""}
