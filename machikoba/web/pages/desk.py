"""The desk: one message after the other, one key for each kind; what was decided is on the disk before the next is shown."""
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, promotion, queue
from machikoba.errors import MachikobaError, RequirementError
from machikoba.language import _
from machikoba.store.people import Visitor
from machikoba.store.tables import Membership, Person
from machikoba.web.access import Shop
from machikoba.web.bundles import opened, state_of, to_the_desk, told
from machikoba.web.pages.page import Page, fields, fragment, go, problem, render, seen
from machikoba.web.pages.page import told as words_of
from machikoba.web.shapes import LONGEST_TEXT, MOST_TEXTS
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
Named = Annotated[str, InPath(max_length=100)]
Who = Annotated[Visitor, Depends(seen)]
KEYS = "1234567890qwertyuiopasdfghjklxcvbnm"  # of the kinds, in their order; z takes back, space passes over


@router.get("/desk/{name}")
async def show(request: Request, name: Named, who: Who, shop: Shop, only: str = "") -> Response:
    who.must_be("staff")
    return render(request, "desk.html", **await run_in_threadpool(_next, shop, who, name, only))


@router.post("/desk/{name}")
async def decide(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """Keeps a decision, or takes the last one back, and shows the next message."""
    who.must_be("staff")
    form = await fields(request)
    only = form.get("only", "")
    try:
        trouble = await run_in_threadpool(_write, shop, who, name, form)
    except RequirementError as error:  # somebody else was quicker: nothing is lost, the next one comes
        trouble = words_of(error)
    shop.states.forget()
    if "application/json" in request.headers.get("accept", ""):
        facts = await run_in_threadpool(_next, shop, who, name, only)
        return JSONResponse({"html": fragment(request, "desk_item.html", **facts | {"trouble": trouble})})
    if trouble:
        return render(request, "desk.html", 409, **await run_in_threadpool(_next, shop, who, name, only) | {"trouble": trouble})
    return go(request.url.path + (f"?only={only}" if only else ""))


@router.get("/desk/{name}/all")
async def search(request: Request, name: Named, who: Who, shop: Shop, words: str = "", state: str = "",
                 kind: str = "") -> Response:
    """Messages found by their words, open or decided."""
    who.must_be("staff")

    def read() -> dict[str, Any]:
        with shop.database.reading() as session:
            entry = bundles.find(session, who.business_id, name)
            return {"items": queue.search(session, entry, words[:200], state or None, kind or None),
                    "people": _people(session, who), "labels": _labels(shop, who, name)}

    facts = await run_in_threadpool(read)
    return render(request, "desk_all.html", name=name, words=words, state=state, kind=kind, **facts)


@router.post("/desk/{name}/assign/{item}")
async def assign(request: Request, name: Named, item: str, who: Who, shop: Shop) -> Response:
    who.must_be("staff")
    person = (await fields(request)).get("person") or None

    def write() -> None:
        with shop.database.writing() as session:
            entry = bundles.find(session, who.business_id, name)
            if person is not None and session.get(Membership, (person, who.business_id)) is None:
                raise RequirementError("person_unknown", _("There is no such person here."),
                                       next=_("Look at the list of people."))
            queue.assign(session, entry, item, person, who.who)

    try:
        await run_in_threadpool(write)
    except RequirementError as error:
        return problem(request, error)
    return go(f"/desk/{name}/all?state=open")


@router.get("/desk/{name}/add")
async def add_page(request: Request, name: Named, who: Who) -> Response:
    who.must_be("staff")
    return render(request, "desk_add.html", name=name, texts="", added=None, answered=0, problem=None)


@router.post("/desk/{name}/add")
async def add(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """Messages that came in, one on each line: what it may answer is told, the rest goes to the desk."""
    who.must_be("staff")
    typed = (await fields(request)).get("texts", "")
    texts = [line.strip()[:LONGEST_TEXT] for line in typed.splitlines() if line.strip()][:MOST_TEXTS]
    facts: dict[str, Any] = {"name": name, "texts": typed, "added": None, "answered": 0, "problem": None}
    if texts:
        try:
            service = await opened(shop, who.business_id, name)
            found = promotion.as_it_stands(await told(shop, service, texts, who.business_id),
                                           await state_of(shop, who.business_id, name))
            added = await run_in_threadpool(to_the_desk, shop, who.business_id, name, service, texts, found, "page")
        except MachikobaError as error:
            return render(request, "desk_add.html", 503, **facts | {"problem": words_of(error)})
        facts |= {"texts": "", "added": added, "answered": sum(one.answered for one in found)}
    return render(request, "desk_add.html", **facts)


def _write(shop: Workshop, who: Visitor, name: str, form: dict[str, str]) -> dict[str, str] | None:
    with shop.database.writing() as session:
        entry = bundles.find(session, who.business_id, name)
        if form.get("undo"):
            if queue.undo(session, entry, who.who) is None:
                raise RequirementError("undo_none", _("There is nothing to take back any more."),
                                       expected=_("a decision of the last {n} minutes").format(n=promotion.UNDO_MINUTES))
            return None
        label = None if form.get("pass") else form.get("label", "")
        if label is not None and label not in _labels(shop, who, name):
            raise RequirementError("label_unknown", _("This sorter does not know this kind."), found=label[:100])
        queue.decide(session, entry, form.get("item", ""), label, who.who, _seconds(form))
    return None


def _next(shop: Workshop, who: Visitor, name: str, only: str) -> dict[str, Any]:
    """What the page shows: the next message, its kinds with their keys, how many wait."""
    labels = _labels(shop, who, name)
    with shop.database.writing() as session:
        entry = bundles.find(session, who.business_id, name)
        item = queue.next_item(session, entry, who.who, only or None)
        counts = queue.counts(session, entry, who.who)
        state = promotion.states(session, [entry.id]).get(entry.id, "")
    blind = item is not None and item.probability is not None
    first = [] if item is None or blind else [label for label in (item.said, *item.others) if label in labels]
    keys = dict(zip(labels, KEYS, strict=False))
    return {"name": name, "item": item, "blind": blind, "suggested": first[0] if first else None, "likely": first[1:],
            "labels": [(label, keys.get(label, "")) for label in labels], "counts": counts, "only": only, "state": state,
            "trouble": None}


def _labels(shop: Workshop, who: Visitor, name: str) -> list[str]:
    with shop.database.reading() as session:
        folder = bundles.folder_of(bundles.find(session, who.business_id, name), shop.home)
    (glance,) = shop.engine.glance([folder])
    return list(glance.labels) if glance else []


def _people(session: Session, who: Visitor) -> list[tuple[str, str]]:
    return [(person.id, person.name) for person in session.scalars(
        select(Person).join(Membership, Membership.person_id == Person.id).where(Membership.business_id == who.business_id)
        .order_by(Person.name))]


def _seconds(form: dict[str, str]) -> float | None:
    try:
        return float(form["seconds"])
    except (KeyError, ValueError):
        return None
