from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from machikoba.records.clean import example_ids, near_duplicate_links
from machikoba.records.split import assign_sets, folds, parse_date, set_of, time_split

links_of = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)).filter(lambda p: p[0] < p[1]), max_size=25)


def as_links(pairs):
    return np.array(sorted(set(pairs)), dtype=np.int64).reshape(-1, 2)


@given(links_of, st.integers(1, 29))
def test_added_rows_never_move_an_earlier_one(pairs, n_before):
    ids = [f"id{i}" for i in range(30)]
    before, _ = assign_sets(ids[:n_before], as_links([p for p in pairs if p[1] < n_before]))
    after, _ = assign_sets(ids, as_links(pairs))
    assert after[:n_before] == before


@given(links_of)
def test_near_duplicates_are_never_in_two_sets(pairs):
    sets, groups = assign_sets([f"id{i}" for i in range(30)], as_links(pairs))
    for i, j in pairs:
        if "none" not in (sets[i], sets[j]):
            assert sets[i] == sets[j]
            assert groups[i] == groups[j]


@given(links_of, st.permutations(range(30)))
def test_near_duplicates_are_never_in_two_sets_in_any_order_of_time(pairs, order):
    sets, _ = assign_sets([f"id{i}" for i in range(30)], as_links(pairs), order=np.array(order))
    assert all("none" in (sets[i], sets[j]) or sets[i] == sets[j] for i, j in pairs)


@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_rows_that_differ_by_a_number_share_a_set_also_when_the_file_has_the_newest_first(k, order):
    texts = [f"{day}日の夕食の時間を{chr(0x4E00 + k)}教えてください" for day in range(5)]
    sets, groups = assign_sets(example_ids(texts), near_duplicate_links(texts), order=np.array(order))
    assert len(set(sets)) == len(set(groups)) == 1


@given(st.lists(st.integers(0, 14), min_size=1, max_size=30), links_of)
def test_the_same_example_is_always_in_the_same_set(which, pairs):
    texts = [f"文{i}" for i in which]
    sets, _ = assign_sets(example_ids(texts), as_links([p for p in pairs if p[1] < len(texts)]))
    # A later copy may be left out for a link of its own; it is never used elsewhere.
    for text in set(texts):
        of_text = [s for s, t in zip(sets, texts, strict=True) if t == text]
        assert len({*of_text} - {"none"}) <= 1
        assert of_text[0] != "none" or {*of_text} == {"none"}


@given(st.integers(0, 10_000))
def test_a_row_between_two_sets_is_used_in_none_and_its_copy_too(k):
    ids = [f"{k}a", f"{k}b", f"{k}c", f"{k}c-2", f"{k}d"]
    sets, groups = assign_sets(ids, as_links([(0, 2), (1, 2), (2, 3), (2, 4)]))
    if sets[0] == sets[1]:
        assert set(sets) == {sets[0]}
        assert set(groups) == {ids[0]}
    else:
        assert sets[2:4] == ["none", "none"]
        assert sets[4] == set_of(ids[4], 0.3)


@given(links_of)
def test_without_a_holdout_every_row_is_learnt_from(pairs):
    assert set(assign_sets([f"id{i}" for i in range(30)], as_links(pairs), 0.0)[0]) == {"train"}


@given(links_of, st.floats(0.05, 0.5), st.floats(0.05, 0.3))
def test_a_larger_share_only_takes_rows_out_of_train(pairs, holdout, more):
    """Except beside rows used in none, which stop deciding for their near duplicates."""
    ids, links = [f"id{i}" for i in range(30)], as_links(pairs)
    small, _ = assign_sets(ids, links, holdout)
    large, _ = assign_sets(ids, links, holdout + more)
    beside = {i for i in range(30) if "none" in (small[i], large[i])}
    while more_beside := {row for p in pairs for row in p if beside & {*p}} - beside:
        beside |= more_beside
    assert all(small[i] == "train" for i in range(30) if large[i] == "train" and i not in beside)


def test_shares_are_as_wanted():
    sets = [set_of(f"message {i}", 0.3) for i in range(5_000)]
    for name, share in (("train", 0.7), ("certify", 0.2), ("test", 0.1)):
        assert binomtest(sets.count(name), len(sets), share).pvalue > 0.001


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=8, max_size=60), st.integers(0, 3))
def test_folds_keep_groups_together(rows, seed):
    labels, groups = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    fold = folds(labels, groups, 4, seed)
    assert set(fold) <= {0, 1, 2, 3}
    for group in set(groups.tolist()):
        assert len(set(fold[groups == group].tolist())) == 1
    assert (fold == folds(labels, groups, 4, seed)).all()


def test_folds_spread_labels_evenly():
    labels = np.repeat(np.arange(5), 20)
    fold = folds(labels, np.arange(100), 5, 0)
    for label in range(5):
        assert np.bincount(fold[labels == label], minlength=5).tolist() == [4] * 5


@given(st.integers(2, 6), st.lists(st.integers(0, 4), min_size=6, max_size=40), st.integers(0, 3))
def test_no_fold_is_empty_when_there_are_groups_enough(k, labels, seed):
    assert set(folds(np.array(labels), np.arange(len(labels)), k, seed)) == set(range(k))


def test_dates_as_japanese_files_write_them():
    for text in ("2024-05-01", "2024/5/1 9:30", "2024年5月1日", "令和6年5月1日", "R6.5.1",
                 "２０２４／５／１", "2024年 5月 1日(水)"):
        assert parse_date(text).date().isoformat() == "2024-05-01"
    for text in ("2024-05-01T13:05", "2024年5月1日(水) 13:05", "令和6年5月1日 13時5分", "2024/5/1　１３：０５"):
        assert parse_date(text).isoformat() == "2024-05-01T13:05:00"
    assert parse_date("令和元年5月1日").year == 2019
    assert parse_date("2024-04-30 25:00").isoformat() == "2024-05-01T01:00:00"


@pytest.mark.parametrize("text", ["2024-02-31", "朝", "", None, "0120-11-1234", "2012-05-1234", "12024-05-01"])
def test_what_is_no_date(text):
    assert parse_date(text) is None


def test_time_split_takes_the_newest_fifth():
    old, new = time_split([f"2024-01-{d:02d}" for d in range(20, 0, -1)])
    assert new.tolist() == [0, 1, 2, 3]
    assert len(old) == 16
    assert time_split([None] * 10) is None


@given(links_of, st.sets(st.integers(0, 29)), st.integers(1, 29))
def test_what_was_handed_over_proves_nothing_and_moves_no_earlier_row(pairs, handed_over, n_before):
    ids = [f"id{i}" for i in range(30)]
    earlier = [p for p in pairs if p[1] < n_before]
    before, groups = assign_sets(ids[:n_before], as_links(earlier))
    known = {row: (before[row], groups[row]) for row in range(n_before)}
    later = {row for row in handed_over if row >= n_before}
    sets, _ = assign_sets(ids, as_links(pairs), known=known, train_only=later)
    assert sets[:n_before] == before
    assert all(sets[row] in ("train", "none") for row in later)
    for i, j in pairs:  # nothing that is learnt from lies beside what proves
        if j >= n_before and "none" not in (sets[i], sets[j]):
            assert sets[i] == sets[j]
