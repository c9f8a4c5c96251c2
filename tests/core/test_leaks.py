"""Which samples seem to present the same stimulus, and how many test samples are trained on."""

import numpy as np
import pytest

from jaxalign.core import leaks
from jaxalign.core.folds import Fold, Split, contiguous_folds, without_repeats

N = 120


def repeated(rng, num, scale=0.0):
    """Return features of `num` stimuli that are presented again and again, in other orders."""
    order = np.concatenate([rng.permutation(num) for _ in range(-(-N // num))])[:N]
    X = rng.standard_normal((num, 40))[order]
    return X + scale * rng.standard_normal(X.shape), order


def with_silence(rng):
    X = rng.standard_normal((N, 40))
    X[rng.random(N) < 0.3] = 0.5
    return X


@pytest.mark.parametrize("scale, offset", [(0.0, 0.0), (1e-7, 0.0), (0.0, 1e4)])
def test_rows_that_come_again_are_labelled(rng, scale, offset):
    X, order = repeated(rng, 50, scale)
    X[:, 3] = offset + 1e-33 * rng.standard_normal(N)  # rounding is no feature
    label = leaks.same_rows(X + offset)
    assert ((label[:, None] == label) == (order[:, None] == order)).all()


@pytest.mark.parametrize(
    "X",
    [
        lambda rng: rng.standard_normal((N, 40)),
        with_silence,
        lambda rng: np.eye(6)[rng.integers(6, size=N)].repeat(3, axis=1),  # labels
        lambda rng: rng.integers(0, 4, (N, 12)).astype(float)[rng.integers(N // 3, size=N)],
        lambda rng: rng.standard_normal((N // 4, 3))[rng.integers(N // 4, size=N)],  # a few facts
        lambda rng: rng.standard_normal((N // 4, 40)).repeat(4, axis=0),  # held over samples
        lambda rng: np.ones((N, 40)),
        lambda rng: np.zeros((N, 0)),
    ],
)
def test_rows_that_repeat_by_their_nature_are_not(rng, X):
    assert len(set(leaks.same_rows(X(rng)))) == N


def test_samples_that_share_a_label_are_joined():
    found = leaks.joined(list("aabbcd"), [1, 2, 2, 3, 4, 5])
    assert found.tolist() == [found[0]] * 4 + [found[4], found[5]]
    assert len(set(found)) == 3


def test_test_samples_that_are_trained_on_are_counted():
    folds = [
        Fold(Split(np.arange(4), np.arange(4, 6)), ()),
        Fold(Split(np.arange(2, 6), np.arange(2)), ()),
    ]
    assert leaks.count(folds, list("abcdad")) == leaks.Leak(3, 4)


def test_what_is_tested_is_left_out_of_training():
    items = np.arange(60) % 25
    outer = [fold.outer for fold in contiguous_folds(["r"] * 60, 4, gap=0)]
    for split, before in zip(without_repeats(outer, items), outer, strict=True):
        kept = before.train[~np.isin(items[before.train], items[before.test])]
        np.testing.assert_array_equal(split.train, kept)
        np.testing.assert_array_equal(split.test, before.test)
    with pytest.raises(ValueError, match="groups must keep .* that leaves 0 of 60"):
        without_repeats(outer, np.arange(60) % 15)
