from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from machikoba.records.clean import (
    canonical_labels,
    example_ids,
    near_duplicate_groups,
    near_duplicate_links,
    normalise,
    skeleton,
)

texts = st.lists(st.text("あいうえおかきくけこ駐車場朝食風呂abc123。、", max_size=30), max_size=12)


@given(st.text(max_size=50))
def test_normalise_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)


def test_normalise_joins_what_offices_mix_up():
    assert normalise("１２〜１５　ﾒｰﾙ－ＡＢＣ ") == normalise("12～15 メール−abc")
    assert normalise("090ー1234") == normalise("090−1234") == "090-1234"
    assert normalise("メール") == "メール"


@given(texts)
def test_ids_are_unique_and_stable_when_rows_are_added(some):
    ids = example_ids(some)
    assert len(set(ids)) == len(ids)
    assert example_ids([*some, "もう一つ"])[:len(ids)] == ids


@given(texts)
def test_groups_hold_exact_copies_and_their_first_row(some):
    groups = near_duplicate_groups([*some, *some])
    assert (groups[groups] == groups).all()
    assert (groups <= np.arange(len(groups))).all()
    assert (groups[:len(some)] == groups[len(some):]).all()


def test_near_duplicates_differ_by_numbers_and_a_typo_only():
    groups = near_duplicate_groups([
        "8月3日に2名で泊まりたいのですが空いていますか", "9月13日に4名で泊まりたいのですが空いていますか",
        "夕食のアレルギー対応について詳しく教えていただけますでしょうか。よろしくお願いします",
        "夕食のアレルギー対応について詳しく教えていただけますでしょうか。よろしくお願いします!!", "駐車場はありますか",
        "駐車場はどこですか"])
    assert groups.tolist() == [0, 0, 2, 2, 4, 5]


@given(texts, st.randoms(use_true_random=False))
def test_groups_of_equal_skeletons_do_not_depend_on_the_order(some, random):
    order = list(range(len(some)))
    random.shuffle(order)
    before, after = near_duplicate_groups(some), near_duplicate_groups([some[i] for i in order])
    for a, i in enumerate(order):
        for b, j in enumerate(order):
            if skeleton(some[i]) and skeleton(some[i]) == skeleton(some[j]):
                assert before[i] == before[j]
                assert after[a] == after[b]


@given(texts)
def test_every_link_is_a_near_duplicate(some):
    def grams(text):
        return {text[i:i + 3] for i in range(len(text) - 2)}

    for i, j in near_duplicate_links(some).tolist():
        a, b = skeleton(some[i]), skeleton(some[j])
        if a == b:
            assert a or normalise(some[i]) == normalise(some[j])
        else:
            assert len(grams(a) & grams(b)) >= 0.8 * len(grams(a) | grams(b)) > 0


def test_texts_without_letters_are_near_only_when_equal():
    groups = near_duplicate_groups(["12345", "123456", "!!!!", "!!!!!!", "１２３４５", "👍", "👍🏻"])
    assert groups.tolist() == [0, 1, 2, 3, 0, 5, 6]


def test_vowel_signs_of_other_scripts_are_letters():
    assert skeleton("की") != skeleton("का")
    assert skeleton("よい❤️") == skeleton("よい")


def test_most_pairs_of_likeness_over_the_bound_are_found():
    draw = np.random.default_rng(0)
    bases = ["".join(chr(0x4E00 + int(c)) for c in draw.integers(0, 5_000, 60)) for _ in range(400)]
    groups = near_duplicate_groups([*bases, *(text[:30] + "と" + text[31:] for text in bases)])
    # One character of 60: 55 of 61 3-grams are common, likeness 0.902; a pair is missed with (1 - 0.902^4)^8 < 0.02%.
    assert (groups[400:] == np.arange(400)).sum() >= 398


@given(texts)
def test_links_are_pairs_in_order(some):
    links = near_duplicate_links(some)
    assert (links[:, 0] < links[:, 1]).all()


def test_labels_that_differ_by_width_case_or_space():
    labels, merged = canonical_labels(["Price", "price", "price", "料 金", "料金", "料金"])
    assert labels == ["price", "price", "price", "料金", "料金", "料金"]
    assert merged == {"Price": "price", "料 金": "料金"}
