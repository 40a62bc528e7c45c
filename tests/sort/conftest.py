"""Invented messages of four kinds with vectors around each kind's centre."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from machikoba.sort.answers import Answers
from machikoba.sort.pool import Pool
from tests.conftest import WORDS, messages


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As whoever calls these functions has it: on a busy machine two threads wait for each other."""
    with threadpool_limits(1, user_api="blas"):
        yield


def made(n: int, seed: int = 0, spread: float = 0.6, d: int = 24, opposite: bool = False) -> tuple[Pool, list[str]]:
    """A pool of n messages, and the kind of each distinct one. opposite: food is as far from bath as can be."""
    rows = messages(n, seed)
    rng = np.random.default_rng(seed)
    centres = dict(zip(WORDS, rng.normal(size=(len(WORDS), d)), strict=True))
    if opposite:
        centres["food"] = -centres["bath"]
    vectors = np.stack([centres[kind] for _text, kind in rows]) + spread * rng.normal(size=(n, d)) + 3.0
    pool = Pool.of([text for text, _kind in rows], vectors)
    first = np.unique(pool.distinct, return_index=True)[1]
    return pool, [rows[i][1] for i in first]


def answered(pool: Pool, kinds: list[str], which: list[str], answers: Answers | None = None) -> Answers:
    """The true kind of each message of `which`."""
    answers = answers or Answers()
    for message in which:
        kind = kinds[pool.row[message]]
        label = next((label for label, name in answers.names.items() if name == kind), None)
        if label is None:
            answers, label = answers.add(kind)
        answers = answers.answer(message, label)
    return answers


@pytest.fixture(scope="session")
def town() -> tuple[Pool, list[str]]:
    return made(400)
