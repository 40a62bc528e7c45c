"""A session comes back from the disk as it was; what is taken away is taken away everywhere."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machikoba.sort import folder as place
from machikoba.sort import kept, lesson
from machikoba.sort.answers import SKIPPED
from machikoba.sort.groups import group
from machikoba.sort.session import Session
from tests.sort.conftest import made


@pytest.fixture
def folder(tmp_path):
    pool, _kinds = made(120)
    kept.save_new(tmp_path / "s", pool, ["2026-01-02", *[None] * (len(pool) - 1)], group(pool, 4))
    return tmp_path / "s"


def sat(folder, n, who="a"):
    """n answers by the true kind, which is the first group's name that holds it."""
    pool, kinds = made(120)
    session = Session(folder)
    for _turn in range(n):
        asked = session.question(who)
        kind = kinds[pool.row[asked.message]]
        label = next((label for label, name in session.answers.names.items() if name == kind), None)
        session.do(who, {"do": "new", "name": kind, "message": asked.message, "seconds": 2.0} if label is None else
                   {"do": "answer", "message": asked.message, "label": label, "seconds": 2.0})
    return session


def test_a_session_is_what_it_was_after_it_is_opened_again(folder):
    session = sat(folder, 30)
    lesson.give(folder)
    session.learnt()
    again = Session(folder)
    assert again.answers == session.answers
    assert again.seconds == 60
    assert again.pool.texts == session.pool.texts
    for name in kept.ARRAYS:
        assert np.array_equal(getattr(again.pool, name), getattr(session.pool, name))
    assert (again.pool.words != session.pool.words).nnz == 0
    assert np.array_equal(again.apprentice.scores, session.apprentice.scores)
    assert again.lesson.steps == 30
    assert [one.name for one in again.proposals] == [one.name for one in session.proposals]
    assert again.question("a") == session.question("a")


def test_the_apprentice_of_the_disk_suggests_the_right_label(folder):
    sat(folder, 40)
    lesson.give(folder)
    session, right, asked = Session(folder), 0, 0
    pool, kinds = made(120)
    while asked < 10:
        one = session.question("a")
        if one.suggested:
            asked += 1
            right += session.answers.names[one.suggested[0]] == kinds[pool.row[one.message]]
        session.do("a", {"do": "answer", "message": one.message, "label": SKIPPED})
    assert right >= 9


def test_what_is_picked_by_chance_is_asked_without_a_suggestion(folder):
    sat(folder, 20)
    lesson.give(folder)
    session = Session(folder)
    seen = []
    for _turn in range(10):
        one = session.question("a")
        seen.append((one.sample, bool(one.suggested)))
        session.do("a", {"do": "answer", "message": one.message, "label": SKIPPED})
    assert (True, True) not in seen
    assert (True, False) in seen
    assert (False, True) in seen


def test_two_clerks_never_get_the_same_message(folder):
    session = Session(folder)
    shown = {"a": session.question("a").message, "b": session.question("b").message}
    assert shown["a"] != shown["b"]
    assert session.question("a").message == shown["a"], "whoever loads the page again has the same one"
    label = 0
    session.do("a", {"do": "new", "name": "x", "message": shown["a"]})
    for _turn in range(20):
        one = session.question("b")
        assert one.message not in session.answers.given
        session.do("b", {"do": "answer", "message": one.message, "label": label})


def test_a_line_that_was_cut_off_is_nothing_and_the_next_one_whole(folder):
    session = sat(folder, 3)
    whole = (folder / place.STEPS).read_bytes()
    (folder / place.STEPS).write_bytes(whole[:-5])
    again = Session(folder)
    assert len(again.answers.given) == 2
    again.do("a", {"do": "new", "name": "later"})
    assert set(Session(folder).answers.names.values()) >= {"later"}
    assert len(session.answers.given) == 3


