"""Routes of the owner's duties: forget a person, and how long texts are kept."""
from __future__ import annotations

import hashlib
import json
import logging
import secrets
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba.desk import forget, receipt, retention
from machikoba.errors import StorageError
from machikoba.records.person import Person
from machikoba.store import audit
from machikoba.store.people import Visitor
from machikoba.store.tables import Business
from machikoba.web.access import Shop, Who, signed_in_only
from machikoba.web.once import IdempotencyKey, once
from machikoba.web.problems import documented
from machikoba.web.shapes import Asked, Storable, whole
from machikoba.web.workshop import Workshop

log = logging.getLogger("machikoba.web")
router = APIRouter(prefix="/v1", tags=["privacy"])
MOST_SHOWN = 1_000  # rows of a look
SALT = secrets.token_bytes(32)  # what was asked for is told from other requests, but cannot be guessed from what is kept
Known = Annotated[Storable, Field(min_length=1, max_length=500, examples=["090-1234-5678"])]


class ForgetAsked(Asked):
    """texts: what is known of the person: phone, mail, name, LINE id, or ids of messages."""

    texts: list[Known] = Field(min_length=1, max_length=20)
    dry_run: bool = False
    void: bool = False
    at_most: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole)] = forget.MOST_ROWS


class RowShown(BaseModel):
    kind: str
    place: str
    id: str
    text: str


class NamedShown(BaseModel):
    kind: str
    id: str


class BackupShown(BaseModel):
    id: str
    made: str
    until: str | None


class ReceiptShown(BaseModel):
    """receipt: its number, null after a look; found: how many of each kind; rows: only after a look; tasks: those that make
    bundles again; stopped: those that were stopped; notes: what else is to be known, in your language."""

    receipt: str | None
    at: str
    found: dict[str, int]
    rows: list[RowShown]
    tasks: list[str]
    stopped: list[str]
    unsearched: list[str]
    named: list[NamedShown]
    backups: list[BackupShown]
    put_aside: list[str]
    notes: list[str]


class RetentionAsked(Asked):
    retention_days: Annotated[int, Field(ge=1, le=retention.MOST_DAYS), BeforeValidator(whole)] | None


class BusinessShown(BaseModel):
    """retention_days: how long texts are kept; null: until somebody deletes them."""

    id: str
    name: str
    retention_days: int | None


@router.post("/forget", summary="Forget a person", response_model=None,
             responses={200: {"model": ReceiptShown, "description": "The receipt"},
                        **documented(400, 401, 403, 408, 409, 413, 415, 422, 503, 507)})
async def forget_person(asked: ForgetAsked, who: Who, shop: Shop, key: IdempotencyKey = None) -> JSONResponse:
    """Takes every message of a person away, at once; tasks make the bundles that learnt from them again, or with `void` take
    them out of use. With `dry_run` only shows what would go. More than `at_most` places are refused."""
    who.must_be("owner")
    signed_in_only(who)
    person = Person.known_by(asked.texts)
    if asked.dry_run:
        return JSONResponse(await run_in_threadpool(_look, shop, who, person))

    def write() -> JSONResponse:
        kept = json.dumps(asked.model_dump(), sort_keys=True).encode()
        made = once(shop, who, key, "forget", hashlib.blake2b(kept, key=SALT).hexdigest(),
                    lambda session: _forget(session, shop, who, person, asked), 200)
        try:
            shop.database.scrub()
        except StorageError as error:
            log.warning("%s: deleted rows are overwritten a little later", error.code)
        return made

    return await run_in_threadpool(write)


@router.get("/business", summary="Look at the business", response_model=BusinessShown, responses=documented(401, 403, 503))
async def show_business(who: Who, shop: Shop) -> Any:
    """Its name, and how many days it keeps texts."""
    who.must_be("owner")

    def read() -> Business | None:
        with shop.database.reading() as session:
            return session.get(Business, who.business_id)

    return _shown(await run_in_threadpool(read))


@router.put("/business", summary="Change the business", response_model=BusinessShown,
            responses=documented(400, 401, 403, 408, 413, 415, 422, 503, 507))
async def change_business(asked: RetentionAsked, who: Who, shop: Shop) -> Any:
    """How many days texts are kept: corrections, ended tasks and the messages in bundles. The worker deletes older ones within
    an hour; a bundle without its messages still answers, but can be proved again on no other machine."""
    who.must_be("owner")

    def write() -> Business | None:
        with shop.database.writing() as session:
            business = session.get(Business, who.business_id)
            assert business is not None
            retention.set_days(session, business, asked.retention_days, who.who)
            return business

    return _shown(await run_in_threadpool(write))


def _look(shop: Workshop, who: Visitor, person: Person) -> dict[str, Any]:
    with shop.database.reading() as session:
        found = forget.find(session, who.business_id, person, shop.home)
        rows = [asdict(row) for row in found.rows[:MOST_SHOWN]]
        return {**receipt.receipt(session, [found], person, shop.home), "rows": rows, "tasks": []}


def _forget(session: Session, shop: Workshop, who: Visitor, person: Person, asked: ForgetAsked) -> dict[str, Any]:
    audit.alone(session)
    found = forget.find(session, who.business_id, person, shop.home)
    forget.few_enough([found], asked.at_most)
    forget.erase(session, found, person, who.who, shop.home)
    tasks = forget.remake_later(session, found, who.who, shop.home, asked.void)
    number = forget.note(session, [found], who.who, who.business_id)
    return {**receipt.receipt(session, [found], person, shop.home, number), "rows": [], "tasks": tasks}


def _shown(business: Business | None) -> dict[str, Any]:
    assert business is not None
    return {"id": business.id, "name": business.name, "retention_days": business.retention_days}
