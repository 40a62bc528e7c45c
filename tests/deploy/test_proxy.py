"""Real proxies, set up as deploy/ and the how-to say, in front of a real server: who comes in, and as whom."""
from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from machikoba.doctor import reach
from machikoba.doctor.finding import BAD, OK
from machikoba.store.people import MOST_FAILURES
from tests.doctor.test_reach import self_signed

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "umi-yama-kawa"
# Only for the test: a certificate of Caddy's own, ports that anybody may open, and nothing outside the test's folder.
HEAD = """{
	admin off
	skip_install_trust
	local_certs
	auto_https disable_redirects
	storage file_system %s
	http_port %d
	https_port %d
}
"""


NGINX = """daemon off; pid {folder}/pid; error_log {folder}/errors; events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate};
{lines} }}
}}
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what):
    until = time.monotonic() + 60
    while True:
        try:
            return what()
        except (httpx.TransportError, OSError):
            assert time.monotonic() < until
            time.sleep(0.1)


def caddy(program, folder, port, https):
    """Caddy with the file of deploy/, and its root certificate."""
    (folder / "Caddyfile").write_text(HEAD % (folder / "caddy", free_port(), https)
                                      + (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8"))
    started = subprocess.Popen([program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
                               env=os.environ | {"MACHIKOBA_PUBLIC_NAME": f"localhost:{https}", "HOME": str(folder),
                                                 "MACHIKOBA_UPSTREAM": f"127.0.0.1:{port}"}, stderr=(folder / "log").open("w"))
    return started, folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"


def nginx(program, folder, port, https):
    """nginx with the lines of the how-to, and its certificate."""
    text = (ROOT / "docs" / "how-to" / "from-office-pc-to-https.md").read_text(encoding="utf-8")
    lines = re.search(r"```\n(location /.*?)```", text, re.S)[1].replace(":8600", f":{port}")
    certificate = self_signed(folder / "localhost.pem")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, https=https, certificate=certificate, lines=lines))
    return subprocess.Popen([program, "-c", str(folder / "nginx.conf"), "-p", str(folder)],
                            stderr=(folder / "log").open("w")), certificate


@pytest.fixture(scope="module", params=["caddy", "nginx"])
def town(request, tmp_path_factory):
    """A server and a proxy that it believes: (port of the server, of the proxy, the proxy's root certificate, owner's token)."""
    name = request.param
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    folder, port, https = tmp_path_factory.mktemp("proxy"), free_port(), free_port()
    environment = os.environ | {"MACHIKOBA_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen([sys.executable, "-m", "machikoba", "serve", "--no-worker", "--json", "--port", str(port),
                               "--public-name", "localhost", "--public-name", "office.example", "--behind-proxy", "127.0.0.1"],
                              env=environment, stdout=subprocess.PIPE, text=True)
    proxy, root = (caddy if name == "caddy" else nginx)(program, folder, port, https)
    try:
        token = json.loads(server.stdout.readline())["owner_token"]
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz"))
        wait_for(lambda: httpx.get(f"https://localhost:{https}/healthz", verify=context(root)))
        yield port, https, root, token
    finally:
        for process in (proxy, server):
            process.terminate()
            process.wait(60)


def context(root):
    import ssl

    return ssl.create_default_context(cafile=str(root))


@pytest.fixture
def client(town):
    _port, https, root, _token = town
    # From an address of its own, as anybody who is not the proxy.
    transport = httpx.HTTPTransport(verify=context(root), local_address="127.0.0.2")
    with httpx.Client(base_url=f"https://localhost:{https}", transport=transport, timeout=60) as made:
        yield made


def test_an_account_a_cookie_and_a_change_through_the_proxy(town, client):
    _port, https, _root, token = town
    opened = client.post("/v1/accounts", json={"token": token, "mail": "a@example.jp", "name": "A", "password": PASSWORD})
    assert opened.status_code == 201, opened.text
    cookie = opened.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("secure", "httponly", "samesite=strict"))
    csrf = {"X-Machikoba-CSRF": opened.json()["csrf"]}
    here, elsewhere = {"Origin": f"https://localhost:{https}"}, {"Origin": "https://evil.example"}
    assert client.post("/v1/invitations", json={"role": "staff"}, headers=csrf | here).status_code == 201
    assert client.post("/v1/invitations", json={"role": "staff"}, headers=csrf | elsewhere).status_code == 403
    assert client.post("/v1/invitations", json={"role": "staff"}, headers=here).status_code == 403


def test_another_name_is_refused(town, client):
    port, *_rest = town
    assert b'"ok"' not in client.get("/healthz", headers={"Host": "evil.example"}).content
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/healthz").json()["status"] == "ok"


def test_the_measures_stay_inside(town, client):
    port, *_rest = town
    assert client.get("/metrics").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200


def test_a_visitor_cannot_choose_the_address_that_is_throttled(client):
    def wrong(i, address):
        return client.post("/v1/sign-ins", json={"mail": f"{i}@example.jp", "password": "x" * 12},
                           headers={"X-Forwarded-For": address, "X-Forwarded-Proto": "http"}).status_code

    answers = [wrong(i, f"198.51.100.{i}") for i in range(MOST_FAILURES["address"] + 1)]
    assert answers == [401] * MOST_FAILURES["address"] + [429]


def test_the_doctor_sees_it_from_outside(town, monkeypatch):
    _port, https, root, _token = town
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    found = reach.public(f"localhost:{https}")
    # The certificates of Caddy's own authority live for hours, so their end is near.
    assert [(finding.name, finding.state) for finding in found if finding.name != "https"] == [("public name", OK)]
    assert found[0].name == "https"
    assert found[0].state != BAD
