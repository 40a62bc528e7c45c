"""The commands that keep running."""
from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer

from machikoba.cli.app import Json, app
from machikoba.cli.output import result
from machikoba.language import _

PORT = 8600


@app.command(help=_("Serve bundles on this machine: pages and an API."))
def serve(
    bundle: Annotated[list[str] | None, typer.Argument(metavar="[BUNDLE]…", help=_("Bundles besides those in the home."),
                                                       show_default=False)] = None,
    host: Annotated[str, typer.Option(help=_("Address to listen on."))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=_("Port to listen on."))] = PORT,
    public_name: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help=_("Name under which others reach it. May be repeated."))] = None,
    behind_proxy: Annotated[list[str] | None, typer.Option(
        metavar="ADDRESS", help=_("Address of a proxy that says where requests come from. May be repeated."))] = None,
    business: Annotated[str, typer.Option(help=_("Name of the first business."))] = "machikoba",
    no_worker: Annotated[bool, typer.Option("--no-worker", help=_("Leave tunings to a worker started elsewhere."))] = False,
    json: Json = False,
) -> None:
    from machikoba.pack.bundle import find_bundle
    from machikoba.settings import home
    from machikoba.store import inuse
    from machikoba.store.database import here
    from machikoba.web.proxy import addresses
    from machikoba.web.serve import Supervisor, prepare
    from machikoba.web.serve import serve as run

    proxies = addresses(behind_proxy or [])
    database = here()
    given = [find_bundle(name, home()).resolve() for name in bundle or []]
    with inuse.using(home()):
        shop, token = prepare(home(), database, given, host, public_name or [], business)
        lines = [_("serving  http://{host}:{port}   (stop with Ctrl-C)").format(host=host, port=port)]
        if shop.local:
            lines.append(_("open     in this machine's browser: {url}").format(url=f"http://{host}:{port}/open?key={shop.local}"))
            lines.append(_("key      until there is another key or an account, you ask with: {key}").format(key=shop.local))
        if token:
            lines.append(_("owner    open the first account with this token, good for 7 days: {token}").format(token=token))
        result({"url": f"http://{host}:{port}", "key": shop.local or None,
                "open": f"http://{host}:{port}/open?key={shop.local}" if shop.local else None, "owner_token": token}, lines)
        supervisor = None if no_worker else Supervisor(database)
        try:
            if supervisor:
                supervisor.start()
            run(shop, host, port, public_name or [], proxies)
        finally:
            if supervisor:
                supervisor.end()
            shop.close()


@app.command(help=_("Do the work that the server takes in; `serve` starts one by itself."))
def worker(
    name: Annotated[str | None, typer.Option(help=_("Its name in the store."))] = None,
    attended: Annotated[bool, typer.Option("--attended", help=_(
        "End with the standard input: whoever started it is gone then."))] = False,
    json: Json = False,
) -> None:
    import logging
    import sys
    import uuid

    from machikoba.settings import home
    from machikoba.store import inuse
    from machikoba.store.database import here
    from machikoba.store.migrations import upgrade
    from machikoba.worker.run import Worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # says at each start what it is
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stop.set())
    if attended:
        threading.Thread(target=_watch, args=(sys.stdin.fileno(), stop), daemon=True).start()
    database = here()
    with inuse.using(home()):
        upgrade(database)
        Worker(home(), database, name or f"worker-{uuid.uuid4().hex[:8]}", stop).run()


def _watch(handle: int, stop: threading.Event) -> None:
    """Sets `stop` when `handle` has come to its end, which it does however its other side died."""
    while os.read(handle, 1):
        pass
    stop.set()
