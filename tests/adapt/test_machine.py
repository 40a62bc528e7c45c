from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from machikoba.adapt import choose
from machikoba.adapt.choose import learn
from machikoba.adapt.closed_form import balanced_ridge, logistic, ridge, targets, temperature
from machikoba.adapt.contract import Train
from machikoba.adapt.fitted.kernel import KernelMachine, softmax
from machikoba.adapt.fitted.ngrams import Counts, Ngrams, PackedNgrams
from machikoba.adapt.words import WordsRung
from machikoba.records.clean import normalise
from tests.conftest import messages


def as_train(rows, none=None) -> Train:
    names = tuple(sorted({label for _text, label in rows}))
    labels = np.array([names.index(label) for _text, label in rows])
    return Train([text for text, _label in rows], labels, names, np.arange(len(rows)), names.index(none) if none else None)


def kernel(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    full = np.exp(2 * (points @ points.T - 1))
    return full[:, :m], full[:m, :m]


def test_ridge_solves_its_normal_equations():
    among = kernel(40, 40)[1]
    wanted, _prior = targets(np.arange(40) % 3, 3)
    for strength, weights in zip((0.7, 3.0), ridge(among, among, wanted, (0.7, 3.0)), strict=True):
        np.testing.assert_allclose(among @ weights + strength * weights, wanted, atol=1e-4)


def test_anchors_give_the_exact_solution_when_they_are_all_rows():
    full, among = kernel(60, 60)
    wanted, _prior = targets(np.arange(60) % 4, 4)
    (exact,), (through,) = ridge(among, among, wanted, (1.0,)), ridge(full.copy(), among, wanted, (1.0,))
    np.testing.assert_allclose(full @ through, full @ exact, atol=2e-2)


def test_a_label_with_one_row_is_heard_among_rows_of_another():
    kernel = np.full((21, 21), 0.3, dtype=np.float32) + 0.7 * np.eye(21, dtype=np.float32)
    labels = np.array([0] * 20 + [2])
    (even,) = balanced_ridge(kernel, labels, 3, (1.0,))
    assert (kernel @ even)[20].argmax() == 2
    assert not even[:, 1].any(), "of a label without a row nothing is known"
    wanted, prior = targets(labels, 3)
    (plain,) = ridge(kernel, kernel, wanted, (1.0,))
    assert (kernel @ plain + prior)[20].argmax() == 0, "plain ridge does not hear it"


def test_where_all_labels_have_as_many_rows_it_is_plain_ridge_from_zero():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 5)).astype(np.float32)
    kernel, labels = rows @ rows.T, np.arange(30) % 3
    (even,) = balanced_ridge(kernel, labels, 3, (2.0,))
    (plain,) = ridge(kernel, kernel, np.eye(3, dtype=np.float32)[labels], (2.0,))
    assert np.allclose(even, plain, atol=1e-5)


def test_logistic_agrees_with_its_primal():
    among = kernel(60, 60)[1]
    labels = np.arange(60) % 2
    weights, constants = logistic(among, among, labels, 1.0, 2)
    assert softmax(among @ weights + constants).shape == (60, 2)
    assert (among @ weights + constants).argmax(1).tolist().count(0) in range(10, 51)


def test_a_label_without_a_row_is_hardly_ever_chosen():
    square = kernel(12, 12)[1]
    for present in ([1], [0, 2], [0, 1, 3]):
        labels = np.resize(present, 12)
        weights, constants = logistic(square, square, labels, 10.0, 4)
        assert weights.shape == (12, 4)
        assert (softmax(square @ weights + constants).argmax(1) == labels).mean() > 0.5
        assert (softmax(square @ weights + constants)[:, [k for k in range(4) if k not in present]] < 0.01).all()


def test_temperature_finds_the_scale():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(4_000, 3))
    labels = np.array([draw.choice(3, p=p) for p in softmax(scores * 4.0)])
    assert temperature(scores, labels)[0] == pytest.approx(4.0, rel=0.15)


def test_words_learn_and_save_to_the_same_answers(tmp_path):
    train = as_train(messages(160))
    machine = WordsRung().fit(train)
    fresh = messages(60, seed=9)
    scores = machine.predict([text for text, _label in fresh])
    right = [train.names[i] == label for i, (_t, label) in zip(scores.probabilities.argmax(1), fresh, strict=True)]
    assert np.mean(right) > 0.9
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=1e-5)
    for name, content in machine.save().items():
        (tmp_path / name).write_bytes(content)
    again = KernelMachine.load(tmp_path).predict([text for text, _label in fresh])
    np.testing.assert_allclose(again.probabilities, scores.probabilities, atol=1e-6)
    np.testing.assert_allclose(again.confidence, scores.confidence, atol=1e-6)


