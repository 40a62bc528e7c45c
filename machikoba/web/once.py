"""A write that is sent twice is done once: the answer is kept with its idempotency key, in the same transaction."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import JSONResponse
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from machikoba.language import _
from machikoba.store.people import Visitor
from machikoba.store.tables import WRITES_KEPT_HOURS, Write, now
from machikoba.web.problems import RequestError
from machikoba.web.workshop import Workshop

IdempotencyKey = Annotated[str | None, Header(
    alias="Idempotency-Key", min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$",
    description="Of your choice, new for each write: the same write sent again with it is done once.")]


def once(shop: Workshop, who: Visitor, key: str | None, route: str, asked: Any, write: Callable[[Session], Any],
         status: int = 201) -> JSONResponse:
    """What `write` gives, as the answer; with a key that was used before, the answer that was given then.

    write: changes the store in the session it gets, and gives what JSON can hold. asked: what tells this request from
    another. Raises RequestError, idempotency_conflict, where the key was used for another request.
    """
    if key is None:
        with shop.database.writing() as session:
            return JSONResponse(write(session), status)
    digest = hashlib.sha256(json.dumps([route, asked], ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    try:
        with shop.database.writing() as session:
            if (known := session.get(Write, (who.business_id, key))) is not None:
                return _again(known, digest)
            given = write(session)
            session.execute(delete(Write).where(Write.created_at < now() - timedelta(hours=WRITES_KEPT_HOURS)))
            session.add(Write(business_id=who.business_id, key=key, digest=digest, status=status, answer=given))
        return JSONResponse(given, status)
    except IntegrityError:  # the same request at the same moment was quicker; its answer is there now
        with shop.database.reading() as session:
            known = session.get(Write, (who.business_id, key))
            if known is None:
                raise
            return _again(known, digest)


def _again(known: Write, digest: str) -> JSONResponse:
    if known.digest != digest:
        raise RequestError(409, "idempotency_conflict", _("This key was used for another request."),
                           next=_("Send a new Idempotency-Key with every new request."))
    return JSONResponse(known.answer, known.status, {"Idempotent-Replay": "true"})
