"""What a sorter was, is and can be again; it learns from what people decided."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, corrections, versions
from machikoba.errors import MachikobaError
from machikoba.language import _, _n
from machikoba.store import jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Job
from machikoba.web.access import Shop
from machikoba.web.pages.page import Named, Page, Who, fields, go, number, render, told
from machikoba.web.problems import status_of
from machikoba.web.tasks import must_have_room
from machikoba.web.versions import taken_into_use
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/bundles/{name}/versions")
async def show(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    return render(request, "versions.html", problem=None, **await run_in_threadpool(_facts, shop, who, name))


@router.post("/bundles/{name}/learn")
async def learn(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """Begins to learn; what is learning already is followed."""
    who.must_be("owner")

    def write() -> Job:
        with shop.database.writing() as session:
            entry = bundles.find(session, who.business_id, name)
            under_way = versions.learning(session, entry)
            if under_way is not None:
                return under_way
            must_have_room(session, who.business_id)
            return jobs.add(session, who.business_id, "again", versions.options(session, entry, shop.home), who.who)

    try:
        job = await run_in_threadpool(write)
    except MachikobaError as error:
        return await _trouble(request, shop, who, name, error)
    return go(f"/work/{job.id}")


@router.post("/bundles/{name}/versions")
async def use(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """Goes to another version."""
    who.must_be("owner")
    wanted = (await fields(request)).get("number", "")
    try:
        await run_in_threadpool(taken_into_use, shop, who, name, int(wanted) if wanted.isdecimal() else 0)
    except MachikobaError as error:
        return await _trouble(request, shop, who, name, error)
    return go(f"/bundles/{quote(name, safe='')}/versions")


async def _trouble(request: Request, shop: Workshop, who: Visitor, name: str, error: MachikobaError) -> Response:
    facts = await run_in_threadpool(_facts, shop, who, name)
    return render(request, "versions.html", status_of(error), problem=told(error), **facts)


def _facts(shop: Workshop, who: Visitor, name: str) -> dict[str, Any]:
    with shop.database.reading() as session:
        entry = bundles.find(session, who.business_id, name)
        found = versions.history(session, entry, shop.home)
        job = versions.learning(session, entry)
        new = corrections.since(session, entry, versions.in_use(found).made_at)
    return {"name": name, "versions": [{"one": one, "why": why(one.facts)} for one in found], "job": job, "new": new}


def why(facts: Mapping[str, Any]) -> str:
    """Why a version was taken into use or not, in a sentence or two; facts: of the version, or of the work that made it."""
    compared = facts.get("comparison") or {}
    figures = {"rows": number(compared.get("rows", 0)), "new": number(compared.get("new_right", 0)),
               "old": number(compared.get("old_right", 0))}
    both = _("Of {rows} messages that both know and had not seen, it sorted {new} rightly, the one before {old}.").format(
        **figures)
    forms = {
        versions.ORIGINAL: _("The first one."),
        versions.AS_GOOD: both,
        versions.WORSE: both + _(" It is not sure enough that it is as good, so the one before stays."),
        versions.FEW: _n("Only {n} message is known to both: too few to compare them, so the one before stays.",
                         "Only {n} messages are known to both: too few to compare them, so the one before stays.",
                         compared.get("rows", 0)).format(n=figures["rows"]),
        versions.UNKNOWN: _("It could not be compared with the one before, so that one stays."),
        versions.UNPROVED: both + _(" But its test did not earn the promise, and it would answer nothing by itself; so the one "
                                    "before stays."),
        versions.CHANGED: _("Another version was taken into use while it was made, so it is only kept."),
    }
    return forms.get(str(facts.get("why")), "")


def learnt(facts: Mapping[str, Any]) -> str:
    """What a version learnt from, in a sentence."""
    counts = facts.get("learnt") or {}
    return _("New messages: {new}. Known ones that are of another kind now: {changed}. Left out, because their kind is still too "
             "rare: {left}.").format(new=number(counts.get("handoff", 0) + counts.get("audit", 0)),
                                     changed=number(counts.get("changed", 0)), left=number(counts.get("left_out", 0)))
