"""Labels that are new, renamed, merged, split and taken back at any time."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.sort.answers import NOTHING, SKIPPED, Answers

MESSAGES = [f"m{i}" for i in range(12)]
steps = st.lists(st.tuples(st.sampled_from(["add", "answer", "merge", "split", "rename", "withdraw", "skip"]),
                           st.integers(0, 40), st.integers(0, 40)), max_size=40)


def taken(done: list[tuple[str, int, int]]) -> Answers:
    """Those of the steps that are possible."""
    answers = Answers()
    for i, (step, a, b) in enumerate(done):
        labels, message = list(answers.names), MESSAGES[a % len(MESSAGES)]
        if step == "add":
            answers, _label = answers.add(f"label {i}")
        elif step == "skip":
            answers = answers.answer(message, (SKIPPED, NOTHING)[b % 2])
        elif step == "withdraw":
            answers = answers.withdraw(message)
        elif labels:
            first, second = labels[a % len(labels)], labels[b % len(labels)]
            having = [m for m, label in answers.given.items() if label == first]
            if step == "answer":
                answers = answers.answer(message, b % answers.made)
            elif step == "rename":
                answers = answers.rename(first, f"other {i}")
            elif step == "merge" and first != second:
                answers = answers.merge(first, second)
            elif step == "split" and len(having) > 1:
                answers, _label = answers.split(first, having[:1 + b % (len(having) - 1)], f"part {i}")
    return answers


@given(steps)
def test_every_answer_is_a_label_that_there_is(done):
    answers = taken(done)
    assert set(answers.given.values()) <= {*answers.names, NOTHING, SKIPPED}
    assert len(set(answers.names.values())) == len(answers.names)
    assert all(answers.current(label) in answers.names for label in range(answers.made))


@given(steps, st.integers(0, 40), st.integers(0, 40))
def test_a_split_that_is_merged_again_changes_no_answer(done, a, b):
    before = taken(done)
    for label in before.names:
        having = [m for m, other in before.given.items() if other == label]
        if len(having) > 1:
            parted, new = before.split(label, having[:1 + a % (len(having) - 1)], "quite new")
            assert parted.merge(new, label).given == before.given
            assert before.given == taken(done).given


def test_an_old_number_goes_where_its_label_went():
    answers, bath = Answers().add("風呂")
    answers, spa = answers.add("温泉")
    answers, room = answers.add("部屋")
    answers = answers.answer("a", bath).merge(bath, spa).merge(spa, room)
    assert answers.given == {"a": room}
    assert answers.answer("b", bath).given["b"] == room


def test_names_are_told_apart_as_people_do():
    answers, pool = Answers().add("プール")
    for same in ("ﾌﾟｰﾙ", " プール ", "プ ール"):
        with pytest.raises(ValueError, match="there already"):
            answers.add(same)
    with pytest.raises(ValueError, match="needs a name"):
        answers.rename(pool, " ")
    assert answers.rename(pool, "ﾌﾟｰﾙ").names == {pool: "ﾌﾟｰﾙ"}


def test_what_cannot_be_is_refused():
    answers, label = Answers().add("one")
    with pytest.raises(KeyError):
        answers.answer("a", 7)
    with pytest.raises(ValueError, match="itself"):
        answers.merge(label, label)
    for moved in ([], ["b"], ["a"]):
        with pytest.raises(ValueError, match="some stay"):
            answers.answer("a", label).split(label, moved, "two")
