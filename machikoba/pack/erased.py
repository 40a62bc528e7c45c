"""The one change that a sealed bundle may see: texts that go (DESIGN 8). At every moment of it the bundle can be opened.

A message that goes leaves an empty line, for the weights count lines. Weights are made of all messages: a bundle with an
empty line waits to be made again. What is made in its place lies beside it until both change names.

    NAME.bundle  .NAME.bundle.remade   NAME.bundle -> .NAME.bundle.gone, .NAME.bundle.remade -> NAME.bundle, .gone deleted
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machikoba import files
from machikoba.pack.bundle import EXAMPLES, MANIFEST, SUFFIX, Bundle

REMADE, GONE = ".remade", ".gone"
EMPTY = b'"text": "",'  # of a line; in a text the quotes would be escaped


def left(bundle: Bundle) -> list[dict[str, Any]]:
    """The examples that still have a text."""
    return [example for example in bundle.examples() if example["text"]]


def unfinished(path: Path) -> bool:
    """Whether a text of the bundle at `path` has gone since its weights were made."""
    try:
        return EMPTY in (path / EXAMPLES).read_bytes()
    except OSError:
        return False


def erase(bundle: Bundle, goes: Callable[[dict[str, Any]], bool]) -> int:
    """Empties the lines of the examples that go; how many they were. Raises StorageError."""
    lines, gone = [], 0
    for example in bundle.examples():
        if example["text"] and goes(example):
            example = {"id": "", "set": example["set"], "group": "", "text": "", "label": ""}
            gone += 1
        lines.append(json.dumps(example, ensure_ascii=False) + "\n")
    if gone:
        _put(bundle.path, "".join(lines).encode())
    return gone


def erase_all(bundle: Bundle) -> int:
    """Takes examples.jsonl away; how many texts were in it. The bundle still answers. Raises StorageError."""
    gone = len(left(bundle))
    if (bundle.path / EXAMPLES).exists():
        _put(bundle.path, None)
    return gone


def _put(folder: Path, examples: bytes | None) -> None:
    for draft in folder.glob(".*.draft*"):  # of a change that was cut short
        draft.unlink()
    listed = (folder / MANIFEST).read_text(encoding="utf-8").splitlines(keepends=True)
    others = [line for line in listed if line.partition("  ")[2] != f"{EXAMPLES}\n"]
    _replace(folder / MANIFEST, "".join(others).encode())  # a bundle without examples is whole: so it is until the end
    if examples is None:
        (folder / EXAMPLES).unlink()
        files.sync_folder(folder)
        return
    _replace(folder / EXAMPLES, examples)
    mine = f"{files.digest(folder / EXAMPLES)}  {EXAMPLES}\n"
    _replace(folder / MANIFEST, "".join(sorted([*others, mine], key=lambda line: line.partition("  ")[2])).encode())


def _replace(path: Path, content: bytes) -> None:
    with files.draft_file(path) as draft:
        draft.write_bytes(content)
    files.sync_folder(path.parent)


def beside(path: Path) -> Path:
    """Where what takes the place of the bundle at `path` is made."""
    return path.with_name(f".{path.name}{REMADE}")


def swap(path: Path) -> None:
    """Puts what lies beside in the place of the bundle at `path`; `settle` deletes the old one. Raises StorageError."""
    take_away(path)
    with files.storing(path):
        beside(path).rename(path)
    files.sync_folder(path.parent)


def take_away(path: Path) -> None:
    """Nobody finds the bundle at `path` from now on; `settle` deletes it. Raises StorageError."""
    gone = path.with_name(f".{path.name}{GONE}")
    with files.storing(path):
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
    files.sync_folder(path.parent)


def settle(path: Path) -> None:
    """Finishes a change of places that was cut short, and deletes what has gone. Only one process may do so at a time."""
    gone = path.with_name(f".{path.name}{GONE}")
    if gone.exists() and not path.exists() and beside(path).exists():
        beside(path).rename(path)
    shutil.rmtree(gone, ignore_errors=True)


def settle_all(folder: Path) -> None:
    """`settle` for every bundle of a folder."""
    for gone in folder.glob(f".*{SUFFIX}{GONE}"):
        settle(folder / gone.name[1:].removesuffix(GONE))
