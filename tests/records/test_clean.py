from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from machikoba.records.clean import canonical_labels, example_ids, near_duplicate_groups, near_duplicate_links, normalise

texts = st.lists(st.text("あいうえおかきくけこ駐車場朝食風呂abc123。、", max_size=30), max_size=12)


@given(st.text(max_size=50))
def test_normalise_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)


def test_normalise_joins_what_offices_mix_up():
    assert normalise("１２〜１５　ﾒｰﾙ－ＡＢＣ ") == normalise("12～15 メール−abc")


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


@given(texts)
def test_links_are_pairs_in_order(some):
    links = near_duplicate_links(some)
    assert (links[:, 0] < links[:, 1]).all()


def test_labels_that_differ_by_width_case_or_space():
    labels, merged = canonical_labels(["Price", "price", "price", "料 金", "料金", "料金"])
    assert labels == ["price", "price", "price", "料金", "料金", "料金"]
    assert merged == {"Price": "price", "料 金": "料金"}
