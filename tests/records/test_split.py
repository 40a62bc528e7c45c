from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

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


@given(links_of, st.floats(0.05, 0.5), st.floats(0.05, 0.3))
def test_a_larger_share_only_takes_rows_out_of_train(pairs, holdout, more):
    small, large = (set_of(f"id{i}", holdout) for i in range(1)), (set_of(f"id{i}", holdout + more) for i in range(1))
    for i in range(50):
        if set_of(f"id{i}", holdout) != "train":
            assert set_of(f"id{i}", holdout + more) != "train"
    del small, large


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


def test_dates_as_japanese_files_write_them():
    for text in ("2024-05-01", "2024/5/1 9:30", "2024年5月1日", "令和6年5月1日", "R6.5.1"):
        assert parse_date(text).date().isoformat() == "2024-05-01"
    assert parse_date("2024-02-31") is None
    assert parse_date("朝") is None


def test_time_split_takes_the_newest_fifth():
    old, new = time_split([f"2024-01-{d:02d}" for d in range(20, 0, -1)])
    assert new.tolist() == [0, 1, 2, 3]
    assert len(old) == 16
    assert time_split([None] * 10) is None
