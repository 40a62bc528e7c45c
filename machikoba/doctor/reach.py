"""Whether the server can be reached: on this machine, and under its public name through its proxy."""
from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from typing import Any

import machikoba
from machikoba.doctor.finding import Finding, bad, ok, warn
from machikoba.errors import OptionError
from machikoba.language import _

HERE_SECONDS, OUTSIDE_SECONDS = 3, 5  # to wait for an answer
LEAST_DAYS = 14  # until a certificate ends; proxies renew theirs about 30 days before
NAME = re.compile(r"([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?")
MOST_BYTES = 10_000  # of an answer


def server(port: int) -> tuple[Finding, bool]:
    """What listens on the server's port here, and whether it is our server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HERE_SECONDS)
    try:
        status, said = _asked(connection, "/healthz")
    except ConnectionRefusedError:
        return ok("server", _("not running; port {port} is free").format(port=port)), False
    except (OSError, http.client.HTTPException) as error:
        return bad("server", _("something on port {port} does not answer ({error})").format(port=port, error=_short(error)),
                   _("Look what runs there; if it is machikoba, restart it.")), False
    version = said.get("version")
    if status != 200 or said.get("status") != "ok" or not version:
        return bad("server", _("another program uses port {port}").format(port=port),
                   _("Stop what is running there, or choose another --port.")), False
    if version != machikoba.__version__:
        return warn("server", _("version {running} runs, version {here} is installed").format(
            running=version, here=machikoba.__version__), _("Restart the server.")), True
    return ok("server", _("runs on port {port}, version {version}").format(port=port, version=version)), True


def public(name: str) -> list[Finding]:
    """The certificate of `name` (with :PORT where it is not 443), and whether our server answers under it.

    Raises OptionError for what cannot be a name.
    """
    parts = NAME.fullmatch(name)
    if parts is None:
        raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="public-name"),
                          expected="office.example · office.example:8443", found=name[:100], next=_("Choose another name."))
    host, port = parts[1], int(parts[2] or 443)
    connection = http.client.HTTPSConnection(host, port, timeout=OUTSIDE_SECONDS, context=ssl.create_default_context())
    try:
        connection.connect()
        ends = ssl.cert_time_to_seconds(str(connection.sock.getpeercert()["notAfter"]))  # type: ignore[index]
        found = [_certificate(int((ends - time.time()) // 86_400))]
        return [*found, _answered(host, *_asked(connection, "/healthz")), *_measures(connection)]
    except socket.gaierror:
        return [bad("public name", _("{name} is not known in the internet").format(name=host),
                    _("Enter it with your domain's provider (an A or AAAA record with your office's address), then wait an "
                      "hour."))]
    except ssl.SSLCertVerificationError as error:
        return [bad("https", error.verify_message, _("Let the proxy fetch a certificate for {name}: port 80 must reach it from "
                                                     "outside. Its log says what failed.").format(name=host))]
    except (OSError, http.client.HTTPException) as error:
        return [bad("public name", _("{name}:{port} does not answer ({error})").format(name=host, port=port, error=_short(error)),
                    _("Is the proxy running, and do firewall and router let port {port} through? Some routers do not lead back "
                      "into the office: then try from a phone outside.").format(port=port))]
    finally:
        connection.close()


def _certificate(days: int) -> Finding:
    found = _("the certificate is valid for {n} more days").format(n=days)
    if days < LEAST_DAYS:
        return warn("https", found, _("The proxy should have renewed it: look into its log, port 80 must reach it."))
    return ok("https", found)


def _answered(name: str, status: int, said: dict[str, Any]) -> Finding:
    if status == 200 and said.get("status") == "ok":
        return ok("public name", _("{name} leads to the server").format(name=name))
    if status in (502, 503, 504):
        return bad("public name", _("the proxy answers, the server behind it does not ({status})").format(status=status),
                   _("Start `machikoba serve`, and check the address that the proxy passes requests to."))
    error = said.get("error", {})
    if isinstance(error, dict) and error.get("code") == "host_unknown":
        return bad("public name", str(error.get("message")), str(error.get("next")))
    return bad("public name", _("something else answers under {name} ({status})").format(name=name, status=status),
               _("Check where the name and the proxy lead."))


def _measures(connection: http.client.HTTPSConnection) -> list[Finding]:
    """Nothing, unless the proxy makes visitors look as if they came from this machine."""
    if _asked(connection, "/metrics")[0] != 200:
        return []
    return [bad("proxy", _("the server takes visitors from outside for programs on this machine"),
                _("Let the proxy add X-Forwarded-For and X-Forwarded-Proto, and start the server with --behind-proxy ADDRESS."))]


def _asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer; no object for anything else."""
    connection.request("GET", path, headers={"User-Agent": "machikoba doctor"})
    reply = connection.getresponse()
    body = reply.read(MOST_BYTES)
    connection.close()  # the next question opens another
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    return reply.status, said if isinstance(said, dict) else {}


def _short(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
