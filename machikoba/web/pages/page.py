"""How a page is made: the template, who sees it, in which language; and how a form comes back from it."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import jinja2
from fastapi import Depends, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from markupsafe import Markup
from starlette.datastructures import FormData, UploadFile

from machikoba.desk.queue import MOST_COUNTED
from machikoba.errors import AccessError, MachikobaError, discreet
from machikoba.language import _, _n, language
from machikoba.store.people import Visitor, role_name
from machikoba.web.access import BUSINESS_COOKIE, COOKIE, by_cookie, csrf_of, out_of_date
from machikoba.web.forms import read_form
from machikoba.web.guard import SAFE
from machikoba.web.problems import RequestError, for_people, status_of

HERE = Path(__file__).parent.parent
STATIC = HERE / "static"
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
          "form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
MOST_FIELDS = 500  # of a form
MOST_KEPT_BYTES = 256 << 10  # of a form whose sender must sign in first
KEYS = "1234567890qwertyuiopasdfghjklxcvbnm"  # of kinds, in their order; z takes back, space passes over, - fits none
Fields = dict[str, str]


class Page(APIRoute):
    """A route for people: who is not signed in comes to the door, and a form must come from a page of ours.

    A stranger's form is read before only where it holds nothing but words: they come back to him to be sent again.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def known(request: Request) -> Response:
            if not any(one.call is seen for one in self.dependant.dependencies):
                return await handle(request)
            try:
                request.state.visitor = await by_cookie(request, request.cookies.get(BUSINESS_COOKIE))
            except AccessError as error:
                if error.code == "business_unknown" and BUSINESS_COOKIE in request.cookies:
                    request.state.visitor = await by_cookie(request, None)
                elif error.code == "sign_in_needed":
                    return await _to_the_door(request)
                else:
                    raise
            if request.method not in SAFE:
                await read_form(request)
                if (await fields(request)).get("csrf") != csrf_of(request.cookies[COOKIE]):
                    raise out_of_date()
            return await handle(request)

        return known


async def seen(request: Request) -> Visitor:
    """Whoever is signed in; a route that wants it is for no one else."""
    found: Visitor = request.state.visitor
    return found


Who = Annotated[Visitor, Depends(seen)]
Id = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Named = Annotated[str, InPath(max_length=100)]


async def fields(request: Request) -> Fields:
    """The words of a form; of several with one name the last."""
    form = await _form(request)
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def seconds_of(form: Fields) -> float | None:
    """How long somebody looked before a decision, as the script counted; None where no number was sent."""
    try:
        return float(form["seconds"])
    except (KeyError, ValueError):
        return None


async def several(request: Request, name: str) -> list[str]:
    """All values of one name."""
    return [value for value in (await _form(request)).getlist(name) if isinstance(value, str)]


async def upload(request: Request, name: str) -> UploadFile | None:
    """The file of a form."""
    found = (await _form(request)).get(name)
    return found if isinstance(found, UploadFile) and found.filename else None


async def _form(request: Request) -> FormData:
    return await request.form(max_fields=MOST_FIELDS)


def render(request: Request, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
    """The page `template`, in the language in use."""
    cookie = request.cookies.get(COOKIE, "")
    who: Visitor | None = getattr(request.state, "visitor", None)
    text = _templates().get_template(template).render(
        who=who, csrf=csrf_of(cookie), language=language(), path=request.url.path, here=_looked_at(request), **facts)
    answer = HTMLResponse(text, status)
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Referrer-Policy"] = "same-origin"  # else a form comes back without saying from where
    return answer


def fragment(request: Request, template: str, **facts: Any) -> str:
    """A part of a page."""
    return _templates().get_template(template).render(who=request.state.visitor, csrf=csrf_of(request.cookies.get(COOKIE, "")),
                                                      **facts)


def go(path: str) -> RedirectResponse:
    """To another page, which then is asked for with GET: loading it again sends nothing twice."""
    return RedirectResponse(path, 303)


def problem(request: Request, error: MachikobaError, **facts: Any) -> HTMLResponse:
    """The page that tells what went wrong and what to do."""
    status = status_of(error)
    answer = render(request, "problem.html", status, problem=told(error), **facts)
    patience = getattr(error, "retry_after_seconds", None)
    if patience or status == 503:
        answer.headers["Retry-After"] = str(patience or 5)
    return answer


def told(error: MachikobaError) -> dict[str, str]:
    """An error as a page shows it."""
    return for_people(discreet(error).to_dict())


def own_path(path: str) -> str:
    """A path on this server, and nothing else."""
    parts = urlsplit(path)
    unsafe = parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//") or "\\" in path
    return "/" if unsafe or any(ord(c) < 32 for c in path) else path


def nothing_here() -> RequestError:
    """What is said of a page that there is not."""
    return RequestError(404, "path_unknown", _("There is nothing here."))


@cache
def asset(name: str) -> str:
    """The address of a file that changes with its content, so that a browser may keep it."""
    return f"/static/{name}?{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


async def _to_the_door(request: Request) -> Response:
    """The sign-in page; what was typed into a form comes along, and is sent on after it."""
    if request.method in SAFE:
        return go(f"/sign-in?then={quote(_here(request))}")
    kept: list[tuple[str, str]] = []
    length = request.headers.get("content-length", "")
    words = request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded")
    if words and length.isdecimal() and int(length) <= MOST_KEPT_BYTES:
        form = await _form(request)
        kept = [(name, value) for name, value in form.multi_items() if isinstance(value, str) and name != "csrf"]
    return render(request, "sign_in.html", 401, then=_here(request), kept=kept, problem=None, mail="", forgotten=not kept)


def _looked_at(request: Request) -> str:
    """The page that somebody is at: many addresses that forms are sent to show nothing when they are asked for."""
    if request.method in SAFE:
        return _here(request)
    before = urlsplit(request.headers.get("referer", ""))
    return own_path(before.path + (f"?{before.query}" if before.query else "")) if before.netloc == request.url.netloc else "/"


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    found.globals.update(_=_, _n=_n, asset=asset, role_name=role_name)
    found.filters.update(percent=percent, number=number, many=many, moment=moment, duration=duration, lines=lines, part=quote)
    return found


def percent(share: float) -> str:
    """A share as people say it."""
    return f"{100 * share:.0f}%"


def many(value: int) -> str:
    """What was counted only so far."""
    return number(value) if value <= MOST_COUNTED else f"{MOST_COUNTED:,}+"


def number(value: float) -> str:
    """With separators between thousands."""
    return f"{value:,.0f}"


def moment(at: datetime) -> str:
    """A moment in the time of the machine."""
    local = at.astimezone()
    if language() == "ja":
        return f"{local.year}年{local.month}月{local.day}日 {local.hour}:{local.minute:02}"
    return f"{local.day} {local:%B} {local.year}, {local:%H:%M}"


def duration(seconds: float) -> str:
    """About how long, as people say it."""
    if seconds < 90:
        n = max(1, round(seconds))
        return _n("{n} second", "{n} seconds", n).format(n=n)
    n = round(seconds / 60)
    return _n("{n} minute", "{n} minutes", n).format(n=n)


def lines(text: str) -> Markup:
    """Text with its line breaks."""
    return Markup("<br>").join(text.splitlines())
