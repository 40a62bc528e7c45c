"""What comes over the wire and is not as it should be: each is told so or let go, and nobody else notices."""
from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from machikoba.store.database import Database, default_url
from tests.web.conftest import owner_key

ASK = "/v1/bundles/inquiries/predict"


@pytest.fixture
def served(start, home, port, tmp_path):
    """Starts the server with a key; gives its process, log and headers."""

    def run(first="", **options):
        headers, log = owner_key(Database(default_url(home))), tmp_path / "log"
        process = start("--no-worker", first=first, log=log, **options)
        return process, log, headers

    return run


def speak(port, sent, answers, seconds=30.0):
    """What comes back for these bytes: so many answers, or all until the server closes; with none to come we close first."""
    with socket.create_connection(("127.0.0.1", port), seconds) as client:
        with suppress(ConnectionError):
            client.sendall(sent)
            if not answers:
                client.shutdown(socket.SHUT_WR)
        got = b""
        with suppress(ConnectionError):
            while len(statuses(got)) < max(1, answers) and (part := client.recv(1 << 16)):
                got += part
        return got


def statuses(got):
    """The status of each answer in `got`, and that each that is an error has the one shape."""
    found = []
    while b"\r\n\r\n" in got:
        head, _, rest = got.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(fields.get("content-length", 0))
        if len(rest) < length:
            break
        body, got = rest[:length], rest[length:]
        found.append(status)
        if status >= 400 and body:
            assert set(json.loads(body)["error"]) == {"code", "message", "expected", "found", "next"}
            assert fields["x-content-type-options"] == "nosniff"
    return found


