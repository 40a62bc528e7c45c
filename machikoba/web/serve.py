"""Starts the server and its worker, and stops both in order."""
from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from machikoba.desk import bundles
from machikoba.errors import RequirementError, StorageError
from machikoba.language import _
from machikoba.pack.bundle import list_bundles
from machikoba.store import jobs, people
from machikoba.store.database import Database
from machikoba.store.migrations import upgrade
from machikoba.store.tables import Business
from machikoba.web.app import create_app
from machikoba.web.guard import LOOPBACK
from machikoba.web.proxy import BehindProxy
from machikoba.web.workshop import Workshop

HEAD_SECONDS = 15.0  # until a client has said what it wants
GRACE_SECONDS = 40  # to finish what was accepted; a little more than the longest wait for an answer
MOST_CONNECTIONS = 1_000
RESTART_SECONDS = 2.0


def prepare(home: Path, database: Database, given: list[Path], host: str, names: list[str],
            business_name: str) -> tuple[Workshop, str | None]:
    """A workshop with its store brought up to date and its bundles named, and the token for the first owner's account.

    Raises StorageError; RequirementError, host_open, where others could ask a server that knows nobody.
    """
    upgrade(database)
    with database.writing() as session:
        guarded = people.guarded(session)
        if not guarded and host not in LOOPBACK:
            raise RequirementError(
                "host_open", _("Everybody in the network could use this server, for nobody has an account or a key yet."),
                expected="--host 127.0.0.1", found=f"--host {host}",
                next=_("Make a key first: machikoba key NAME. Or start without --host and open the owner's account."))
        token = people.first_owner(session, business_name)
        first = session.query(Business).order_by(Business.created_at).first()
        assert first is not None
        bundles.adopt(session, first.id, [*given, *(bundle.path for bundle in list_bundles(home))], home)
    # Behind a proxy on this machine every visitor seems to come from it: a public name tells of one.
    return Workshop.start(home, database, local=not guarded and host in LOOPBACK and not names), token


class _Patient(H11Protocol):
    """Closes a connection on which a request begins and does not come: a client that sends a byte a minute must not hold it."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def serve(shop: Workshop, host: str, port: int, names: list[str], proxies: list[str]) -> None:
    """Answers until it is told to stop, then finishes what it accepted. Raises RequirementError where the port is taken.

    proxies: addresses whose word on where requests come from is taken.
    """
    app = BehindProxy(create_app(shop, [*LOOPBACK, host], names), proxies)
    config = uvicorn.Config(app, host=host, port=port, http=_Patient, ws="none", proxy_headers=False,
                            log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30,
                            timeout_graceful_shutdown=GRACE_SECONDS, limit_concurrency=MOST_CONNECTIONS)
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again once it has stopped; it has done its work
        signal.signal(number, lambda *_args: None)
    try:
        asyncio.run(server.serve())
    except SystemExit as error:
        raise RequirementError("port_taken", _("The server could not start on {host}:{port}.").format(host=host, port=port),
                               expected=_("a port that is free"), found=str(port),
                               next=_("Stop what is running there, or choose another --port.")) from error


class Supervisor(threading.Thread):
    """Keeps a worker process running; what it held when it died is given to the next at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.database = database
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self._over.is_set():
            name = f"worker-{uuid.uuid4().hex[:8]}"
            environment = os.environ | {"MACHIKOBA_DATABASE": self.database.url.render_as_string(hide_password=False)}
            self._process = subprocess.Popen([sys.executable, "-m", "machikoba", "worker", "--name", name], env=environment)
            self._process.wait()
            if not self._over.is_set():
                with contextlib.suppress(StorageError):  # then the lease runs out instead
                    jobs.release(self.database, name)
                self._over.wait(RESTART_SECONDS)

    def end(self) -> None:
        """Lets the worker give its job back, and waits for it."""
        self._over.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self.join(GRACE_SECONDS)
