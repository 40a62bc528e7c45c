"""What a sorting session is made of, saved and loaded: the pool, what is proposed, what was learnt last."""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from machikoba import files
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.folder import GROUPS, LESSON, MESSAGES, POOL, STEPS, Step, messages, steps
from machikoba.sort.groups import Group
from machikoba.sort.pool import Pool

ARRAYS = ("distinct", "sizes", "vectors", "centre", "sampled", "useful")
LEARNT = ("rows", "given", "weights", "scores", "doubt", "held_out", "half")


@dataclass(frozen=True)
class Proposal:
    """A group as the clerk sees it. messages: the most typical, by id."""

    name: str
    n_messages: int
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Lesson:
    """What was learnt last. steps: how many steps had been done by then; advice: of `sort.lesson`, ready to be told."""

    apprentice: Apprentice | None
    steps: int
    advice: dict[str, Any]


def save_new(folder: Path, pool: Pool, dates: Sequence[str | None], groups: Sequence[Group]) -> None:
    """Makes the folder of a session, whole or not at all. dates: of each distinct message. Raises StorageError."""
    with files.draft_folder(folder) as draft:
        _save_messages(draft, pool, dates)
        proposals = [Proposal(one.name, one.n_messages, tuple(pool.ids[i] for i in one.typical)) for one in groups]
        files.write(draft / GROUPS, json.dumps([asdict(one) for one in proposals], ensure_ascii=False).encode())
        files.write(draft / STEPS, b"")


def load(folder: Path) -> tuple[Pool, list[str | None], list[Proposal]]:
    """The messages, their dates and what is proposed. Raises OSError, ValueError."""
    lines = messages(folder)
    try:
        kept = load_file(folder / POOL)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    words = csr_matrix((kept["words.data"], kept["words.indices"], kept["words.indptr"]),
                       shape=(len(lines), int(kept["words.columns"][0])))
    pool = Pool(tuple(line["text"] for line in lines), tuple(line["id"] for line in lines), kept["distinct"], kept["sizes"],
                kept["vectors"], words, kept["centre"], kept["sampled"], kept["useful"])
    found = json.loads((folder / GROUPS).read_text(encoding="utf-8")) if (folder / GROUPS).exists() else []
    return pool, [line["date"] for line in lines], [
        Proposal(one["name"], one["n_messages"], tuple(one["messages"])) for one in found]


def save_lesson(folder: Path, lesson: Lesson) -> None:
    """Keeps what was learnt. Raises StorageError."""
    facts = {"steps": lesson.steps, "advice": lesson.advice}
    arrays: dict[str, np.ndarray] = {}
    if lesson.apprentice is not None:
        facts |= {"labels": lesson.apprentice.labels, "factor": lesson.apprentice.factor}
        arrays = {name: getattr(lesson.apprentice, name) for name in LEARNT}
    arrays["facts"] = np.frombuffer(json.dumps(facts, ensure_ascii=False).encode(), dtype=np.uint8)
    with files.draft_file(folder / LESSON) as draft, files.storing(folder / LESSON):
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft)


def load_lesson(folder: Path) -> Lesson | None:
    """What was learnt last; None where nothing was, or the file is damaged."""
    try:
        kept = load_file(folder / LESSON)
        facts = json.loads(kept.pop("facts").tobytes())
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
    apprentice = Apprentice(tuple(facts["labels"]), factor=facts["factor"], **kept) if "labels" in facts else None
    return Lesson(apprentice, facts["steps"], facts["advice"])


def erase(folder: Path, speaks: Callable[[str, str], bool], removed: str) -> int:
    """Takes away the messages, answers and names of which speaks(text, id) is true; how many messages.

    The place of a message stays, empty and far from everything, so that nothing else moves; what was proposed and learnt
    goes as a whole, since words of it may be in there. removed: stands for a name. Raises OSError, ValueError, StorageError.
    """
    with files.alone_at(folder / STEPS):
        pool, dates, _proposals = load(folder)
        gone = np.array([bool(text) and speaks(text, identity) for text, identity in zip(pool.texts, pool.ids, strict=True)])
        named = [_renamed(step, speaks, f"{removed} {number}") for number, step in enumerate(steps(folder), 1)]
        (folder / LESSON).unlink(missing_ok=True)
        (folder / GROUPS).unlink(missing_ok=True)
        lost = {identity for identity, one in zip(pool.ids, gone, strict=True) if one}
        kept = [step for step in named if step.get("message") not in lost]
        lines = "\n".join(json.dumps(step | ({"messages": [m for m in step["messages"] if m not in lost]} if "messages" in step
                                             else {}), ensure_ascii=False) for step in kept)
        with files.draft_file(folder / STEPS) as draft:
            files.write(draft, lines.encode())
        if gone.any():
            _save_messages(folder, _without(pool, gone), [None if one else date for date, one in zip(dates, gone, strict=True)])
    return int(gone.sum())


def _renamed(step: Step, speaks: Callable[[str, str], bool], name: str) -> Step:
    return step | {"name": name} if "name" in step and speaks(step["name"], "") else step


def _without(pool: Pool, gone: np.ndarray) -> Pool:
    """The pool with nothing in the rows `gone`, bool (m,)."""
    vectors = np.where(gone[:, None], 0, pool.vectors).astype(np.float32)
    words = pool.words.copy()
    words.data[np.repeat(gone, np.diff(words.indptr))] = 0
    words.eliminate_zeros()
    rows = set(np.flatnonzero(gone).tolist())
    return Pool(texts=tuple("" if one else text for text, one in zip(pool.texts, gone, strict=True)),
                ids=tuple(f"gone-{i}" if one else identity for i, (identity, one) in enumerate(zip(pool.ids, gone, strict=True))),
                distinct=pool.distinct, sizes=pool.sizes, vectors=vectors, words=words, centre=pool.centre,
                sampled=np.array([i for i in pool.sampled.tolist() if i not in rows], dtype=np.int64),
                useful=np.array([i for i in pool.useful.tolist() if i not in rows], dtype=np.int64))


def _save_messages(folder: Path, pool: Pool, dates: Sequence[str | None]) -> None:
    arrays = {name: np.ascontiguousarray(getattr(pool, name)) for name in ARRAYS} | {
        "words.data": pool.words.data, "words.indices": pool.words.indices, "words.indptr": pool.words.indptr,
        "words.columns": np.array([pool.words.shape[1]])}
    # The numbers first: should this be cut short, the messages are found again and taken away again.
    with files.draft_file(folder / POOL) as draft, files.storing(folder / POOL):
        save_file(arrays, draft)
    lines = [json.dumps({"id": identity, "text": text, "date": date}, ensure_ascii=False)
             for identity, text, date in zip(pool.ids, pool.texts, dates, strict=True)]
    with files.draft_file(folder / MESSAGES) as draft:
        files.write(draft, "\n".join(lines).encode())
