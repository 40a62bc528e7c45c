"""What commands print: plain lines for people, one object for programs, errors in one shape, progress on a terminal."""
from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machikoba.errors import MachikobaError
from machikoba.language import _
from machikoba.tune.ladder import Say


class Mode:
    """How this process prints, set once by the command's --json; whether --resume could go on with its command; and what is
    said when it is stopped where something is left to do."""

    json = False
    resumable = False
    unfinished = ""


def show(lines: list[str]) -> None:
    """Plain lines on standard output, unless --json was given."""
    if not Mode.json:
        print("\n".join(lines), flush=True)


def result(value: dict[str, Any], lines: list[str]) -> None:
    """The result: one JSON object with --json, else the lines."""
    if Mode.json:
        print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)
    else:
        show(lines)


def command(*words: str | Path) -> str:
    """A machikoba command that can be copied into this shell: the program as it is reached from here, paths short."""
    found = shutil.which("machikoba")
    started = Path(sys.argv[0])
    program = ("machikoba" if found else "python -m machikoba" if started.name == "__main__.py"
               else short(started.absolute()))
    plain = [short(word) if isinstance(word, Path) else word for word in words]
    # Neither cmd nor PowerShell takes what shlex does to a name with spaces.
    return " ".join([program, subprocess.list2cmdline(plain) if os.name == "nt" else shlex.join(plain)])


def short(path: Path) -> str:
    """Relative to the current folder where that is inside it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def fail(error: MachikobaError) -> int:
    """Prints an error in the one shape; returns its exit code."""
    if Mode.json:
        print(json.dumps({"error": error.to_dict()}, ensure_ascii=False))
        return error.exit_code
    lines = [_("Problem: {message}").format(message=error.message)]
    if error.expected:
        lines.append(_("  expected: {text}").format(text=error.expected))
    if error.found:
        lines.append(_("  found:    {text}").format(text=error.found))
    if error.next:
        lines.append(_("  do this:  {text}").format(text=error.next))
    print("\n".join(lines), file=sys.stderr)
    return error.exit_code


def interrupted() -> int:
    """Says that the user stopped the run; returns the shell's exit code for it."""
    message = Mode.unfinished or _("Stopped. Nothing half-done was left behind.")
    way = _("Give the same command with --resume to go on from here.") if Mode.resumable else ""
    if Mode.json:
        print(json.dumps({"error": {"code": "interrupted", "message": message, "expected": "", "found": "", "next": way}},
                         ensure_ascii=False))
    else:
        print(f"\n{message} {way}".rstrip(), file=sys.stderr)
    return 130


@contextmanager
def progress() -> Iterator[Say]:
    """A progress bar on a terminal; elsewhere silence."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    names = {"words": _("words"), "features": _("words and open model"), "top": _("tuning the upper half of the open model"),
             "lora": _("tuning the open model"), "reading": _("open model reads"), "packing": _("packing and testing"),
             "unpacking": _("unpacking"), "rows": _("rows"), "bundles": _("bundles"), "replay": _("repeating the proof")}
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                  TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, Any] = {}

        def say(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(names.get(what, what), total=total)
            bar.update(bars[what], completed=done, total=total)

        yield say
