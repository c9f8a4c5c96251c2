"""The order of rows, and rows that hold several examples."""

import numpy as np
import pytest

from jaxalign.training import order, packing


def test_alpacas_number_of_steps():
    assert order.num_steps(3.0, batch=128, num_rows=52002) == 1218


def test_epochs_follow_each_other_without_a_gap():
    steps = [order.rows(s, seed=1, batch=4, num_rows=10) for s in range(5)]
    seen = np.concatenate(steps)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:])
    # From the step alone, in any order.
    np.testing.assert_array_equal(order.rows(3, seed=1, batch=4, num_rows=10), steps[3])
    assert not np.array_equal(order.rows(0, seed=2, batch=10, num_rows=10), seen[:10])


def test_a_batch_may_be_larger_than_the_data():
    assert np.bincount(order.rows(0, seed=0, batch=9, num_rows=4)).tolist() != [9]
    assert np.bincount(order.rows(0, seed=0, batch=8, num_rows=4)).tolist() == [2, 2, 2, 2]


def test_best_fit_decreasing_by_hand():
    assert packing.best_fit([3, 7, 5, 4, 1], 10) == [[1, 0], [2, 3, 4]]


@pytest.mark.parametrize("seed", range(3))
def test_packing_keeps_every_example_and_wastes_little(seed):
    lengths = np.random.default_rng(seed).integers(20, 300, 2000)
    rows = packing.best_fit(lengths.tolist(), 512)
    assert sorted(i for row in rows for i in row) == list(range(2000))
    assert max(sum(lengths[row]) for row in rows) <= 512
    assert len(rows) <= 1.02 * lengths.sum() / 512


def test_an_example_longer_than_a_row():
    with pytest.raises(ValueError, match="an example has 9 tokens, and a row 8"):
        packing.best_fit([9], 8)