def test_back_steps_take_back_ones_own(folder):
    session = Session(folder)
    one, two = session.pool.ids[:2]
    session.do("a", {"do": "new", "name": "x", "message": one})
    session.do("b", {"do": "new", "name": "y", "message": two})
    assert session.undo("b") == two
    assert set(session.answers.names.values()) == {"x"}, "its kind goes with it"
    session.do("b", {"do": "answer", "message": two, "label": 0})
    assert session.undo("a") == one, "others have gone on: the answer is taken back, the kind stays"
    assert session.answers.given == {two: 0}
    assert set(session.answers.names.values()) == {"x"}
    assert session.question("a").message == one, "it is open again"
    with pytest.raises(ValueError, match="nothing"):
        session.undo("c")
    assert Session(folder).answers == session.answers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.sampled_from(["answer", "new", "rename", "merge", "split", "undo"]), max_size=12),
       st.randoms(use_true_random=False))
def test_whatever_is_done_comes_back_from_the_disk(tmp_path_factory, kinds, random):
    pool, _kinds = made(40)
    folder = tmp_path_factory.mktemp("s") / "s"
    kept.save_new(folder, pool, [None] * len(pool), [])
    session = Session(folder)
    for i, what in enumerate(kinds):
        labels = list(session.answers.names) or [0]
        step = {"do": what, "message": random.choice(pool.ids), "label": random.choice(labels), "into": random.choice(labels),
                "name": f"n{i}", "messages": random.sample(pool.ids, 5)}
        wanted = {"answer": ("do", "message", "label"), "new": ("do", "message", "name"), "rename": ("do", "label", "name"),
                  "merge": ("do", "label", "into"), "split": ("do", "label", "messages", "name"), "undo": ("do",)}[what]
        before = session.answers
        try:
            if what == "undo":
                session.undo("a")
            else:
                session.do("a", {name: step[name] for name in wanted})
        except (ValueError, KeyError):
            assert session.answers == before
    assert Session(folder).answers == session.answers


def test_a_person_who_is_forgotten_is_in_none_of_its_files(folder):
    session = sat(folder, 25)
    name = "駐車場"  # stands for a person
    session.do("a", {"do": "new", "name": f"{name}さん"})
    lesson.give(folder)
    speaks = lambda text, _identity: name in text  # noqa: E731
    mine = place.speaks_anywhere(folder, speaks)
    assert len(mine) > 3
    assert mine[-1] == ("", f"{name}さん")
    rows = [session.pool.row[identity] for identity, _text in mine[:-1]]
    n = kept.erase(folder, speaks, "消去")
    assert n == len(rows)
    for path in folder.iterdir():
        assert name.encode() not in path.read_bytes(), path.name
        assert name.encode("unicode_escape") not in path.read_bytes(), path.name
    again = Session(folder)
    assert not again.pool.vectors[rows].any()
    assert not again.pool.words[rows].nnz
    assert not set(rows) & {*again.pool.sampled.tolist(), *again.pool.useful.tolist()}
    gone = {session.pool.ids[row] for row in rows}
    assert again.answers.given == {m: label for m, label in session.answers.given.items() if m not in gone}
    assert place.speaks_anywhere(folder, speaks) == []
    assert kept.load_lesson(folder) is None
    lesson.give(folder)
    asked = {again.question("a").message for _turn in range(3)}
    assert not asked & gone


def test_a_lesson_that_began_before_somebody_was_forgotten_is_not_kept(folder, monkeypatch):
    sat(folder, 25)
    whole = lesson.learn

    def forgotten_meanwhile(*told):
        kept.erase(folder, lambda text, _identity: "駐車場" in text, "消去")
        return whole(*told)

    monkeypatch.setattr(lesson, "learn", forgotten_meanwhile)
    lesson.give(folder)
    assert kept.load_lesson(folder) is None
    monkeypatch.undo()
    lesson.give(folder)
    assert kept.load_lesson(folder) is not None
