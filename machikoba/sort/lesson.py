"""A lesson in a process of its own, so that whoever serves pages goes on serving: python -m machikoba.sort.lesson FOLDER

Learns from all that has been done so far, and leaves the apprentice with what is to be said of it in the session's folder.
"""
from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from machikoba import files
from machikoba.sort import kept
from machikoba.sort.advise import divided, mixed
from machikoba.sort.answers import Answers
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.folder import STEPS, steps
from machikoba.sort.learn import learn
from machikoba.sort.outlook import outlook
from machikoba.sort.pool import Pool
from machikoba.sort.session import replay

NICENESS = 5


def give(folder: Path) -> None:
    """Learns, and keeps what was learnt, unless somebody was forgotten meanwhile. Raises OSError, ValueError, StorageError."""
    before = (folder / STEPS).stat().st_ino  # another once something was erased
    pool, _dates, _proposals = kept.load(folder)
    done = steps(folder)
    answers = replay(done)
    with threadpool_limits(1, user_api="blas"):  # two on matrices of a few hundred rows wait for each other
        apprentice = learn(pool, answers)
        lesson = kept.Lesson(apprentice, len(done), advice(pool, answers, apprentice))
    with files.alone_at(folder / STEPS):
        if (folder / STEPS).stat().st_ino == before:
            kept.save_lesson(folder, lesson)


def advice(pool: Pool, answers: Answers, apprentice: Apprentice | None) -> dict[str, Any]:
    """How good it is, what is still needed, which labels to merge or split, as JSON holds it."""
    found = asdict(outlook(pool, answers, apprentice))
    return {"outlook": found, "mixed": [asdict(pair) for pair in mixed(answers, apprentice)] if apprentice else [],
            "divided": [asdict(one) for one in divided(pool, answers, apprentice)] if apprentice else []}


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    give(Path(sys.argv[1]))
