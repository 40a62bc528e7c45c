"""Asking, learning, suggesting and looking ahead, on messages of four kinds."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.sort.advise import divided, mixed, suggestions
from machikoba.sort.answers import NOTHING, SKIPPED, Answers
from machikoba.sort.ask import next_questions
from machikoba.sort.learn import STRENGTH, balanced, learn, likeness, read
from machikoba.sort.outlook import outlook
from tests.sort.conftest import answered, made


def sat(pool, kinds, n, every=5, between=5):
    """A session of n answers, learnt from after every `between`."""
    answers, apprentice = Answers(), None
    while len(answers.given) < n:
        questions = next_questions(pool, answers, apprentice, between, every)
        answers = answered(pool, kinds, [question.message for question in questions], answers)
        apprentice = learn(pool, answers)
    return answers, apprentice


def test_a_session_learns_the_kinds(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 40)
    names = np.array([answers.names[label] for label in apprentice.labels])
    assert (names[apprentice.scores.argmax(axis=1)] == np.array(kinds)).mean() > 0.97
    late, more = made(200, seed=0)
    scores = read(pool, apprentice, late.texts, late.vectors + pool.centre)
    assert (names[scores.argmax(axis=1)] == np.array(more)).mean() > 0.9


def test_messages_of_the_pool_read_as_new_ones_have_the_same_scores(town):
    pool, kinds = town
    _answers, apprentice = sat(pool, kinds, 20)
    assert np.allclose(read(pool, apprentice, pool.texts, pool.vectors + pool.centre), apprentice.scores, atol=1e-4)


def test_the_first_questions_meet_every_kind(town):
    pool, kinds = town
    first = next_questions(pool, Answers(), None, 8, sample_every=0)
    assert len({kinds[pool.row[question.message]] for question in first}) == 4


@given(st.integers(1, 7), st.integers(1, 60), st.sets(st.integers(0, 79), max_size=80))
def test_every_question_is_new_and_the_sample_is_asked_in_its_order(every, most, before):
    pool, _kinds = made(80)
    answers = Answers(given={pool.ids[i]: SKIPPED for i in before if i < len(pool)})
    found = next_questions(pool, answers, None, most, every)
    asked = [question.message for question in found]
    assert len(set(asked)) == len(asked) == min(most, len(pool) - len(answers.given))
    assert not set(asked) & set(answers.given)
    sample = [pool.row[question.message] for question in found if question.sample]
    assert sample == [i for i in pool.sampled.tolist() if pool.ids[i] not in answers.given][:len(sample)]
    assert all(pool.row[question.message] in pool.useful for question in found if not question.sample)


def test_one_question_at_a_time_or_several_at_once(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 20)
    several = next_questions(pool, answers, apprentice, 6)
    for question in several:
        assert next_questions(pool, answers, apprentice) == [question]
        answers = answered(pool, kinds, [question.message], answers)
    assert [question.sample for question in several].count(True) == 1


def test_a_sample_alone_or_none_of_it(town):
    pool, _kinds = town
    assert all(question.sample for question in next_questions(pool, Answers(), None, 10, 1))
    assert not any(question.sample for question in next_questions(pool, Answers(), None, 10, 0))


def test_all_answered_is_the_end():
    pool, kinds = made(30)
    answers = answered(pool, kinds, list(pool.ids))
    assert next_questions(pool, answers, learn(pool, answers), 3) == []


def test_nothing_is_learnt_from_one_label(town):
    pool, kinds = town
    of_one = [pool.ids[i] for i in range(len(pool)) if kinds[i] == "bath"][:3]
    assert learn(pool, Answers()) is None
    answers = answered(pool, kinds, of_one)
    assert learn(pool, answers) is None
    assert learn(pool, answers.answer(pool.ids[0], SKIPPED)) is None
    assert learn(pool, answers.answer(pool.ids[0], NOTHING)).labels == (NOTHING, 0)


def test_a_row_left_out_is_what_a_fit_without_it_says(town):
    """Exact where the label's count stays, which is what the closed form takes as given."""
    pool, kinds = town
    rows = np.arange(24)
    _labels, labels = np.unique([kinds[i] for i in rows], return_inverse=True)
    kernel = likeness(pool, pool.vectors[rows], pool.words[rows], rows).astype(np.float64)
    _weights, held_out = balanced(kernel, labels, STRENGTH)
    counts = np.bincount(labels)
    penalty = STRENGTH * np.diag(counts[labels] / counts.mean())
    for i in range(len(rows)):
        others = np.delete(rows, i)
        weights = np.linalg.solve((kernel + penalty)[np.ix_(others, others)], np.eye(len(counts))[labels[others]])
        assert np.allclose(kernel[i, others] @ weights, held_out[i], atol=1e-4)


def test_a_label_with_one_answer_is_heard():
    kernel = np.full((21, 21), 0.3) + 0.7 * np.eye(21)
    given_labels = np.array([0] * 20 + [1])
    weights, _held_out = balanced(kernel.astype(np.float32), given_labels, STRENGTH)
    assert (kernel @ weights)[20].argmax() == 1