@given(st.lists(st.text("車駐車場 ab？ﾊﾟ𠮷\n", max_size=30), min_size=1, max_size=8))
def test_packed_words_are_the_words(texts):
    learnt = [text for text, _label in messages(40)]
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, lowercase=False)
    theirs.fit(map(normalise, learnt))
    together = Counts.of([*learnt, *texts])
    plain = Ngrams.fit(together.subset(np.arange(40)))
    packed = PackedNgrams.load(plain.terms(), plain.idf)
    wanted = theirs.transform(map(normalise, texts)).toarray()
    assert json.loads(plain.terms()) == theirs.get_feature_names_out().tolist()
    np.testing.assert_allclose(packed.transform(texts).toarray(), wanted, atol=1e-6)
    np.testing.assert_allclose(plain.weigh(together.subset(np.arange(40, 40 + len(texts)))).toarray(), wanted, atol=1e-6)
    assert packed.nbytes < plain.nbytes / 5


def test_strengths_share_the_answer():
    choice = WordsRung().fit(as_train(messages(160, noise=0.3))).choice
    assert sum(choice.shares) == pytest.approx(1.0)
    assert min(choice.shares) > 0
    assert len(choice.shares) == len(choice.strengths) == len(choose.STRENGTHS)


def test_a_rival_must_be_clearly_better():
    draw = np.random.default_rng(0)
    wrong = draw.random(400) < 0.3

    def judged(mask: np.ndarray) -> choose.Judged:
        return choose.Judged(choose.FIRST, np.zeros((400, 2)), mask, 0.0)

    many_better = wrong.copy()
    many_better[np.flatnonzero(wrong)[:30]] = False
    assert not judged(wrong).clearly_beats(judged(wrong))
    assert judged(many_better).clearly_beats(judged(wrong))
    flipped = wrong.copy()
    flipped[np.flatnonzero(wrong)[:20]] = False
    flipped[np.flatnonzero(~wrong)[:18]] = True
    assert not judged(flipped).clearly_beats(judged(wrong))


def test_fitting_twice_gives_the_same_bytes():
    train = as_train(messages(100))
    assert WordsRung().fit(train, 3).save() == WordsRung().fit(train, 3).save()


def test_strangers_are_trusted_less():
    machine = WordsRung().fit(as_train(messages(160)))
    own = machine.predict([text for text, _label in messages(60, seed=5)]).confidence
    strange = ["株式会社の営業の電話です", "猫を探しています", "Your parcel is waiting", "求人に応募したい"]
    strangers = machine.predict(strange).confidence
    assert strangers.max() < np.median(own)


def test_features_choose_the_layer_that_carries_the_label():
    train = as_train(messages(160, noise=0.0))
    draw = np.random.default_rng(0)
    telling = np.eye(4, dtype=np.float32)[train.labels] + 0.1 * draw.normal(size=(160, 4)).astype(np.float32)
    layers = {"noise": draw.normal(size=(160, 4)).astype(np.float32), "telling": telling}
    machine = learn(train, layers, 0, encoders={name: lambda texts: telling for name in layers})
    assert machine.choice.layer == "telling"
    assert "noise" in machine.choice.reason


def test_many_rows_keep_few_anchors(monkeypatch):
    monkeypatch.setattr(choose, "MAX_ANCHORS", 60)
    monkeypatch.setattr(choose, "MAX_CHOICE_ROWS", 80)
    monkeypatch.setattr(choose, "FOLDED_ROWS", 50)
    train = as_train(messages(200))
    machine = WordsRung().fit(train)
    assert len(machine.anchors) == 60
    assert machine.anchors.rows.max() < 200
    fresh = messages(60, seed=9)
    said = machine.predict([text for text, _label in fresh]).probabilities.argmax(1)
    assert np.mean([train.names[i] == label for i, (_t, label) in zip(said, fresh, strict=True)]) > 0.8


@pytest.mark.parametrize("most", [30, 1_000])
def test_a_fold_scores_as_the_machine_that_learns_from_its_rows(monkeypatch, most):
    monkeypatch.setattr(choose, "MAX_ANCHORS", most)
    train = as_train(messages(160, noise=0.2))
    features = np.random.default_rng(0).normal(size=(160, 5)).astype(np.float32) + train.labels[:, None]
    rows, inside, outside = choose.Rows(train, features), np.arange(120), np.arange(120, 160)
    found = choose.make_fold(rows, inside, outside, seed=3).scores(choose.FIRST)[0]
    machine = rows.subset(inside).fit(choose.FIRST, 3)
    wanted = machine.raw_scores(machine.likeness([train.texts[i] for i in outside], features[outside]))
    assert len(machine.anchors) == min(most, 120)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_rows_that_fit_no_label_lower_trust():
    rows = messages(120) + [(f"営業の電話 {i} 件目の案内{chr(0x4E00 + 31 * i)}", "none") for i in range(20)]
    machine = WordsRung().fit(as_train(rows, none="none"))
    sales = machine.predict(["営業の電話の案内です", "営業の電話 本日の案内"])
    assert (sales.probabilities.argmax(1) == machine.choice.none).all()
    assert sales.confidence.max() < 0.5


def test_empty_input():
    scores = WordsRung().fit(as_train(messages(80))).predict([])
    assert scores.probabilities.shape == (0, 4)
