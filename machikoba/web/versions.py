"""Routes of a bundle's versions: let it learn from its corrections, see what it was, go back."""
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, versions
from machikoba.store.people import Visitor
from machikoba.store.tables import Version
from machikoba.web import tasks
from machikoba.web.access import KnownFirst, Shop, Who
from machikoba.web.bundles import Named
from machikoba.web.once import IdempotencyKey, once
from machikoba.web.problems import documented
from machikoba.web.shapes import TaskShown, Versions, VersionShown
from machikoba.web.workshop import Workshop

router = APIRouter(prefix="/v1/bundles", route_class=KnownFirst, tags=["bundles"])
Number = Annotated[int, InPath(description="The version's number.", ge=1, le=1_000_000, examples=[1])]


@router.post("/{name}/tune-again", summary="Let a bundle learn from its corrections", status_code=201, response_model=None,
             responses={201: {"model": TaskShown, "description": "It waits for the worker"},
                        **documented(401, 403, 404, 409, 422, 429, 503, 507)})
async def tune_again(name: Named, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Makes a new version from the examples and what people decided since. It is taken into use if it is as often right as the
    one before, on messages that both know; the task's result says whether, and why."""
    who.must_be("owner")
    return await run_in_threadpool(once, shop, who, key, f"again {name}", None, lambda session: tasks.queued(
        session, who, "again", versions.options(session, bundles.find(session, who.business_id, name), shop.home)))


@router.get("/{name}/versions", summary="List a bundle's versions", response_model=Versions,
            responses=documented(401, 403, 404, 422, 503))
async def list_versions(name: Named, who: Who, shop: Shop) -> Any:
    """What it was and is, newest first."""

    def read() -> list[Version]:
        with shop.database.reading() as session:
            return versions.history(session, bundles.find(session, who.business_id, name), shop.home)

    return {"versions": [shown(one) for one in await run_in_threadpool(read)]}


@router.post("/{name}/versions/{number}/use", summary="Let a version answer", response_model=VersionShown,
             responses=documented(401, 403, 404, 409, 422, 503, 507))
async def use(name: Named, number: Number, who: Who, shop: Shop) -> Any:
    """Goes back to an earlier version, or on to a later one. How it stands at work begins anew. Done twice, it is done once."""
    who.must_be("owner")
    return await run_in_threadpool(taken_into_use, shop, who, name, number)


def taken_into_use(shop: Workshop, who: Visitor, name: str, number: int) -> dict[str, Any]:
    """Lets the version answer from now on; the version. Raises BundleError, RequirementError, StorageError."""
    with shop.database.writing() as session:
        entry = bundles.find(session, who.business_id, name)
        found = versions.find(session, entry, number, shop.home)
        versions.use(session, entry, found, shop.home, who.who)
        told = shown(found)
    shop.bundles.forget()
    shop.states.forget()
    return told


def shown(one: Version) -> dict[str, Any]:
    """A version as the API shows it."""
    return {"number": one.number, "made_at": one.made_at, "in_use_since": one.since, "kept": one.removed_at is None,
            "facts": one.facts}
