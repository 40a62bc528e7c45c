"""Who asks: a key in the Authorization header or a signed-in person's cookie; as long as nobody has either, whoever started
the server has the key that its console showed."""
from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba.errors import AccessError
from machikoba.language import _
from machikoba.store import people
from machikoba.store.people import Visitor
from machikoba.store.tables import Business, now
from machikoba.web.forms import read_form
from machikoba.web.guard import SAFE
from machikoba.web.workshop import Workshop

COOKIE, CSRF_HEADER, BUSINESS_HEADER = "machikoba", "x-machikoba-csrf", "x-machikoba-business"
BUSINESS_COOKIE = "machikoba-business"  # which of several businesses this browser's pages are about


def workshop(request: Request) -> Workshop:
    """The running server."""
    found: Workshop = request.app.state.workshop
    return found


def csrf_of(cookie: str) -> str:
    """What a page of ours must send back with every change, and no other site can know."""
    return hashlib.sha256(f"csrf {cookie}".encode()).hexdigest()[:32]


async def visitor(request: Request) -> Visitor:
    """Who asks; found out once for each request. Raises AccessError."""
    if not hasattr(request.state, "visitor"):
        request.state.visitor = await _visitor(request)
    found: Visitor = request.state.visitor
    return found


class KnownFirst(APIRoute):
    """A route that finds out who asks before it reads what they send: from a stranger nothing is kept, in memory or on the
    disk."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not any(one.call is visitor for one in self.dependant.dependencies):
            return handle

        async def known(request: Request) -> Response:
            await visitor(request)
            await read_form(request)
            return await handle(request)

        return known


async def _visitor(request: Request) -> Visitor:
    shop = workshop(request)
    scheme, _space, secret = request.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not secret.strip():
            raise unknown()
        secret = secret.strip()
        known = shop.visitors.get(secret)
        return known if known else shop.visitors.keep(secret, await run_in_threadpool(_by_key, shop, secret))
    cookie = request.cookies.get(COOKIE)
    if cookie:
        if request.method not in SAFE and request.headers.get(CSRF_HEADER) != csrf_of(cookie):
            raise out_of_date()
        return await by_cookie(request, request.headers.get(BUSINESS_HEADER))
    raise unknown()


async def by_cookie(request: Request, business: str | None) -> Visitor:
    """Who has the cookie that came with `request`. Raises AccessError."""
    return await run_in_threadpool(_by_cookie, workshop(request), request.cookies.get(COOKIE, ""), business)


async def _workshop(request: Request) -> Workshop:
    return workshop(request)  # what is not async goes through a thread, at every request


def signed_in_only(who: Visitor) -> None:
    """Raises AccessError, texts_not_for_keys: a program, whose key may lie anywhere, sees no past text."""
    if not who.signed_in:
        raise AccessError("texts_not_for_keys", _("Past texts are shown to signed-in staff only."),
                          next=_("Sign in on the server's pages."))


Who = Annotated[Visitor, Depends(visitor)]
Shop = Annotated[Workshop, Depends(_workshop)]


def _by_key(shop: Workshop, secret: str) -> Visitor:
    with shop.database.reading() as session:
        if is_local(shop, secret):
            return _owner_here(session)
        return people.key_visitor(session, secret)


def _by_cookie(shop: Workshop, cookie: str, business: str | None) -> Visitor:
    with shop.database.reading() as session:
        if is_local(shop, cookie):  # whoever followed the link that the console showed
            return _owner_here(session)
        found = people.signed_in(session, cookie)
        if found is None:
            raise unknown()
        found_visitor = people.visitor(session, found[1], business)
    if now() - found[0].seen_at > people.SEEN_EVERY:
        with shop.database.writing() as session:
            people.note_use(session, found[0].id)
    return found_visitor


def is_local(shop: Workshop, secret: str) -> bool:
    """Whether this is what the console showed to whoever started the server."""
    return bool(shop.local) and secrets.compare_digest(secret.encode(), shop.local.encode())


def _owner_here(session: Session) -> Visitor:
    if people.guarded(session):  # since the start somebody got an account or a key
        raise unknown()
    first = session.scalars(select(Business.id).order_by(Business.created_at).limit(1)).one()
    return Visitor("local", first, "owner", signed_in=True)


def out_of_date() -> AccessError:
    """What is said of a change that does not come from a page of ours, or from an old one."""
    return AccessError("csrf_missing", _("This page is out of date."), next=_("Load the page again."))


def unknown() -> AccessError:
    """What is said of somebody who is not known."""
    return AccessError("sign_in_needed", _("Who are you?"), expected="Authorization: Bearer mk_…",
                       next=_("Sign in, or send a key that the owner of the business gave you."))
