"""Routes of backups, for whoever looks after the server: start one, see which there are.

A backup holds every business of the server. So an owner of another than the first may neither start nor see one, and no
route gives the file out.
"""
from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from machikoba.store import backup, people
from machikoba.web import tasks
from machikoba.web.access import Shop, Who
from machikoba.web.once import IdempotencyKey, once
from machikoba.web.problems import documented
from machikoba.web.shapes import BackupAsked, Backups, TaskShown

router = APIRouter(prefix="/v1/backups", tags=["backups"])


@router.post("", summary="Start a backup", status_code=201, response_model=None,
             responses={201: {"model": TaskShown, "description": "It waits for the worker"},
                        **documented(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507)})
async def back_up(asked: BackupAsked, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Everything that must survive goes into one file on the server, under the passphrase in the worker's MACHIKOBA_PASSPHRASE
    where there is one. Only an owner of the server's first business may."""

    def write(session: Any) -> dict[str, Any]:
        people.must_look_after(session, who)
        return tasks.queued(session, who, "backup", asked.model_dump())

    return await run_in_threadpool(once, shop, who, key, "backup", asked.model_dump(), write)


@router.get("", summary="List the backups", response_model=Backups, responses=documented(401, 403, 503))
async def list_backups(who: Who, shop: Shop) -> Any:
    """Those that may still be there, oldest first, wherever they were written. Only an owner of the first business may."""

    def read() -> list[backup.Known]:
        with shop.database.reading() as session:
            people.must_look_after(session, who)
            return backup.known(session, shop.home)

    return {"backups": [asdict(one) for one in await run_in_threadpool(read)]}
