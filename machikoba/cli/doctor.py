"""The command that says what ails an installation."""
from __future__ import annotations

from typing import Annotated

import typer

from machikoba.cli.app import Json, app
from machikoba.cli.output import result
from machikoba.cli.server import PORT
from machikoba.language import _


@app.command(help=_("Say whether this installation is well, and what to do where it is not."))
def doctor(
    public_name: Annotated[str | None, typer.Option(
        metavar="NAME", help=_("Also look whether the server is reached under this name (NAME:PORT unless 443)."))] = None,
    port: Annotated[int, typer.Option(help=_("Port of the server on this machine."))] = PORT,
    json: Json = False,
) -> None:
    from machikoba.doctor.examine import examine, worst
    from machikoba.doctor.finding import BAD, OK, WARN
    from machikoba.settings import home

    titles = {"programs": _("programs"), "settings": _("settings"), "home": _("home"), "disk": _("disk"), "memory": _("memory"),
              "clock": _("clock"), "store": _("store"), "audit": _("audit"), "tasks": _("tasks"), "bundles": _("bundles"),
              "base": _("open model"), "proof": _("proof"), "server": _("server"), "public name": _("public name"),
              "https": _("https"), "proxy": _("proxy")}
    marks = {OK: "○", WARN: "△", BAD: "×"}
    findings = examine(home(), port, public_name)
    state = worst(findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {titles[finding.name]}: {finding.found}")
        if finding.next:
            lines.append(_("  do this:  {text}").format(text=finding.next))
    lines.append({OK: _("All is well."), WARN: _("It works; what △ says should be put right."),
                  BAD: _("Put right what × says, then ask again.")}[state])
    result({"state": state, "findings": [finding.to_dict() for finding in findings]}, lines)
    if state == BAD:
        raise typer.Exit(1)
