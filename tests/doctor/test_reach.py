"""What answers on the port and under the public name: ours, another's, nothing, or a proxy that is set up wrongly."""
from __future__ import annotations

import datetime
import http.server
import json
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import machikoba
from machikoba.doctor import reach
from machikoba.doctor.finding import BAD, OK, WARN
from machikoba.errors import OptionError

WELL = {"/healthz": (200, {"status": "ok", "version": machikoba.__version__})}


@pytest.fixture
def listen(request):
    """Starts something on a port of its own that gives these answers; with a certificate, over TLS."""
    def start(answers, certificate=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, said = answers.get(self.path, (404, {}))
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        request.addfinalizer(server.server_close)
        request.addfinalizer(server.shutdown)
        return server.server_address[1]

    return start


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """Makes a certificate for localhost; with `trusted`, this process takes it for good."""
    def make(days=60, name="localhost", trusted=True):
        path = self_signed(tmp_path / f"{name}{days}.pem", days, name)
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(path))
        return path

    return make


def self_signed(path, days=60, name="localhost"):
    """Writes a certificate for `name` and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=90))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


def states(findings):
    assert all(bool(finding.next) == (finding.state != OK) for finding in findings)
    return [(finding.name, finding.state) for finding in findings]


@pytest.mark.parametrize(("answers", "state", "ours"), [
    (WELL, OK, True), ({"/healthz": (200, {"status": "ok", "version": "0.0.1"})}, WARN, True),
    ({}, BAD, False), ({"/healthz": (200, b"<html>")}, BAD, False), ({"/healthz": (200, [1])}, BAD, False),
    ({"/healthz": (200, {"status": "ok"})}, BAD, False)])
def test_what_is_on_the_port(listen, answers, state, ours):
    finding, serving = reach.server(listen(answers))
    assert (finding.state, serving) == (state, ours)


def test_a_free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        finding, serving = reach.server(free.getsockname()[1])
    assert (finding.state, serving) == (OK, False)


def test_something_that_never_answers(monkeypatch):
    monkeypatch.setattr(reach, "HERE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        finding, serving = reach.server(silent.getsockname()[1])
    assert (finding.state, serving) == (BAD, False)


def test_all_is_well_outside(listen, certificate):
    port = listen(WELL, certificate())
    assert states(reach.public(f"localhost:{port}")) == [("https", OK), ("public name", OK)]


@pytest.mark.parametrize(("answers", "word"), [
    ({"/healthz": (502, b"Bad Gateway")}, "behind it does not"), ({"/healthz": (200, b"Welcome to nginx")}, "something else"),
    ({"/healthz": (400, {"error": {"code": "host_unknown", "message": "not that name", "next": "x"}})}, "that name"),
    ({"/healthz": (200, {"error": "no"})}, "something else")])
def test_the_proxy_leads_elsewhere(listen, certificate, answers, word):
    findings = reach.public(f"localhost:{listen(answers, certificate())}")
    assert states(findings) == [("https", OK), ("public name", BAD)]
    assert word in findings[1].found


def test_a_proxy_that_says_nothing_of_visitors(listen, certificate):
    port = listen(WELL | {"/metrics": (200, b"machikoba_requests 1")}, certificate())
    assert states(reach.public(f"localhost:{port}")) == [("https", OK), ("public name", OK), ("proxy", BAD)]


def test_a_certificate_that_ends_soon(listen, certificate):
    findings = reach.public(f"localhost:{listen(WELL, certificate(days=10))}")
    assert states(findings)[0] == ("https", WARN)
    assert " 9 " in findings[0].found


@pytest.mark.parametrize("how", [{"days": -1}, {"name": "other.example"}, {"trusted": False}])
def test_a_certificate_that_is_not_good(listen, certificate, how):
    assert states(reach.public(f"localhost:{listen(WELL, certificate(**how))}")) == [("https", BAD)]


def test_nothing_there(monkeypatch):
    monkeypatch.setattr(reach, "OUTSIDE_SECONDS", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert states(reach.public(f"localhost:{free.getsockname()[1]}")) == [("public name", BAD)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert states(reach.public(f"localhost:{silent.getsockname()[1]}")) == [("public name", BAD)]


def test_a_name_that_nobody_knows(monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finding, = reach.public("office.example")
    assert (finding.name, finding.state) == ("public name", BAD)
    assert "office.example" in finding.found


@pytest.mark.parametrize("name", ["", "https://office.example", "office.example/path", "a b", "office.example:port"])
def test_what_cannot_be_a_name(name):
    with pytest.raises(OptionError):
        reach.public(name)
