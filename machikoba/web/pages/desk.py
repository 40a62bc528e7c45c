"""The desk: one message after the other, one key for each kind; what was decided is on the disk before the next is shown."""
from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, promotion, queue
from machikoba.errors import MachikobaError, RequirementError
from machikoba.language import _
from machikoba.store.people import Visitor
from machikoba.store.tables import BundleEntry, Membership, Person, new_id
from machikoba.web.access import Shop
from machikoba.web.bundles import opened, state_of, to_the_desk, told
from machikoba.web.once import once
from machikoba.web.pages.page import KEYS, Named, Page, Who, fields, fragment, go, problem, render, seconds_of
from machikoba.web.pages.page import told as words_of
from machikoba.web.problems import RequestError, status_of
from machikoba.web.shapes import LONGEST_TEXT, MOST_TEXTS
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)


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
                    "people": _people(session, who), "labels": _labels(shop, entry)}

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
    return render(request, "desk_add.html", name=name, texts="", added=None, answered=[], problem=None, once=new_id())


@router.post("/desk/{name}/add")
async def add(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """Messages that came in, one on each line: what it may answer is told, the rest goes to the desk."""
    who.must_be("staff")
    form = await fields(request)
    typed = form.get("texts", "")
    texts = [line.strip() for line in typed.splitlines() if line.strip()]
    facts: dict[str, Any] = {"name": name, "texts": typed, "added": None, "answered": [], "problem": None, "once": new_id()}
    try:
        if len(texts) > MOST_TEXTS or max(map(len, texts), default=0) > LONGEST_TEXT:
            raise RequestError(422, "too_many_messages", _("That is too much at once."), next=_("Send it in smaller parts."),
                               expected=_("at most {n:,} messages of {characters:,} characters").format(
                                   n=MOST_TEXTS, characters=LONGEST_TEXT))
        service = await opened(shop, who.business_id, name)
        found = promotion.as_it_stands(await told(shop, service, texts, who.business_id),
                                       await state_of(shop, who.business_id, name, service))
        # A page that is loaded again sends the same form: its messages come to the desk once.
        key = form.get("once", "")[:64] or None
        made = await run_in_threadpool(once, shop, who, key, f"desk {name}", texts, lambda session: {
            "added": to_the_desk(session, shop, who.business_id, name, service, texts, found, "page")})
    except MachikobaError as error:
        return render(request, "desk_add.html", status_of(error), **facts | {"problem": words_of(error)})
    answered = [(text, one.label) for text, one in zip(texts, found, strict=True) if one.answered]
    return render(request, "desk_add.html", **facts | {
        "texts": "", "added": json.loads(bytes(made.body))["added"], "answered": answered})


def _write(shop: Workshop, who: Visitor, name: str, form: dict[str, str]) -> dict[str, str] | None:
    with shop.database.writing() as session:
        entry = bundles.find(session, who.business_id, name)
        if form.get("undo"):
            if queue.undo(session, entry, who.who) is None:
                raise RequirementError("undo_none", _("There is nothing to take back any more."),
                                       expected=_("a decision of the last {n} minutes").format(n=promotion.UNDO_MINUTES))
            return None
        label = None if form.get("pass") else form.get("label", "")
        if label is not None and label not in _labels(shop, entry):
            raise RequirementError("label_unknown", _("This sorter does not know this kind."), found=label[:100])
        queue.decide(session, entry, form.get("item", ""), label, who.who, seconds_of(form))
    return None


def _next(shop: Workshop, who: Visitor, name: str, only: str) -> dict[str, Any]:
    """What the page shows: the next message, its kinds with their keys, how many wait."""
    with shop.database.writing() as session:
        entry = bundles.find(session, who.business_id, name)
        labels = _labels(shop, entry)
        item = queue.next_item(session, entry, who.who, only or None)
        counts = queue.counts(session, entry, who.who)
        state = promotion.states(session, [entry.id]).get(entry.id, "")
    blind = item is not None and item.probability is not None
    first = [] if item is None or blind else [label for label in (item.said, *item.others) if label in labels]
    keys = dict(zip(labels, KEYS, strict=False))
    return {"name": name, "item": item, "blind": blind, "suggested": first[0] if first else None, "likely": first[1:],
            "labels": [(label, keys.get(label, "")) for label in labels], "counts": counts, "only": only, "state": state,
            "trouble": None}


def _labels(shop: Workshop, entry: BundleEntry) -> list[str]:
    (glance,) = shop.engine.glance([bundles.folder_of(entry, shop.home)])
    return list(glance.labels) if glance else []


def _people(session: Session, who: Visitor) -> list[tuple[str, str]]:
    return [(person.id, person.name) for person in session.scalars(
        select(Person).join(Membership, Membership.person_id == Person.id).where(Membership.business_id == who.business_id)
        .order_by(Person.name))]
