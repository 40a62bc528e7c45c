"""What every request passes first: the right host, a bounded size and time, no other site's form, safe headers back."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machikoba.language import LANGUAGES, _, use_language
from machikoba.web.problems import HEADERS, RequestError, StoppedReading, answer, unreadable
from machikoba.web.proxy import forwarded

MOST_BYTES = 4 << 20  # of a body
MOST_UPLOAD_BYTES = 64 << 20  # of a body with a file
MOST_STRANGERS_BYTES = 64 << 10  # of a body from somebody who is not known yet
UPLOADS = ("/v1/tasks", "/start")
STRANGERS = ("/v1/accounts", "/v1/sign-ins", "/sign-in", "/account")
BODY_SECONDS = 30.0  # until the whole body is here
UPLOAD_SECONDS = 600.0
LANGUAGE_COOKIE = "machikoba-language"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_HEAD_BYTES = 64 << 10  # of an address and its headers
HEADER_BYTES = 4  # of a header, besides its name and value
VERSIONS = ("1.0", "1.1")  # of HTTP
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware. hosts: names under which the server may be asked, without ports; names: more of them, the only ones
    that whoever comes through a proxy can mean."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], names: Collection[str] = ()) -> None:
        self.app, self.names = app, frozenset(name.lower() for name in names)
        self.hosts = self.names | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        use_language(_chosen(headers) or _preferred(headers.get("accept-language", "")))

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        refused = self._refused(scope, headers)
        if refused is not None:
            told = answer(refused)
            told.headers["Connection"] = "close"  # the rest of the request would be taken for the next one
            await told(scope, receive, safely)
            return
        seconds = UPLOAD_SECONDS if scope["path"] in UPLOADS else BODY_SECONDS
        await self.app(scope, _Bounded(receive, _most_bytes(scope["path"]), seconds), safely)

    def _refused(self, scope: Scope, headers: Headers) -> RequestError | None:
        if scope["http_version"] not in VERSIONS:
            return unreadable(expected="HTTP/1.1", found=f"HTTP/{scope['http_version']}")
        # The protocol below refuses a head that is too long only where it comes in pieces.
        head = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) + HEADER_BYTES for n, v in headers.raw)
        if head > MOST_HEAD_BYTES:
            return unreadable(expected=_("at most {n} KiB of headers").format(n=MOST_HEAD_BYTES >> 10))
        host = headers.get("host", "")
        through_proxy = bool(self.names) and forwarded(headers)
        known = self.names if through_proxy else self.hosts  # nobody outside asks for 127.0.0.1: the proxy has put it there
        if _name(host) not in known:
            return RequestError(400, "host_unknown", _("This server does not go by that name."),
                                expected=", ".join(sorted(known)), found=_name(host)[:100],
                                next=_("Let the proxy pass the Host header on as it came, and start the server with "
                                       "--public-name NAME.") if through_proxy else
                                _("Start the server with --public-name NAME."))
        if scope["method"] not in SAFE:
            origin = headers.get("origin")
            foreign = origin is not None and _host_of(origin) != host.lower()
            if foreign or headers.get("sec-fetch-site") == "cross-site":
                return RequestError(403, "other_site", _("Another site may not do this."), expected=host,
                                    found=(origin or "")[:100], next=_("Do it on this server's own pages, or with a key."))
        length, most = headers.get("content-length", ""), _most_bytes(scope["path"])
        if length.isdecimal() and int(length) > most:
            return too_large(most)
        return None


class _Bounded:
    """The body, as long as it is small and quick enough. Raises StoppedReading where it is read."""

    def __init__(self, receive: Receive, most_bytes: int, seconds: float) -> None:
        self.receive, self.most_bytes, self.left = receive, most_bytes, most_bytes
        self.until, self.whole = time.monotonic() + seconds, False

    async def __call__(self) -> Message:
        if self.whole:  # what comes now is only whether the client has gone
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, self.until - time.monotonic()))
        except TimeoutError:
            raise StoppedReading(RequestError(408, "too_slow", _("The request came too slowly."),
                                              next=_("Try again on a better connection."))) from None
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise StoppedReading(too_large(self.most_bytes))
        self.whole = not message.get("more_body", False)
        return message


def _most_bytes(path: str) -> int:
    return MOST_UPLOAD_BYTES if path in UPLOADS else MOST_STRANGERS_BYTES if path in STRANGERS else MOST_BYTES


def too_large(most_bytes: int) -> RequestError:
    """What is said of a body that is too large."""
    most = f"{most_bytes >> 20} MiB" if most_bytes >> 20 else f"{most_bytes >> 10} KiB"
    return RequestError(413, "too_large", _("The request is too large."), expected=_("at most {n}").format(n=most),
                        next=_("Send it in smaller parts."))


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:host.find("]")].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _chosen(headers: Headers) -> str | None:
    """The language that somebody chose on a page."""
    found = cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE)
    return found if found in LANGUAGES else None


def _preferred(accepted: str) -> str | None:
    """The first of the languages that a client accepts which there is; None for the server's own."""
    for part in accepted.split(","):
        name = part.split(";")[0].strip().lower()[:2]
        if name in LANGUAGES:
            return name
    return None
