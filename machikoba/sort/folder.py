"""A sorting session on the disk, in a folder of its own: where it lies, its messages and the steps that were done.

    messages.jsonl       id, text (masked) and date of each distinct message
    pool.safetensors     what the base and the words make of them: numbers only
    groups.json          what is alike, with the names proposed
    steps.jsonl          what the clerk did, a line for each step, appended
    lesson.safetensors   what was learnt of it last, with what is to be said of it
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machikoba import files

FOLDER = "sorting"  # of a business
MESSAGES, POOL, GROUPS, STEPS, LESSON = ("messages.jsonl", "pool.safetensors", "groups.json", "steps.jsonl",
                                         "lesson.safetensors")
FILES = (POOL, MESSAGES, GROUPS, STEPS)  # to be backed up; lessons are given again
Step = dict[str, Any]


def place(home: Path, business_id: str, session_id: str) -> Path:
    """The folder of a session."""
    return home / "businesses" / business_id / FOLDER / session_id


def remove(folder: Path) -> None:
    """Takes a session away."""
    shutil.rmtree(folder, ignore_errors=True)


def messages(folder: Path) -> list[dict[str, Any]]:
    """id, text and date of each distinct message. Raises OSError, ValueError."""
    return [json.loads(line) for line in (folder / MESSAGES).read_text(encoding="utf-8").splitlines()]


def steps(folder: Path) -> list[Step]:
    """What was done, in its order; a last line that was cut off was never told to anybody. Raises OSError."""
    found = []
    for line in (folder / STEPS).read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def append(folder: Path, step: Step) -> None:
    """Keeps a step; it is on the disk when this returns. Raises StorageError."""
    path = folder / STEPS
    with files.alone_at(path), files.storing(path), path.open("ab") as file:
        # After a line that was cut off an empty one, so that this one stands alone.
        file.write((b"\n" if file.tell() else b"") + json.dumps(step, ensure_ascii=False).encode())
        file.flush()
        files.flush(path)


def speaks_anywhere(folder: Path, speaks: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """(id, text) of the messages that speak of somebody, with ("", name) for names of labels that do. Raises OSError,
    ValueError."""
    found = [(line["id"], line["text"]) for line in messages(folder) if line["text"] and speaks(line["text"], line["id"])]
    return found + [("", step["name"]) for step in steps(folder) if "name" in step and speaks(step["name"], "")]
