"""People and keys: who may come in, and which programs."""
from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba.errors import MachikobaError
from machikoba.store import people
from machikoba.store.people import ROLES, Visitor
from machikoba.store.tables import Key, Membership, Person, SignIn
from machikoba.web.access import Shop
from machikoba.web.pages.page import Id, Page, Who, fields, go, nothing_here, problem, render
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
MOST_NAME = 100


@router.get("/people")
async def show(request: Request, who: Who, shop: Shop) -> Response:
    who.must_be("owner")
    return await _page(request, who, shop)


@router.post("/people/invite")
async def invite(request: Request, who: Who, shop: Shop) -> Response:
    """The link is shown this once."""
    who.must_be("owner")
    role = (await fields(request)).get("role", "")
    if role not in ROLES:
        raise nothing_here()

    def write() -> str:
        with shop.database.writing() as session:
            return people.invite(session, who.business_id, role, who.who)

    token = await run_in_threadpool(write)
    if who.who == "local":  # whoever started the server opens the first account right here
        return go(f"/account?{urlencode({'token': token})}")
    link = request.url.replace(path="/account", query=urlencode({"token": token}))
    return await _page(request, who, shop, invitation=str(link))


@router.post("/people/{person}/role")
async def change_role(request: Request, person: Id, who: Who, shop: Shop) -> Response:
    """Without a role somebody is taken out."""
    who.must_be("owner")
    role = (await fields(request)).get("role", "")
    if role and role not in ROLES:
        raise nothing_here()

    def write() -> None:
        with shop.database.writing() as session:
            people.change_role(session, who.business_id, person, role or None, who.who)

    try:
        await run_in_threadpool(write)
    except MachikobaError as error:
        return problem(request, error)
    return go("/people")


@router.post("/keys")
async def make_key(request: Request, who: Who, shop: Shop) -> Response:
    """The key is shown this once."""
    who.must_be("owner")
    name = (await fields(request)).get("name", "").strip()[:MOST_NAME]
    if not name:
        return go("/people")

    def write() -> str:
        with shop.database.writing() as session:
            return people.add_key(session, who.business_id, name, "staff", who.who)[1]

    secret = await run_in_threadpool(write)
    shop.visitors.forget()
    return await _page(request, who, shop, secret=secret)


@router.post("/keys/{key}/end")
async def end_key(key: Id, who: Who, shop: Shop) -> Response:
    who.must_be("owner")

    def write() -> bool:
        with shop.database.writing() as session:
            return people.end_key(session, who.business_id, key, who.who)

    await run_in_threadpool(write)
    shop.visitors.forget()
    return go("/people")


@router.post("/sign-ins/{sign_in}/end")
async def end_sign_in(sign_in: Id, who: Who, shop: Shop) -> Response:
    """Signs this person out in another browser."""
    def write() -> None:
        with shop.database.writing() as session:
            people.end_sign_ins(session, who.person_id, who.who, sign_in)

    await run_in_threadpool(write)
    return go("/people")


async def _page(request: Request, who: Visitor, shop: Workshop, invitation: str = "", secret: str = "") -> Response:
    def read() -> dict[str, Any]:
        with shop.database.reading() as session:
            return _facts(session, who)

    return render(request, "people.html", invitation=invitation, secret=secret, roles=ROLES, **await run_in_threadpool(read))


def _facts(session: Session, who: Visitor) -> dict[str, Any]:
    members = session.execute(select(Person, Membership.role).join(Membership, Membership.person_id == Person.id).where(
        Membership.business_id == who.business_id).order_by(Person.name)).all()
    keys = session.scalars(select(Key).where(Key.business_id == who.business_id, Key.ended_at.is_(None)).order_by(Key.created_at))
    mine = session.scalars(select(SignIn).where(SignIn.person_id == who.person_id, SignIn.ended_at.is_(None))
                           .order_by(SignIn.created_at.desc()))
    return {"members": [(person, role) for person, role in members], "keys": list(keys), "sign_ins": list(mine)}
