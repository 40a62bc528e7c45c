"""The server as a process of its own: started, pestered, stopped."""
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from machikoba.web import serve
from tests.web.conftest import own


def ask(port, texts, **options):
    return httpx.post(f"http://127.0.0.1:{port}/v1/bundles/inquiries/predict", json={"texts": texts}, timeout=60, **options)


def test_serves_what_lies_in_the_home_and_finishes_what_it_accepted(start, port):
    process = start("--no-worker")
    headers = own(process)
    assert ask(port, ["無料の駐車場"], headers=headers).json()["predictions"][0]["label"] == "parking"
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, port, ["駐車場"] * 1_000, headers=headers) for _ in range(8)]
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        done = [answer.result().status_code for answer in answers]
    assert set(done) <= {200, 429}
    assert 200 in done
    assert process.wait(60) == 0
    assert "open the first account with this token" in process.console
    assert "Traceback" not in process.stdout.read()


def test_a_visitor_who_seems_to_come_from_this_machine_is_not_taken_for_the_owner(start, port):
    """As through a proxy here that rewrites Host and says nothing of whom it passes on."""
    process = start("--no-worker")
    assert ask(port, ["駐車場"]).status_code == 401
    assert ask(port, ["駐車場"], headers=own(process)).status_code == 200


def test_the_console_speaks_json(start, port):
    process = start("--no-worker", "--json", wait=False)
    told = json.loads(process.stdout.readline())
    assert told["url"] == f"http://127.0.0.1:{port}"
    for _ in range(400):
        try:
            assert ask(port, ["駐車場"], headers={"Authorization": f"Bearer {told['key']}"}).status_code == 200
            break
        except httpx.TransportError:
            time.sleep(0.05)
    else:
        pytest.fail("it never answered")


def test_others_may_not_ask_a_server_that_knows_nobody(start):
    process = start("--host", "0.0.0.0", "--no-worker", wait=False)
    assert process.wait(60) == 1
    assert "Everybody in the network" in process.stdout.read()


def test_with_a_key_it_opens_to_others_and_the_owner_needs_one_too(start, home, port):
    environment = os.environ | {"MACHIKOBA_HOME": str(home)}
    made = subprocess.run([sys.executable, "-m", "machikoba", "key", "desk", "--json"], env=environment, check=True,
                          capture_output=True, text=True)
    secret = json.loads(made.stdout)["key"]
    start("--host", "0.0.0.0", "--no-worker")
    assert ask(port, ["駐車場"]).status_code == 401
    assert ask(port, ["駐車場"], headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_behind_a_public_name_nobody_is_taken_for_the_owner(start, port):
    process = start("--no-worker", "--public-name", "office.example")
    assert "you ask with" not in process.console
    assert ask(port, ["駐車場"]).status_code == 401


def test_two_on_one_port(start, port):
    start("--no-worker")
    second = start("--no-worker", wait=False)
    assert second.wait(60) == 1
    out = second.stdout.read()
    assert f"127.0.0.1:{port}" in out
    assert "Traceback" not in out


def test_two_servers_on_one_store(start, home, made, port):
    first = start("--no-worker")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    second = start("--no-worker", port=other)
    servers, wrote = ((port, own(first)), (other, own(second))), []

    def write(number):
        at, headers = servers[number % 2]
        wrote.append(httpx.post(f"http://127.0.0.1:{at}/v1/bundles/inquiries/corrections", timeout=60, headers=headers,
                                json={"text": f"{number}", "label": "parking"}).status_code)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrote == [201] * 20
    texts = httpx.get(f"http://127.0.0.1:{port}/v1/bundles/inquiries/corrections", headers=own(first)).json()["corrections"]
    assert sorted(int(one["text"]) for one in texts) == list(range(20))


def test_clients_that_dawdle_are_let_go_and_hold_up_nobody(port, monkeypatch):
    import asyncio

    import uvicorn

    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.5)

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = uvicorn.Server(uvicorn.Config(app, port=port, http=serve._Patient, lifespan="off", log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    silent, slow, again = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
    again.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert again.recv(1_000).startswith(b"HTTP/1.1 204")
    slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
    again.sendall(b"GET / HTTP/1.1\r\n")  # a second request that does not come either
    began = time.monotonic()
    for client in (silent, slow, again):
        client.settimeout(5)
        assert client.recv(1_000) == b""
    assert time.monotonic() - began < 3
    server.should_exit = True
    thread.join(10)
