"""The start page: the sorters of a business, and what is being made."""
from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, promotion, queue
from machikoba.sort import folder
from machikoba.store import jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Business, Job, Membership
from machikoba.web.access import Shop
from machikoba.web.pages.page import STATIC, Page, Who, nothing_here, render
from machikoba.web.pages.work import KINDS
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
KEPT_SECONDS = 365 * 86_400


@router.get("/")
async def home(request: Request, who: Who, shop: Shop) -> Response:
    return render(request, "home.html", **await run_in_threadpool(_facts, shop, who))


def _facts(shop: Workshop, who: Visitor) -> dict[str, Any]:
    with shop.database.reading() as session:
        business = session.get(Business, who.business_id)
        assert business is not None
        entries = bundles.listed(session, who.business_id)
        work = list(session.scalars(select(Job).where(Job.business_id == who.business_id, Job.kind.in_(KINDS),
                                                      Job.state.in_(jobs.KEPT)).order_by(Job.created_at)))
        sorted_ = list(session.scalars(select(Job).where(Job.business_id == who.business_id, Job.kind == "sort",
                                                         Job.state == "done").order_by(Job.created_at)))
        states, waiting = promotion.states(session, [entry.id for entry in entries]), {
            entry.id: queue.waiting(session, entry) for entry in entries}
        mine = session.execute(select(Business.id, Business.name).join(Membership, Membership.business_id == Business.id).where(
            Membership.person_id == who.person_id).order_by(Business.name)).all()
    glances = shop.engine.glance([bundles.folder_of(entry, shop.home) for entry in entries])
    drafts = [job for job in work if job.state == "draft" and who.role == "owner"]
    sortings = [job for job in sorted_ if folder.place(shop.home, who.business_id, job.id).is_dir()]
    return {"business": business.name, "sortings": sortings if who.role != "viewer" else [],
            "businesses": [tuple(one) for one in mine], "drafts": drafts,
            "working": [job for job in work if job.state != "draft"],
            "sorters": [{"name": entry.name, "seen": glance, "waiting": waiting[entry.id],
                         "state": states.get(entry.id, "qualified" if glance and glance.qualified else "apprentice")}
                        for entry, glance in zip(entries, glances, strict=True)]}


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """What pages are made of; its address changes with its content."""
    path = STATIC / name
    if path.parent != STATIC or not path.is_file():
        raise nothing_here()
    return FileResponse(path, headers={"Cache-Control": f"public, max-age={KEPT_SECONDS}, immutable"})
