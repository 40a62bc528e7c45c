"""The server: every route, behind the guard, with one error shape."""
from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machikoba import __version__
from machikoba.language import _
from machikoba.web import backups, bundles, keys, people, privacy, problems, tasks, versions
from machikoba.web.guard import LOOPBACK, Guard
from machikoba.web.pages import bundle as bundle_page
from machikoba.web.pages import desk, door, home, sort, start, work
from machikoba.web.pages import people as people_page
from machikoba.web.pages import versions as versions_page
from machikoba.web.pages.page import problem
from machikoba.web.problems import RequestError, documented
from machikoba.web.proxy import forwarded
from machikoba.web.shapes import Health
from machikoba.web.workshop import Workshop

ABOUT = "A bundle sorts messages, says how sure it is, and leaves to a person what it is not sure of."


def create_app(shop: Workshop, hosts: Collection[str] = LOOPBACK, names: Collection[str] = ()) -> FastAPI:
    """The server for `shop`, asked as `hosts`, from outside under the public `names`; it closes the shop when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        shop.close()

    app = FastAPI(title="machikoba", version=__version__, summary=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url="/v1/openapi.json", generate_unique_id_function=lambda route: route.name)
    app.state.workshop = shop
    problems.install(app, problem)
    for part in (bundles, versions, tasks, backups, keys, people, privacy):
        app.include_router(part.router)
    for page in (home, door, start, sort, work, bundle_page, versions_page, desk, people_page):
        app.include_router(page.router)
    measures = _Measures(shop)

    @app.get("/healthz", summary="Is it well?", tags=["server"], response_model=Health, responses=documented(503))
    async def healthz() -> Any:
        """For whoever watches the server. It says nothing about what is in it."""
        if shop.stopping:
            raise RequestError(503, "stopping", _("The server is stopping."), next=_("Try again in a moment."))
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> PlainTextResponse:
        if not _from_here(request):
            raise RequestError(404, "path_unknown", _("There is nothing here."))
        return PlainTextResponse(measures.text(), media_type="text/plain; version=0.0.4")

    app.add_middleware(_Measured, measures=measures)
    app.add_middleware(Guard, hosts=hosts, names=names)
    return app


def _from_here(request: Request) -> bool:
    """Whether a program on this machine asks, and not somebody through a proxy on it."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return address.is_loopback and not forwarded(request.headers)


class _Measures:
    """Counters for Prometheus: routes and statuses, never names or texts."""

    def __init__(self, shop: Workshop) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("machikoba_requests", "Requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram("machikoba_request_seconds", "Seconds until the answer", ["route"], registry=self.registry,
                                 buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30))
        self.waiting = Gauge("machikoba_texts_waiting", "Texts in front of a lane", ["lane"], registry=self.registry)
        self.shop = shop

    def text(self) -> str:
        for lane, number in self.shop.lanes.waiting.items():
            self.waiting.labels(lane).set(number)
        return generate_latest(self.registry).decode()


class _Measured:
    """ASGI middleware that counts and times."""

    def __init__(self, app: ASGIApp, measures: _Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), [500]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # the pattern, not the path: it may hold a name
            self.measures.requests.labels(route, status[0]).inc()
            self.measures.seconds.labels(route).observe(time.monotonic() - began)
