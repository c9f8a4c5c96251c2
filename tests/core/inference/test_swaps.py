"""Swapping the predictions of two models, sample by sample."""

import itertools

import numpy as np

from jaxalign.core.inference import swaps


def test_all_swaps_of_few_samples_give_the_exact_p(rng):
    first, second = rng.normal(size=(2, 10)) + [[0.4], [0.0]]
    difference = first - second
    every = [abs(np.dot(s, difference)) for s in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.array(every) >= abs(difference.sum()) - 1e-9)
    found = swaps.swap_test(first, second, num=20_000, rng=rng)
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)


def test_a_difference_in_every_sample_has_the_least_p_there_is(rng):
    first = rng.uniform(1, 2, 40)
    assert swaps.swap_test(first, 0 * first, num=99, rng=rng) == 0.01
    assert swaps.swap_test(0 * first, first, num=99, rng=rng) == 0.01


def test_equal_predictions_have_p_1_and_nothing_has_none(rng):
    same = rng.normal(size=30)
    assert swaps.swap_test(same, same, num=50, rng=rng) == 1
    assert np.isnan(swaps.swap_test(same, same, num=0, rng=rng))
    lost = np.full(30, np.nan)
    assert np.isnan(swaps.swap_test(same, lost, num=50, rng=rng))


def test_of_the_best_two_of_ten_that_are_equal_few_are_told_apart(rng):
    """Picked on the same samples: the two-sided p is at most .05 in no more than .05."""
    found = []
    for _ in range(400):
        every = rng.normal(size=(10, 50))
        best, second = np.argsort(every.sum(axis=1))[[-1, -2]]
        found.append(swaps.swap_test(every[best], every[second], num=199, rng=rng))
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
