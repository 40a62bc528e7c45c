"""A work that takes minutes: followed live, stopped, come back to."""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from machikoba.store import jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Job
from machikoba.web.access import Shop
from machikoba.web.pages import steps, versions
from machikoba.web.pages.page import Id, Page, Who, fragment, go, nothing_here, render
from machikoba.web.problems import for_people
from machikoba.web.tasks import delete_upload, shown
from machikoba.web.workshop import Workshop

KINDS = ("tune", "sort", "again")  # that a page follows
router = APIRouter(route_class=Page, include_in_schema=False)
LOOK_SECONDS = 1.0
MOST_SECONDS = 600.0  # of one stream; the browser asks again by itself


@router.get("/work/{job_id}")
async def follow(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    job = await run_in_threadpool(_own, shop, who, job_id)
    if job.state == "draft":
        return go(f"/start/{job.id}")
    return render(request, "work.html", **_facts(job, who))


@router.get("/work/{job_id}/events")
async def events(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """Server-sent events: what stands on the page, anew whenever it changes."""
    await run_in_threadpool(_own, shop, who, job_id)

    async def told() -> AsyncIterator[str]:
        before, left = "", MOST_SECONDS
        while left > 0 and not shop.stopping and not await request.is_disconnected():
            job = await run_in_threadpool(_own, shop, who, job_id)
            now = fragment(request, "work_live.html", **_facts(job, who))
            if now != before:
                yield f"data: {json.dumps({'html': now, 'open': job.state in jobs.OPEN})}\n\n"
                before = now
            if job.state not in jobs.OPEN:
                return
            left -= LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    return StreamingResponse(told(), media_type="text/event-stream")


@router.post("/work/{job_id}/cancel")
async def cancel(job_id: Id, who: Who, shop: Shop) -> Response:
    who.must_be("owner")

    def write() -> bool:
        with shop.database.writing() as session:
            job = session.get(Job, job_id)
            if job is None or job.business_id != who.business_id or job.kind not in KINDS:
                raise nothing_here()
            draft = job.state == "draft"
            jobs.cancel(session, job, who.who)
        delete_upload(shop.home, job)
        return draft

    return go("/" if await run_in_threadpool(write) else f"/work/{job_id}")


def _own(shop: Workshop, who: Visitor, job_id: str) -> Job:
    with shop.database.reading() as session:
        job = session.get(Job, job_id)
    if job is None or job.business_id != who.business_id or job.kind not in KINDS:
        raise nothing_here()
    return job


def _facts(job: Job, who: Visitor) -> dict[str, Any]:
    at_work, failed = job.state in jobs.OPEN, shown(job, who)["error"]
    ended = job.result if job.kind == "again" and job.result else None
    return {"job": job, "open": at_work, "state": steps.state(job), "doing": steps.doing(job), "ended": ended and {
                "used": ended["used"], "why": versions.why(ended), "learnt": versions.learnt(ended)},
            "failed": for_people(failed) if failed else None,
            "steps": steps.shown(job.steps, job.state == "running")}
