"""A file that somebody sent, looked at in a process of its own: whatever is in it, the server goes on answering."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from machikoba.errors import DataError, MachikobaError
from machikoba.language import _, language

MOST_SECONDS = 120.0
SHOWN_ROWS = 5
_turn = BoundedSemaphore(2)  # as many at once


def looked_at(path: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `machikoba check` says of the file, called `name`, with its first rows. Raises MachikobaError."""
    return _asked("check", path, name, "--rows", str(SHOWN_ROWS), *_words(options, ("text", "label", "sheet")))


def estimated(path: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a tuning would cost, step by step. Raises MachikobaError."""
    return _asked("tune", path, name, "--estimate", *_words(options, (
        "text", "label", "sheet", "none_label", "never_automatic", "target_error", "rungs")))


def _words(options: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """Options as on the command line; a value that begins with a dash stays a value."""
    found = []
    for name in names:
        value = options.get(name)
        for one in value if isinstance(value, list) else [value]:
            if one not in (None, ""):
                found.append(f"--{name.replace('_', '-')}={one}")
    return found


def _asked(command: str, path: Path, name: str, *words: str) -> dict[str, Any]:
    asked = [sys.executable, "-m", "machikoba", command, str(path), *words, "--json"]
    with _turn:
        try:
            told = subprocess.run(asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  timeout=MOST_SECONDS, env=os.environ | {"MACHIKOBA_LANG": language()}).stdout
        except subprocess.TimeoutExpired:
            raise DataError("file_too_hard", _("This file takes too long to read."),
                            expected=_("at most {n} seconds").format(n=round(MOST_SECONDS)),
                            next=_("Save it as .xlsx or .csv, or send it in smaller parts.")) from None
    try:
        found = json.loads(told)
    except ValueError:  # the process died of the file
        raise DataError("file_too_hard", _("This file cannot be read."), expected=_("a table of messages"),
                        next=_("Save it as .xlsx or .csv and send it again.")) from None
    if "error" in found:
        raise _error(found["error"], path, name)
    return dict(found)


def _error(told: dict[str, str], path: Path, name: str) -> MachikobaError:
    """An error as the other process told it; where the file lies is nobody's business."""
    words = {part: str(told.get(part, "")).replace(str(path), name).replace(path.name, name)
             for part in ("message", "expected", "found", "next")}
    return DataError(told["code"], words.pop("message"), **words)
