"""The order of rows."""

import numpy as np

from jaxalign.training import order


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
