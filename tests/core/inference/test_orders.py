import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxalign.core.inference import orders

RUN = np.repeat(["a", "b", "c"], [7, 4, 9])


def is_permutation(order):
    return np.array_equal(np.sort(order), np.arange(len(order)))


def test_rows_move_within_their_label_alone(rng):
    found = orders.row_orders(RUN, num=200, rng=rng)
    assert found.shape == (200, 20)
    assert all(map(is_permutation, found))
    assert (RUN[found] == RUN).all()
    # A sample is equally likely to be any of its label: 200 draws of 1 in 4, within 5 deviations.
    share = (found[:, 7:11] == 8).mean(axis=0)
    assert (abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 200)).all()


def test_the_same_generator_draws_the_same_orders():
    draws = [
        orders.row_orders([0] * 9, num=3, rng=np.random.default_rng(1)).tolist() for _ in range(2)
    ]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("length", [1, 3, 8])
def test_blocks_stay_whole_and_in_their_run(rng, length):
    found = orders.block_orders(RUN, length, num=100, rng=rng)
    assert all(map(is_permutation, found))
    assert (RUN[found] == RUN).all()
    # A sample that does not begin a block follows the one before it.
    place = np.concatenate([np.arange(m) for m in (7, 4, 9)])
    inside = np.flatnonzero(place % length > 0)
    for order in found:
        where = np.argsort(order)
        assert (where[inside] == where[inside - 1] + 1).all()
    assert len(np.unique(found[:, 11:], axis=0)) > 1


def test_all_orders_of_three_blocks_are_drawn_equally_often(rng):
    found = orders.block_orders([0] * 8, 3, num=1200, rng=rng)
    kinds, counts = np.unique(found, axis=0, return_counts=True)
    blocks = [[0, 1, 2], [3, 4, 5], [6, 7]]
    expected = {
        (*blocks[i], *blocks[j], *blocks[3 - i - j]) for i in range(3) for j in range(3) if i != j
    }
    assert set(map(tuple, kinds.tolist())) == expected
    assert (abs(counts - 200) < 5 * np.sqrt(1200 / 6 * 5 / 6)).all()


def test_all_shifts_are_listed_where_they_are_few(rng):
    found = orders.draw_shifts(["a"] * 10, num=9, rng=rng)
    assert found.tolist() == [[s] for s in range(1, 10)]
    group = orders.draw_shifts(["a"] * 2 + ["b"] * 3, num=5, rng=rng)
    assert group.tolist() == [[0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_shifts_are_drawn_where_they_are_many(rng):
    alone = orders.draw_shifts(["a"] * 10, num=6, rng=rng)
    assert len(alone) == 6
    group = orders.draw_shifts(RUN, num=1000, rng=rng)
    assert len(group) == 7 * 4 * 9 - 1
    assert len(orders.draw_shifts(RUN, num=250, rng=rng)) == 250
    drawn = orders.draw_shifts(np.repeat([0, 1], 40), num=1500, rng=rng)
    assert (drawn.min(), drawn.max()) == (0, 39)


def test_shifts_are_numpys_roll(rng):
    shifts = rng.integers(0, 9, size=(20, 3))
    y = rng.normal(size=20)
    for order, shift in zip(orders.shift_orders(RUN, shifts), shifts, strict=True):
        parts = [np.roll(y[RUN == name], s) for name, s in zip("abc", shift, strict=True)]
        np.testing.assert_array_equal(y[order], np.concatenate(parts))


@hypothesis.given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    num=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_shifts_are_permutations_within_runs(lengths, num, seed):
    run = np.repeat(np.arange(len(lengths)), lengths)
    rng = np.random.default_rng(seed)
    shifts = orders.draw_shifts(run, num=num, rng=rng)
    assert len(shifts) == min(num, np.prod(lengths) - 1)
    found = orders.shift_orders(run, shifts)
    assert all(map(is_permutation, found))
    assert (run[found] == run).all()


def test_what_cannot_be_drawn_is_refused(rng):
    with pytest.raises(ValueError, match="num must be >= 1, got 0"):
        orders.row_orders([0, 0], num=0, rng=rng)
    with pytest.raises(ValueError, match="shared by at least two samples"):
        orders.row_orders([0, 1, 2], num=3, rng=rng)
    with pytest.raises(ValueError, match="num must be >= 1, got -1"):
        orders.block_orders([0] * 9, 3, num=-1, rng=rng)
    with pytest.raises(ValueError, match="length must be >= 1, got 0"):
        orders.block_orders([0] * 9, 0, num=2, rng=rng)
    with pytest.raises(ValueError, match="less than the 9 samples of the longest run, got 9"):
        orders.block_orders(RUN, 9, num=2, rng=rng)
    with pytest.raises(ValueError, match="num must be >= 1, got 0"):
        orders.draw_shifts([0] * 9, num=0, rng=rng)
    with pytest.raises(ValueError, match="Every run must have 2 samples to shift, 1 has 1"):
        orders.draw_shifts([0, 0, 1], num=2, rng=rng)
    with pytest.raises(ValueError, match="one column for each of 3 runs, got 2"):
        orders.shift_orders(RUN, np.ones((4, 2), int))
