"""The confidence of held-out rows, each part's learnt on the others."""
from __future__ import annotations

import numpy as np

from machikoba.adapt.lora import trusted_by_others


def test_the_confidence_of_a_single_sorted_part_can_be_compared_across_its_rows():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2_000, 4))
    # Sorted as an exported file is: an easy half, then a hard one that looks the same.
    right = np.r_[rng.random(1_000) < 0.98, rng.random(1_000) < 0.6]
    trusted = trusted_by_others(inputs, right, [2_000])
    assert abs(trusted[:1_000].mean() - trusted[1_000:].mean()) < 0.05


def test_no_part_learns_from_its_own_rows():
    rng = np.random.default_rng(1)
    inputs, right, sizes = rng.normal(size=(300, 4)), rng.random(300) < 0.8, [100, 80, 120]
    first = trusted_by_others(inputs, right, sizes)
    changed = right.copy()
    changed[100:180] = ~changed[100:180]
    second = trusted_by_others(inputs, changed, sizes)
    assert np.array_equal(first[100:180], second[100:180])
    assert not np.array_equal(first[:100], second[:100])