def test_requests_that_are_none(served, port):
    """Each line: what is sent, and the statuses that come back in order; of a set one comes."""
    process, log, headers = served()
    host, key = f"127.0.0.1:{port}".encode(), headers["Authorization"].encode()
    known = b"Host: " + host + b"\r\nAuthorization: " + key + b"\r\n"
    asked = json.dumps({"texts": ["a"]}).encode()
    ask = b"POST " + ASK.encode() + b" HTTP/1.1\r\n" + known + b"Content-Type: application/json\r\n"
    whole = ask + b"Content-Length: %d\r\n\r\n" % len(asked) + asked
    upload = b"POST /v1/tasks HTTP/1.1\r\n" + known

    def get(path, *lines, version=b"1.1"):
        return b"\r\n".join([b"GET " + path + b" HTTP/" + version, b"Host: " + host, *lines, b"", b""])

    def form(content_type, body):
        return upload + b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n" % (content_type, len(body)) + body

    field = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n'
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\na\r\n'
    cases = [
        ("as it should be", whole, [200]),
        ("three at once", whole * 3, [200, 200, 200]),
        ("absolute target", get(b"http://" + host + b"/healthz"), [404]),
        ("no slash", get(b"healthz"), [404]),
        ("a star", b"OPTIONS * HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", [404]),
        ("old", get(b"/healthz", version=b"1.0"), [200]),
        ("old, without host", b"GET /healthz HTTP/1.0\r\n\r\n", [400]),
        ("without host", b"GET /healthz HTTP/1.1\r\n\r\n", [400]),
        ("two hosts", get(b"/healthz", b"Host: evil.example"), [400]),
        ("another host", b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", [400]),
        ("half a host", b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n", [400]),
        ("strange origin", ask + b"Origin: http://[\r\nContent-Length: 0\r\n\r\n", [403]),
        ("unknown version", get(b"/healthz", version=b"9.9"), [400]),
        ("newest version", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), [400]),
        ("nothing but zeros", bytes(70_000), [400]),
        ("unknown method", b"BREW /healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", [405]),
        ("tunnel", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", [404]),
        ("another protocol", get(b"/healthz", b"Connection: upgrade", b"Upgrade: websocket"), [200]),
        ("a long target", get(b"/" + b"a" * 60_000), [404]),
        ("a very long target", get(b"/" + b"a" * 200_000), [400]),
        ("a very long header", get(b"/healthz", b"X: " + b"a" * 200_000), [400]),
        ("ten thousand headers", get(b"/healthz", *[b"X%d: a" % i for i in range(10_000)]), [400]),
        ("a header without end", b"GET /healthz HTTP/1.1\r\nHost: " + host, []),
        ("a space before the colon", get(b"/healthz", b"X : a"), [400]),
        ("zero in a header", get(b"/healthz", b"X: a\x00b"), [400]),
        ("zero in a target", get(b"/\x00"), [400]),
        ("two lengths", ask + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", [400]),
        ("a negative length", ask + b"Content-Length: -1\r\n\r\n", [400]),
        ("a length with a sign", ask + b"Content-Length: +3\r\n\r\nabc", [400]),
        ("a length of many digits", ask + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", [400]),
        ("a length far too great", ask + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", [413]),
        ("a length too great by one", ask + b"Content-Length: %d\r\n\r\n" % (len(asked) + 1) + asked, []),
        ("a length too small by one", ask + b"Content-Length: %d\r\n\r\n" % (len(asked) - 1) + asked, [400]),
        ("length and chunks", ask + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [422]),
        ("chunks of another kind", ask + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [501]),
        ("a chunk of no size", ask + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", [400]),
        ("a wrong chunk after a good one", ask + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", [400]),
        ("a wrong chunk after the answer",
         upload.replace(key, b"Bearer x") + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400, 401}),
        ("many paths in one", get(b"/v1/bundles/..%2f..%2f..%2fetc%2fpasswd"), [404]),
        ("bytes that are no text", get(b"/v1/bundles/%ff%fe%00/predict"), [405]),
        ("a strange key", get(b"/v1/bundles", b"Authorization: Bearer \xe9\xff"), [401]),
        ("a strange cookie", get(b"/v1/bundles", b"Cookie: machikoba=\xe9\xff; =; ;;"), [401]),
        ("a strange language", get(b"/healthz", b"Accept-Language: \xff;q=x,,;"), [200]),
        ("a strange idempotency key",
         ask.replace(b"predict", b"corrections") + b"Idempotency-Key: \xff\r\nContent-Length: 2\r\n\r\n{}", [422]),
        ("a strange business", get(b"/v1/bundles", b"X-Machikoba-Business: ' OR 1=1 --", b"Authorization: " + key), [200]),
        ("strange text", ask + b"Content-Length: 12\r\n\r\n{\"texts\":\xff\xfe}", [400]),
        ("depth", ask + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000, [400]),
        ("a great number", ask + b"Content-Length: 20011\r\n\r\n" + b'{"texts": ' + b"9" * 20_000 + b"}", {400, 422}),
        ("a form without a border", form(b"multipart/form-data", b"x"), [400]),
        ("a form that does not end", form(b"multipart/form-data; boundary=x", file + field), [400]),
        ("a form whose text is none",
         form(b"multipart/form-data; boundary=x", field + b"\xff\xfe\r\n" + file + b"--x--\r\n"), [422]),
        ("a form of many fields", form(b"multipart/form-data; boundary=x", (field + b"a\r\n") * 2_000 + b"--x--\r\n"), [400]),
        ("a form in an unknown writing", form(b"multipart/form-data; boundary=x; charset=none",
                                              field + b"\x00\r\n" + file + b"--x--\r\n"), [422]),
    ]
    wrong = []
    for what, sent, expected in cases:
        got = statuses(speak(port, sent, 1 if isinstance(expected, set) else len(expected)))
        fits = len(got) == 1 and got[0] in expected if isinstance(expected, set) else got == expected
        if not fits:
            wrong.append((what, got, expected))
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200, what
    assert not wrong, str(wrong)
    assert process.poll() is None
    assert "Traceback" not in log.read_text()


def test_whoever_waits_to_be_told_to_go_on_is_told_so_or_refused(served, port):
    _process, _log, headers = served()
    body = json.dumps({"texts": ["a"]}).encode()
    for sent, first in ((headers["Authorization"], b"HTTP/1.1 100"), ("Bearer mk_wrong", b"HTTP/1.1 401")):
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(f"POST {ASK} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {sent}\r\nExpect: 100-continue\r\n"
                           f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            assert client.recv(1_000).startswith(first)
            if first.endswith(b"100"):
                client.sendall(body)
                assert client.recv(1_000).startswith(b"HTTP/1.1 200")


def flood(port, path, headers, mib=200, content_type="application/json"):
    """The status for a body of `mib` MiB, sent in chunks without a length until nobody takes them any more."""
    with socket.create_connection(("127.0.0.1", port), 120) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n"
        client.sendall((head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode())
        with suppress(ConnectionError):
            if "multipart" in content_type:
                part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
                client.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
            chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
            for _ in range(mib):
                client.sendall(chunk)
        got = b""
        with suppress(ConnectionError):
            while b"\r\n\r\n" not in got and (part := client.recv(1 << 16)):
                got += part
        return int(got.split()[1])


def test_bodies_of_200_mib_are_refused_in_little_memory(served, port, tmp_path):
    (tmp_path / "spool").mkdir()
    process, _log, headers = served(env={"TMPDIR": str(tmp_path / "spool")})
    url = f"http://127.0.0.1:{port}"
    httpx.post(f"{url}{ASK}", headers=headers, json={"texts": ["a"]}, timeout=60).raise_for_status()
    watched, over, peak, spooled = psutil.Process(process.pid), threading.Event(), [0], [0]
    before = watched.memory_info().rss

    def watch():
        while not over.wait(0.01):
            peak[0] = max(peak[0], watched.memory_info().rss)
            spooled[0] = max(spooled[0], sum(one.fd >= 0 and str(tmp_path / "spool") in one.path for one in watched.open_files()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    form = "multipart/form-data; boundary=x"
    got = {}
    asked = {"known": (ASK, headers, "application/json"), "file": ("/v1/tasks", headers, form),
             "stranger": (ASK, {}, "application/json"), "stranger's file": ("/v1/tasks", {}, form),
             "sign-in": ("/v1/sign-ins", {}, "application/json")}

    def send(what):
        path, known, content_type = asked[what]
        got[what] = flood(port, path, known, content_type=content_type)

    threads = [threading.Thread(target=send, args=(what,)) for what in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watcher.join()
    assert got == {"known": 413, "file": 413, "stranger": 401, "stranger's file": 401, "sign-in": 413}
    assert spooled[0] <= 1, "only the file of whoever is known comes to the disk"
    assert list((tmp_path / "spool").iterdir()) == []
    assert peak[0] - before < 64 << 20, f"{(peak[0] - before) >> 20} MiB more"
    assert httpx.post(f"{url}{ASK}", headers=headers, json={"texts": ["a"]}).status_code == 200


QUICK = ("from machikoba.web import guard, serve\n"
         "serve.HEAD_SECONDS, serve.TAKEN_SECONDS, guard.BODY_SECONDS, serve.MOST_CONNECTIONS = 2.0, 2.0, 2.0, 150\n")


def open_on(process):
    """How many connections the server holds."""
    return sum(one.status == "ESTABLISHED" for one in psutil.Process(process.pid).net_connections("tcp"))


def closed(client, seconds):
    """Whether the server lets this connection go within that time."""
    client.settimeout(seconds)
    with suppress(ConnectionError):
        try:
            while client.recv(1 << 16):
                pass
        except TimeoutError:
            return False
    return True


def test_clients_that_dawdle_are_let_go_while_others_are_answered(served, port):
    """Forty that say nothing, forty that stop in the head, forty in the body, two that never take their answers."""
    process, log, headers = served(first=QUICK)
    url, key = f"http://127.0.0.1:{port}", headers["Authorization"]
    with ExitStack() as stack:
        def connect(sent):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            client.sendall(sent)
            return client

        head = f"POST {ASK} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\n".encode()
        body = head + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        held = [connect(sent) for sent in (b"", head, body) for _ in range(40)]
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            client.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                for _ in range(2_000):
                    client.send(b"GET /v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            held.append(client)
        began, answered = time.monotonic(), 0
        while time.monotonic() - began < 1.5:
            for client in held[::7]:
                with suppress(OSError):
                    client.send(b" ")  # a byte now and then
            with httpx.Client() as other:
                assert other.post(f"{url}{ASK}", headers=headers, json={"texts": ["a"]}, timeout=10).status_code == 200
            answered += 1
        assert answered > 1
        until = time.monotonic() + 30
        while open_on(process) and time.monotonic() < until:
            time.sleep(0.1)
        assert open_on(process) == 0
    assert "Traceback" not in log.read_text()


def test_more_connections_than_can_be_held_are_let_go_and_the_store_still_opens(served, port):
    first = QUICK + ("import resource\n"
                     "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
    _process, log, headers = served(first=first)
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(140)]
        kept = {"text": "a", "label": "parking"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/bundles/inquiries/corrections", headers=headers, json=kept, timeout=30)
        assert answer.status_code == 201
        for _ in range(30):
            with suppress(OSError):
                held.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)))
        assert sum(closed(client, 0.2) for client in held[-10:]) == 10
        assert all(closed(client, 20) for client in held)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    assert "Traceback" not in log.read_text()
