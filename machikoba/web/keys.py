"""Routes of keys, for the owner: make one, see which there are, end one."""
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from fastapi.responses import Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from machikoba.language import _
from machikoba.store import people
from machikoba.store.tables import Key
from machikoba.web.access import KnownFirst, Shop, Who
from machikoba.web.problems import RequestError, documented
from machikoba.web.shapes import KeyAsked, KeyMade, Keys

router = APIRouter(prefix="/v1/keys", route_class=KnownFirst, tags=["keys"])
FIELDS = ("id", "name", "role", "start", "created_at", "expires_at", "ended_at")


@router.post("", summary="Make a key", status_code=201, response_model=KeyMade,
             responses=documented(400, 401, 403, 408, 413, 415, 422, 503, 507))
async def make(asked: KeyAsked, who: Who, shop: Shop) -> Any:
    """A key for a program, for this business alone. Its secret is shown this once."""
    who.must_be("owner")

    def write() -> dict[str, Any]:
        with shop.database.writing() as session:
            key, secret = people.add_key(session, who.business_id, asked.name, asked.role, who.who, asked.days)
            return {**{field: getattr(key, field) for field in FIELDS}, "secret": secret}

    made = await run_in_threadpool(write)
    shop.visitors.forget()
    return made


@router.get("", summary="List the keys", response_model=Keys, responses=documented(401, 403, 503))
async def list_keys(who: Who, shop: Shop) -> Any:
    """All that were ever made, newest first, without their secrets."""
    who.must_be("owner")

    def read() -> list[Key]:
        with shop.database.reading() as session:
            return list(session.scalars(select(Key).where(Key.business_id == who.business_id).order_by(Key.created_at.desc())))

    return {"keys": [{field: getattr(key, field) for field in FIELDS} for key in await run_in_threadpool(read)]}


@router.delete("/{key}", summary="End a key", status_code=204, responses=documented(401, 403, 404, 422, 503))
async def end(key: Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$", examples=["0" * 32])], who: Who, shop: Shop) -> Response:
    """Within a second it opens nothing any more."""
    who.must_be("owner")

    def write() -> bool:
        with shop.database.writing() as session:
            return people.end_key(session, who.business_id, key, who.who)

    if not await run_in_threadpool(write):
        raise RequestError(404, "key_not_here", _("There is no such key."), next=_("GET /v1/keys lists those that are here."))
    shop.visitors.forget()
    return Response(status_code=204)
