"""Routes of people: open an account, sign in and out, invite, and see who may do what."""
from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from machikoba.language import _
from machikoba.store import people
from machikoba.store.people import Visitor
from machikoba.store.tables import Membership, Person, SignIn
from machikoba.web.access import COOKIE, KnownFirst, Shop, Who, csrf_of
from machikoba.web.problems import RequestError, documented
from machikoba.web.shapes import Asked, Name, Role, Storable
from machikoba.web.workshop import Workshop

router = APIRouter(prefix="/v1", route_class=KnownFirst, tags=["people"])
Numbered = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$", examples=["0" * 32])]
Password = Annotated[Storable, Field(max_length=1_000, examples=["yama-kawa-umi-sora"])]


class AccountAsked(Asked):
    token: Annotated[Storable, Field(max_length=200)]
    mail: Annotated[Storable, Field(max_length=254, examples=["aoki@example.jp"])]
    name: Name
    password: Password


class SignInAsked(Asked):
    mail: Annotated[Storable, Field(max_length=254)]
    password: Password


class SignedIn(BaseModel):
    """csrf: to be sent back in the header X-Machikoba-CSRF with every change."""

    csrf: str


class SignInShown(BaseModel):
    id: str
    device: str
    created_at: datetime
    seen_at: datetime


class SignIns(BaseModel):
    sign_ins: list[SignInShown]


class InvitationAsked(Asked):
    role: Role = "staff"


class Invited(BaseModel):
    """token: shown this once, for the person who is invited."""

    token: str


class Member(BaseModel):
    id: str
    name: str
    mail: str
    role: Role


class Members(BaseModel):
    people: list[Member]


class RoleAsked(Asked):
    role: Role


@router.post("/accounts", summary="Open an account", status_code=201, response_model=SignedIn,
             responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503, 507))
async def open_account(asked: AccountAsked, request: Request, shop: Shop) -> Any:
    """With an invitation; whoever has an account already gives its password and comes into a further business."""

    def write() -> str:
        with shop.database.writing() as session:
            person = people.accept(session, asked.token, asked.mail, asked.name, asked.password, address(request))
            return people.open_sign_in(session, person, device(request))

    token = await run_in_threadpool(write)
    shop.local = ""
    shop.visitors.forget()
    return _signed_in(request, token)


@router.post("/sign-ins", summary="Sign in", status_code=201, response_model=SignedIn,
             responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503, 507))
async def sign_in(asked: SignInAsked, request: Request, shop: Shop) -> Any:
    """Sets the cookie of this browser."""

    def write() -> str:
        with shop.database.writing() as session:
            return people.sign_in(session, asked.mail, asked.password, address(request), device(request))

    return _signed_in(request, await run_in_threadpool(write))


@router.get("/sign-ins", summary="Where am I signed in?", response_model=SignIns, responses=documented(401, 403, 503))
async def list_sign_ins(who: Who, shop: Shop) -> Any:
    """The browsers in which this person is signed in."""

    def read() -> list[SignIn]:
        with shop.database.reading() as session:
            return list(session.scalars(select(SignIn).where(SignIn.person_id == who.person_id, SignIn.ended_at.is_(None))
                                        .order_by(SignIn.created_at.desc())))

    return {"sign_ins": [{"id": one.id, "device": one.device, "created_at": one.created_at, "seen_at": one.seen_at}
                         for one in await run_in_threadpool(read)]}


@router.delete("/sign-ins", summary="Sign out everywhere", status_code=204, responses=documented(401, 403, 503))
async def sign_out(who: Who, shop: Shop) -> Response:
    """Ends every sign-in of this person."""
    await run_in_threadpool(_end, shop, who, None)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.delete("/sign-ins/{sign_in}", summary="Sign out there", status_code=204, responses=documented(401, 403, 404, 422, 503))
async def sign_out_there(sign_in: Numbered, who: Who, shop: Shop) -> Response:
    """Ends one sign-in of this person."""
    if not await run_in_threadpool(_end, shop, who, sign_in):
        raise RequestError(404, "sign_in_unknown", _("You are not signed in there."))
    return Response(status_code=204)


@router.post("/invitations", summary="Invite somebody", status_code=201, response_model=Invited,
             responses=documented(400, 401, 403, 408, 413, 415, 422, 503, 507))
async def invite(asked: InvitationAsked, who: Who, shop: Shop) -> Any:
    """A token for one person, good for seven days."""
    who.must_be("owner")

    def write() -> str:
        with shop.database.writing() as session:
            return people.invite(session, who.business_id, asked.role, who.who)

    return {"token": await run_in_threadpool(write)}


@router.get("/people", summary="Who is here?", response_model=Members, responses=documented(401, 403, 503))
async def list_people(who: Who, shop: Shop) -> Any:
    """The people of this business and their roles."""
    who.must_be("owner")

    def read() -> list[Any]:
        with shop.database.reading() as session:
            return list(session.execute(select(Person, Membership.role).join(Membership, Membership.person_id == Person.id)
                                        .where(Membership.business_id == who.business_id).order_by(Person.name)))

    return {"people": [{"id": person.id, "name": person.name, "mail": person.mail, "role": role}
                       for person, role in await run_in_threadpool(read)]}


@router.put("/people/{person}", summary="Change a role", status_code=204,
            responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503, 507))
async def change_role(person: Numbered, asked: RoleAsked, who: Who, shop: Shop) -> Response:
    """The person is signed out and comes in anew."""
    who.must_be("owner")
    await run_in_threadpool(_set_role, shop, who.business_id, person, asked.role, who.who)
    return Response(status_code=204)


@router.delete("/people/{person}", summary="Take somebody out", status_code=204,
               responses=documented(401, 403, 404, 409, 422, 503))
async def take_out(person: Numbered, who: Who, shop: Shop) -> Response:
    """The person can no longer come into this business."""
    who.must_be("owner")
    await run_in_threadpool(_set_role, shop, who.business_id, person, None, who.who)
    return Response(status_code=204)


def _set_role(shop: Workshop, business_id: str, person: str, role: str | None, actor: str) -> None:
    with shop.database.writing() as session:
        people.change_role(session, business_id, person, role, actor)


def _end(shop: Workshop, who: Visitor, sign_in: str | None) -> int:
    with shop.database.writing() as session:
        return people.end_sign_ins(session, who.person_id, who.who, sign_in)


def _signed_in(request: Request, token: str) -> JSONResponse:
    answer = JSONResponse({"csrf": csrf_of(token)}, 201)
    set_cookie(request, answer, token)
    return answer


def set_cookie(request: Request, answer: Response, token: str, days: int | None = people.SIGN_IN_DAYS) -> None:
    """Lets this browser in; without `days` until it is closed."""
    answer.set_cookie(COOKIE, token, max_age=days * 86_400 if days else None, path="/", httponly=True, samesite="strict",
                      secure=request.url.scheme == "https")


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def device(request: Request) -> str:
    """What the browser says it is."""
    return request.headers.get("user-agent", "")