def test_the_right_label_is_on_the_first_key(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 40)
    rows = [i for i in range(len(pool)) if pool.ids[i] not in answers.given]
    first = [answers.names[suggestions(pool, answers, apprentice, pool.ids[i])[0].label] for i in rows]
    assert np.mean([name == kinds[i] for name, i in zip(first, rows, strict=True)]) > 0.95
    whole = suggestions(pool, answers, apprentice, pool.ids[rows[0]])
    assert len(whole) == 4
    assert sum(one.probability for one in whole) == pytest.approx(1.0, abs=1e-4)
    assert len(suggestions(pool, answers, apprentice, pool.ids[rows[0]], most=2)) == 2


def test_changes_of_labels_count_before_anything_is_learnt_anew(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 40)
    bath, food = (next(label for label, name in answers.names.items() if name == kind) for kind in ("bath", "food"))
    message = next(pool.ids[i] for i in range(len(pool)) if kinds[i] == "bath" and pool.ids[i] not in answers.given)
    merged = answers.merge(bath, food)
    assert suggestions(pool, merged, apprentice, message)[0].label == food
    assert sum(one.probability for one in suggestions(pool, merged, apprentice, message)) == pytest.approx(1.0, abs=1e-4)
    fresh, new = answers.add("quite new")
    assert suggestions(pool, fresh, apprentice, message)[-1].label == new
    row = pool.row[message]
    twin = next(pool.ids[i] for i in np.argsort(-pool.vectors @ pool.vectors[row]).tolist() if i != row)
    assert suggestions(pool, fresh.answer(twin, new), apprentice, message)[0].label == new


def test_labels_that_one_cannot_tell_apart_are_named(town):
    """The clerk gives one kind two labels by chance."""
    pool, kinds = town
    rng = np.random.default_rng(0)
    blurred = [kind if kind != "bath" else ("bath", "spa")[rng.integers(2)] for kind in kinds]
    answers, apprentice = sat(pool, blurred, 120)
    first, *others = mixed(answers, apprentice)
    assert {answers.names[label] for label in first.labels} == {"bath", "spa"}
    assert not others
    clear, learnt = sat(pool, kinds, 120)
    assert mixed(clear, learnt) == []


def test_a_label_that_holds_two_kinds_is_named():
    pool, kinds = made(400, opposite=True)
    lumped = ["bath" if kind == "food" else kind for kind in kinds]
    answers, apprentice = sat(pool, lumped, 80)
    found = divided(pool, answers, apprentice)
    assert [answers.names[one.label] for one in found] == ["bath"]
    halves = [{kinds[pool.row[message]] for message in half} for half in found[0].messages]
    assert sorted(map(sorted, halves)) == [["bath"], ["food"]]
    assert all(found[0].names)
    parted, new = answers.split(found[0].label, found[0].messages[1], found[0].names[1])
    assert divided(pool, parted, learn(pool, parted)) == []
    assert divided(pool, *sat(pool, kinds, 80)) == []
    assert new in parted.names


def test_the_outlook_counts_the_sample_alone(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 150)
    seen = outlook(pool, answers, apprentice)
    n_sample = sum(message in {pool.ids[i] for i in pool.sampled} for message in answers.given)
    assert seen.answered == 150
    assert seen.right.n == n_sample == 30
    assert seen.right.n + seen.useful_right.n == 150
    assert seen.needed is not None
    assert seen.needed > 20
    assert seen.doubled >= seen.right.value
    assert seen.few == ()


def test_messages_picked_out_of_order_are_no_sample(town):
    pool, kinds = town
    answers = answered(pool, kinds, [pool.ids[i] for i in pool.sampled[1:60]])
    assert outlook(pool, answers, learn(pool, answers)).right.n == 0


def test_what_the_clerk_cannot_say_counts_as_a_mistake(town):
    pool, kinds = town
    answers, _apprentice = sat(pool, kinds, 150)
    for i in pool.sampled[:10].tolist():
        answers = answers.answer(pool.ids[i], SKIPPED)
    seen = outlook(pool, answers, learn(pool, answers))
    assert (seen.skipped, seen.answered, seen.right.n) == (10, 140, 30)
    assert seen.right.k <= 20
    assert seen.needed is None or seen.needed > 0


def test_the_share_of_right_ones_is_honest():
    """On the law it claims: over many businesses Wilson's interval holds the share of all messages about as often as it says."""
    inside = []
    for seed in range(40):
        pool, kinds = made(260, seed=seed, spread=2.2, d=8)
        answers, apprentice = sat(pool, kinds, 125, between=25)
        right = outlook(pool, answers, apprentice).right
        names = np.array([answers.names[label] for label in apprentice.labels])
        rest = np.array([pool.ids[i] not in answers.given for i in range(len(pool))])
        truth = (names[apprentice.scores.argmax(axis=1)] == np.array(kinds))[rest].mean()
        inside.append(right.low <= truth <= right.high)
    assert np.mean(inside) >= 0.85  # 0.95 of 40, less three standard errors


def test_an_apprentice_behind_the_answers_will_do(town):
    pool, kinds = town
    answers, apprentice = sat(pool, kinds, 100)
    later = answered(pool, kinds, [question.message for question in next_questions(pool, answers, apprentice, 10)], answers)
    assert outlook(pool, later, apprentice).right == outlook(pool, answers, apprentice).right
    assert outlook(pool, replace(answers, given={}), None).right.n == 0
