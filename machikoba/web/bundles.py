"""Routes of bundles: what there is, asking them, correcting them, proving them again, taking them elsewhere."""
from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, corrections, promotion, queue
from machikoba.desk.promotion import as_it_stands
from machikoba.engine.runtime import Service
from machikoba.errors import OptionError
from machikoba.language import _
from machikoba.pack.bundle import read_facts
from machikoba.store.people import Visitor
from machikoba.tasks.classify import Prediction
from machikoba.web import tasks
from machikoba.web.access import KnownFirst, Shop, Who, signed_in_only
from machikoba.web.once import IdempotencyKey, once
from machikoba.web.problems import RequestError, documented
from machikoba.web.shapes import (
    Bundles,
    CorrectionAsked,
    Corrections,
    Kept,
    Messages,
    Predicted,
    Predictions,
    Storable,
    TaskShown,
)
from machikoba.web.workshop import Workshop

ANSWER_SECONDS = 30.0  # until an answer is there, or whoever asked is told to come again
router = APIRouter(prefix="/v1/bundles", route_class=KnownFirst, tags=["bundles"])
Named = Annotated[Storable, InPath(description="The bundle's name.", min_length=1, max_length=100, examples=["inquiries"])]


@router.get("", summary="List the bundles", response_model=Bundles, responses=documented(401, 403, 503))
async def list_bundles(who: Who, shop: Shop) -> Any:
    """The bundles of the business, by name."""

    def read() -> list[dict[str, Any]]:
        with shop.database.reading() as session:
            entries = bundles.listed(session, who.business_id)
        glances = shop.engine.glance([bundles.folder_of(entry, shop.home) for entry in entries])
        return [{"name": entry.name, "task": seen.task, "labels": list(seen.labels), "qualified": seen.qualified,
                 "created_at": entry.created_at} for entry, seen in zip(entries, glances, strict=True) if seen]

    return {"bundles": await run_in_threadpool(read)}


@router.post("/{name}/predict", summary="Ask a bundle", response_model=None,
             responses={200: {"model": Predictions, "description": "One prediction for each text, in order"},
                        **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, 507)})
async def predict(name: Named, asked: Messages, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """What the bundle says to each text; up to 1,000 texts at once. A text that is left to a person has `answered` false.

    With `desk` it is a write: sent twice with one Idempotency-Key, its messages come to the desk once.
    """
    if asked.desk:
        who.must_be("staff")
    service = await opened(shop, who.business_id, name)
    found = as_it_stands(await told(shop, service, asked.texts, who.business_id),
                         await state_of(shop, who.business_id, name, service))
    answer = {"bundle": name, "predictions": [{field: getattr(one, field) for field in Predicted.model_fields} for one in found]}
    if not asked.desk:
        return JSONResponse(answer)

    def write(session: Any) -> dict[str, Any]:
        to_the_desk(session, shop, who.business_id, name, service, asked.texts, found, "api")
        return answer

    return await run_in_threadpool(once, shop, who, key, f"predict {name}", asked.model_dump(), write, 200)


@router.post("/{name}/corrections", summary="Correct a bundle", status_code=201, response_model=None,
             responses={201: {"model": Kept, "description": "Kept"},
                        **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503, 507)})
