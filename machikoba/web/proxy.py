"""Behind a proxy: whose word is taken on where a request came from and by which scheme, and whose is not."""
from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from machikoba.errors import OptionError
from machikoba.language import _

log = logging.getLogger("machikoba.web")
MARKS = ("forwarded", "via", "x-real-ip")  # and x-forwarded-…: what proxies add and browsers do not


def forwarded(headers: Headers) -> bool:
    """Whether a request came through a proxy that says so."""
    return any(name in MARKS or name.startswith("x-forwarded-") for name in headers)


def addresses(given: Iterable[str]) -> list[str]:
    """The addresses of proxies, each as the system may report it. Raises OptionError for anything that is not one address.

    A network or a name is no address: whoever else is in it could say to come from anywhere.
    """
    found = []
    for one in given:
        try:
            address = ipaddress.ip_address(one.strip())
        except ValueError as error:
            raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="behind-proxy"),
                              expected=_("the address of the proxy, such as 127.0.0.1"), found=one[:100],
                              next=_("Name the address from which the proxy asks this server.")) from error
        found.append(str(address))
        if address.version == 4:
            found.append(f"::ffff:{address}")  # on a socket for both versions
    return found


class BehindProxy:
    """ASGI middleware: believes X-Forwarded-For and -Proto of the proxies at `trusted` addresses, and of nobody else."""

    def __init__(self, app: ASGIApp, trusted: Collection[str]) -> None:
        self.app, self.trusted, self.warned = app, frozenset(trusted), False
        self.believing = ProxyHeadersMiddleware(app, list(trusted))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("", 0))[0]
        if address in self.trusted:
            await self.believing(scope, receive, send)  # type: ignore[arg-type]
            return
        if not self.warned and scope["type"] == "http" and forwarded(Headers(scope=scope)):
            self.warned = True  # once: anybody can send such headers
            log.warning("a proxy at %s is not believed where requests come from: if it is yours, start with --behind-proxy %s",
                        address, address)
        await self.app(scope, receive, send)
