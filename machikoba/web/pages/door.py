"""The door: the console's link, signing in and out, an account from an invitation, the language."""
from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from machikoba.errors import AccessError, MachikobaError
from machikoba.language import LANGUAGES, _
from machikoba.store import people
from machikoba.web.access import BUSINESS_COOKIE, COOKIE, Shop, is_local
from machikoba.web.guard import LANGUAGE_COOKIE
from machikoba.web.pages.page import Page, Who, fields, go, own_path, render, several, told
from machikoba.web.people import address, device, set_cookie
from machikoba.web.problems import RequestError

router = APIRouter(route_class=Page, include_in_schema=False)
YEAR = 365 * 86_400


@router.get("/open")
async def open_here(request: Request, shop: Shop, key: str = "") -> Response:
    """The link that the console shows to whoever started the server, while nobody has an account."""
    if not is_local(shop, key):
        raise RequestError(401, "link_over", _("This link is no longer good."),
                           next=_("Sign in. While nobody has an account, the server's console shows a new link at each start."))
    answer = go("/")
    set_cookie(request, answer, key, None)
    return answer


@router.get("/sign-in")
async def door(request: Request, then: str = "/") -> Response:
    return render(request, "sign_in.html", then=own_path(then), kept=[], problem=None, mail="", forgotten=False)


@router.post("/sign-in")
async def sign_in(request: Request, shop: Shop) -> Response:
    """What was typed before the sign-in had run out is sent on after it, by the person's own click."""
    form = await fields(request)
    mail, then = form.get("mail", ""), own_path(form.get("then", "/"))
    names, values = await several(request, "kept_name"), await several(request, "kept_value")
    kept = list(zip(names, values, strict=False))

    def write() -> str:
        with shop.database.writing() as session:
            return people.sign_in(session, mail, form.get("password", ""), address(request), device(request))

    try:
        token = await run_in_threadpool(write)
    except AccessError as error:
        return render(request, "sign_in.html", 401, then=then, kept=kept, problem=told(error), mail=mail, forgotten=False)
    answer = go_on(request, token, then, kept) if kept else go(then)
    set_cookie(request, answer, token)
    return answer


def go_on(request: Request, token: str, then: str, kept: list[tuple[str, str]]) -> Response:
    """The page that sends on what was typed; its form belongs to the sign-in that has just begun."""
    request.cookies[COOKIE] = token
    return render(request, "go_on.html", then=then, kept=kept)


@router.post("/sign-out")
async def sign_out(request: Request, who: Who, shop: Shop) -> Response:
    def end() -> None:
        with shop.database.writing() as session:
            found = people.signed_in(session, request.cookies[COOKIE])
            if found:
                people.end_sign_ins(session, found[1].id, who.who, found[0].id)

    await run_in_threadpool(end)
    answer = go("/sign-in")
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.get("/account")
async def invited(request: Request, token: str = "") -> Response:
    """The page behind an invitation."""
    return render(request, "account.html", token=token, mail="", name="", problem=None)


@router.post("/account")
async def open_account(request: Request, shop: Shop) -> Response:
    form = await fields(request)
    token, mail, name = (form.get(field, "").strip() for field in ("token", "mail", "name"))

    def write() -> str:
        with shop.database.writing() as session:
            person = people.accept(session, token, mail, name, form.get("password", ""), address(request))
            return people.open_sign_in(session, person, device(request))

    try:
        opened = await run_in_threadpool(write)
    except MachikobaError as error:
        return render(request, "account.html", 422, token=token, mail=mail, name=name, problem=told(error))
    shop.local = ""
    shop.visitors.forget()
    answer = go("/")
    set_cookie(request, answer, opened)
    return answer


@router.get("/language/{name}")
async def choose_language(name: str, then: str = "/") -> Response:
    answer = go(own_path(then))
    if name in LANGUAGES:
        answer.set_cookie(LANGUAGE_COOKIE, name, max_age=YEAR, path="/", samesite="lax")
    return answer


@router.post("/business")
async def choose_business(request: Request, _who: Who) -> Response:
    """Which of several businesses the pages are about; one that the person is not in shows nothing."""
    answer, business = go("/"), (await fields(request)).get("business", "")[:32]
    answer.set_cookie(BUSINESS_COOKIE, business, path="/", samesite="strict", httponly=True)
    return answer