async def correct(name: Named, asked: CorrectionAsked, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Keeps what a person made of a message; it becomes an example of the next tuning. Answered when it is on the disk."""
    who.must_be("staff")
    service = await opened(shop, who.business_id, name)
    if asked.label not in service.labels.names:
        raise OptionError("label_unknown", _("This bundle does not know this label."), expected=", ".join(service.labels.names),
                          found=asked.label, next=_("Choose one of its labels."))

    def write(session: Any) -> dict[str, Any]:
        entry = bundles.find(session, who.business_id, name)
        made = corrections.add(session, entry, asked.text, asked.label, who.who, asked.predicted, asked.confidence)
        return {"id": made.id}

    return await run_in_threadpool(once, shop, who, key, f"correct {name}", asked.model_dump(), write)


@router.get("/{name}/corrections", summary="List the corrections", response_model=Corrections,
            responses=documented(401, 403, 404, 422, 503))
async def list_corrections(name: Named, who: Who, shop: Shop, after: Annotated[
        str | None, Query(max_length=32, description="Id of the last one seen.")] = None) -> Any:
    """What was corrected, oldest first, 200 at a time. Past texts are shown to signed-in staff only, never to a key."""
    who.must_be("staff")
    signed_in_only(who)

    def read() -> list[Any]:
        with shop.database.reading() as session:
            return corrections.listed(session, bundles.find(session, who.business_id, name), after)

    return {"corrections": [{field: getattr(one, field) for field in (
        "id", "text", "label", "predicted", "confidence", "made_by", "created_at")} for one in await run_in_threadpool(read)]}


@router.post("/{name}/replay", summary="Repeat a bundle's proof", status_code=201, response_model=None,
             responses={201: {"model": TaskShown, "description": "It waits for the worker"},
                        **documented(401, 403, 404, 409, 422, 429, 503, 507)})
async def replay(name: Named, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Asks the bundle again what it was proved on, on this machine; the task's result says whether the proof `stands`."""
    return await _work(shop, who, "replay", name, key)


@router.post("/{name}/export", summary="Export a bundle", status_code=201, response_model=None,
             responses={201: {"model": TaskShown, "description": "It waits for the worker"},
                        **documented(401, 403, 404, 409, 422, 429, 503, 507)})
async def export(name: Named, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Makes a zip file for another machine, without past messages; `GET /v1/tasks/{task}/file` then gives it, for a week."""
    return await _work(shop, who, "export", name, key)


async def _work(shop: Workshop, who: Visitor, kind: str, name: str, key: str | None) -> JSONResponse:
    who.must_be("owner")

    def write(session: Any) -> dict[str, Any]:
        entry = bundles.find(session, who.business_id, name)
        return tasks.queued(session, who, kind, {"name": name, "bundle": entry.id})

    return await run_in_threadpool(once, shop, who, key, f"{kind} {name}", None, write)


async def state_of(shop: Workshop, business_id: str, name: str, service: Service) -> str:
    """How the version that was asked stands at work, as of a second ago; "" where it never was. One that another version has
    just replaced answers nothing by itself any more: the state of the other says nothing of it."""
    path = service.bundle.path
    known = shop.states.get((business_id, name, path))
    if known is None:
        def read() -> str:
            with shop.database.reading() as session:
                entry = bundles.find(session, business_id, name)
                if bundles.folder_of(entry, shop.home) != path:
                    return "apprentice"
                return promotion.states(session, [entry.id]).get(entry.id, "")

        known = shop.states.keep((business_id, name, path), await run_in_threadpool(read))
    return known


def to_the_desk(session: Any, shop: Workshop, business_id: str, name: str, service: Service, texts: list[str],
                said: list[Prediction], origin: str) -> int:
    """Puts on the desk what a person shall decide, in the caller's transaction; how many."""
    entry = bundles.find(session, business_id, name)
    folder, draw = bundles.folder_of(entry, shop.home), random.random
    if folder == service.bundle.path:
        facts = service.bundle.facts
    else:  # what a version said that has just been replaced proves nothing of the one that is audited now
        facts, draw = read_facts(folder).facts, lambda: 1.0
    watch = promotion.watch(session, entry, facts)
    return len(queue.take_in(session, entry, watch, texts, said, [one.likely for one in said], origin, draw))


async def opened(shop: Workshop, business_id: str, name: str) -> Service:
    """The business's bundle of this name, ready to answer. Raises BundleError, BaseError, StorageError."""
    known = shop.bundles.get((business_id, name))
    if known is None:
        known = shop.bundles.keep((business_id, name), await run_in_threadpool(_find, shop, business_id, name))
    held = shop.engine.held(known)
    return held if held is not None else await run_in_threadpool(shop.engine.open, known)


async def told(shop: Workshop, service: Service, texts: list[str], business_id: str) -> list[Prediction]:
    """Predictions, waited for as long as is bearable. Raises BusyError, RequestError."""
    future = shop.lanes.ask(service, texts, business_id)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
    except TimeoutError:
        raise RequestError(503, "too_long", _("The answer takes too long."), expected=_("at most {n} seconds").format(
            n=round(ANSWER_SECONDS)), next=_("Ask about fewer texts at once.")) from None


def _find(shop: Workshop, business_id: str, name: str) -> Path:
    with shop.database.reading() as session:
        return bundles.folder_of(bundles.find(session, business_id, name), shop.home)

