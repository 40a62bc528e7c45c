"""Starts the server and its worker, and stops both in order."""
from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Any

import h11
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
from machikoba.web.problems import HEADERS, answer, unreadable
from machikoba.web.proxy import BehindProxy
from machikoba.web.workshop import Workshop

log = logging.getLogger("machikoba.web")
HEAD_SECONDS = 15.0  # until a client has said what it wants
TAKEN_SECONDS = 120.0  # until a client has taken its answer
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
    """Closes a connection on which a request begins and does not come, or an answer is not taken: a client that sends or
    reads a byte a minute must not hold it."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # any byte that is not taken pauses the writing
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(TAKEN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets the one error shape too; where an answer has begun there can be no other."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # whoever works on the answer has nobody to tell it to
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            unknown = getattr(sys.exception(), "error_status_hint", 400) == HTTPStatus.NOT_IMPLEMENTED  # a coding of the body
            status = HTTPStatus.NOT_IMPLEMENTED if unknown else HTTPStatus.BAD_REQUEST
            told = answer(unreadable(expected="HTTP/1.1", status=status))
            told.headers.update({**HEADERS, "Connection": "close"})
            for event in (h11.Response(status_code=status, headers=told.raw_headers, reason=status.phrase.encode()),
                          h11.Data(data=bytes(told.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

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
                            timeout_graceful_shutdown=GRACE_SECONDS)
    _make_room()
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again once it has stopped; it has done its work
        signal.signal(number, lambda *_args: None)
    try:
        asyncio.run(server.serve())
    except SystemExit as error:
        raise RequirementError("port_taken", _("The server could not start on {host}:{port}.").format(host=host, port=port),
                               expected=_("a port that is free"), found=str(port),
                               next=_("Stop what is running there, or choose another --port.")) from error


def _make_room() -> None:
    """Lets this process hold MOST_CONNECTIONS and still open the store and its bundles, as far as the system allows."""
    if os.name == "nt":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + 1_024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


class Supervisor(threading.Thread):
    """Keeps a worker process running; what it held when it died is given to the next at once.

    The worker's standard input is a pipe that ends with this process, also when it is killed: no worker is left behind.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.database = database
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self._over.is_set():
            name = f"worker-{uuid.uuid4().hex[:8]}"
            environment = os.environ | {"MACHIKOBA_DATABASE": self.database.url.render_as_string(hide_password=False)}
            command = [sys.executable, "-m", "machikoba", "worker", "--attended", "--name", name]
            try:
                self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
            except OSError as error:  # no memory for it, or too many processes
                log.warning("the worker could not be started: %s", error)
                self._over.wait(RESTART_SECONDS)
                continue
            with self._process:
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
