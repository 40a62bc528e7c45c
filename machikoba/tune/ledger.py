"""How often rows have been asked for a certificate: the k-th answer from overlapping rows costs more (DESIGN 7).

One JSON line per certificate in HOME/certified.jsonl, written and flushed before the rows' answers are looked at.
"""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from machikoba import files


def spend(home: Path, fingerprint: str, groups: Sequence[str]) -> int:
    """k: this is the k-th certificate on rows that overlap `groups`.

    The same fingerprint (same weights, thresholds, rows and labels) asks nothing new and keeps its k. Of runs that ask at the
    same moment each gets a k of its own. Raises StorageError.
    """
    path = home / "certified.jsonl"
    marks = sorted({hashlib.sha256(group.encode()).hexdigest()[:12] for group in groups})
    with files.alone_at(path):
        return _spend(path, fingerprint, marks)


def _spend(path: Path, fingerprint: str, marks: list[str]) -> int:
    earlier = 0
    wanted = set(marks)
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in written.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a run that was killed while writing: it never saw an answer
            continue
        if entry["fingerprint"] == fingerprint:
            return int(entry["k"])
        earlier += not wanted.isdisjoint(entry["groups"])
    line = json.dumps({"fingerprint": fingerprint, "k": earlier + 1, "groups": marks}) + "\n"
    with files.storing(path), path.open("a", encoding="utf-8") as file:
        file.write(line if not written or written.endswith("\n") else "\n" + line)
        file.flush()
        os.fsync(file.fileno())
    return earlier + 1
