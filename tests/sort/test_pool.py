"""Near-duplicates once; a random sample that nobody picked; names that say what sets a group apart."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.records.clean import near_duplicate_links
from machikoba.records.split import assign_sets
from machikoba.sort.groups import group
from machikoba.sort.names import names
from machikoba.sort.pool import Pool


def random_pool(texts, d=8):
    return Pool.of(texts, np.random.default_rng(0).normal(size=(len(texts), d)))


def test_near_duplicates_are_one_message():
    pool = random_pool(["駐車場はありますか", "駐車場は、ありますか?", "朝食は何時ですか", "駐車場はありますか"])
    assert len(pool) == 2
    assert pool.distinct.tolist() == [0, 0, 1, 0]
    assert pool.sizes.tolist() == [3, 1]


def test_the_sample_is_what_a_tuning_holds_out(town):
    pool, _kinds = town
    sets, _groups = assign_sets(list(pool.ids), near_duplicate_links(pool.texts), 0.3)
    assert {sets[i] for i in pool.sampled} == {"certify", "test"}
    assert {sets[i] for i in pool.useful} == {"train"}
    assert 0.2 < len(pool.sampled) / len(pool) < 0.4


@given(st.integers(1, 60))
def test_messages_that_come_later_leave_the_order_of_the_sample(n):
    texts = [f"{chr(0x4E00 + 31 * i)}{chr(0x5E00 + 17 * i)}について" for i in range(61)]
    before, after = random_pool(texts[:n]), random_pool(texts)
    kept = [after.ids[i] for i in after.sampled if after.ids[i] in before.row]
    assert kept == [before.ids[i] for i in before.sampled]


def test_what_is_no_pool():
    for texts, vectors in (([], np.zeros((0, 4))), (["a"], np.zeros((2, 4))), (["a"], np.zeros(4))):
        with pytest.raises(ValueError, match="one vector for each"):
            Pool.of(texts, vectors)
    with pytest.raises(ValueError, match="finite"):
        Pool.of(["a"], np.array([[np.nan]]))


@pytest.mark.parametrize("texts", [["同じ"] * 5, ["?"], ["", "!", "12"], ["a", "b"]])
def test_the_smallest_pools_have_groups_with_names(texts):
    found = group(random_pool(texts))
    assert sum(one.n_messages for one in found) == len(texts)
    assert all(one.name for one in found)


def test_groups_are_the_kinds_and_named_after_them(town):
    pool, kinds = town
    found = group(pool, 4)
    assert sorted(np.concatenate([one.rows for one in found]).tolist()) == list(range(len(pool)))
    assert sum(one.n_messages for one in found) == 400
    for one in found:
        of_group = [kinds[row] for row in one.rows.tolist()]
        assert of_group.count(of_group[0]) > 0.95 * len(of_group)
    assert len({one.name for one in found}) == 4


def test_the_same_groups_for_the_same_seed(town):
    pool, _kinds = town
    assert [one.rows.tolist() for one in group(pool, 6)] == [one.rows.tolist() for one in group(pool, 6)]


CARS = ["駐車場料金は?", "駐車場の料金", "料金と駐車場", "駐車場に車で行く", "車は停められる駐車場ですか"]
FOOD = ["朝食の時間は", "朝食を食べたい", "早い朝食がいい", "バイキングの朝食", "朝食はバイキング?"]
VIEW = ["近いのがいい", "見える方がいい", "広いと嬉しい", "近くて見える", "見えて近い"]


def test_a_name_is_of_words_that_set_the_group_apart():
    rows = [np.arange(5), np.arange(5, 10), np.arange(10, 15)]
    cars, food, view = names(CARS + FOOD + VIEW, rows)
    assert cars == "駐車場・料金"
    assert food == "朝食"  # バイキング is in two messages only
    assert view == VIEW[0]  # 近, 見 are no words: the most typical message instead


@given(st.lists(st.text("駐車場料金朝食あいはのab12 〔電話〕[]!", max_size=12), min_size=1, max_size=24), st.integers(1, 4))
def test_names_are_never_empty_never_twice_never_masked(texts, k):
    rows = [part for part in np.array_split(np.arange(len(texts)), k) if len(part)]
    found = names(texts, rows)
    assert len(set(found)) == len(rows)
    assert all(name.strip() and "〔電話〕" not in name for name in found)


def test_what_one_person_wrote_names_nothing():
    texts = [*CARS, "山田ホテル 山田ホテル 山田ホテル"]
    assert "山田" not in names(texts, [np.arange(6)])[0]
