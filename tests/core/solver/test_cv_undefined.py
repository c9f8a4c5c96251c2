"""Where a score is undefined, and where nothing decides."""

import numpy as np
import pytest
from solver_problems import ALPHAS, N, gapped_folds, make_problem, nested

from jaxalign.core import folds as folds_lib


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4 / 3, 1e6 + 0.1])
def test_a_constant_target_has_no_score(rng, value):
    X, Y = make_problem(rng)
    Y[:, 0] = value
    result = nested(X, Y, gapped_folds(), ALPHAS)
    for scores in (result.r, result.r2, result.inner_score):
        assert np.isnan(scores[:, 0]).all()
        assert np.isfinite(scores[:, 1:]).all()


def test_a_target_that_is_constant_in_one_test_block_has_no_score_there(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    Y[folds[3].outer.test, 0] = 0.7
    result = nested(X, Y, folds, ALPHAS)
    expected = np.zeros((5, 10), bool)
    expected[3, 0] = True
    np.testing.assert_array_equal(np.isnan(result.r), expected)
    np.testing.assert_array_equal(np.isnan(result.r2), expected)


@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, -1e4 / 3])
def test_a_target_that_is_constant_in_training_has_no_correlation(rng, value, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    Y[folds[3].outer.train, 0] = value
    result = nested(X, Y, folds, ALPHAS)
    # The prediction is a constant: what varies in it is the rounding of the mean.
    assert np.isnan(result.r[3, 0])
    assert np.isfinite(result.r[3, 1:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("p", [10, 90])
def test_constant_features_have_no_correlation_and_score_as_the_mean(rng, p):
    _, Y = make_problem(rng)
    folds = gapped_folds()
    result = nested(np.full((N, p), 0.1), Y, folds, ALPHAS)
    assert np.isnan(result.r).all()
    assert np.isfinite(result.r2).all()
    np.testing.assert_array_equal(result.inner_score, 0)
    np.testing.assert_array_equal(result.num_constant, p)


@pytest.mark.slow
def test_ties_go_to_the_larger_penalty(rng):
    X, Y = make_problem(rng)
    Y[:, 0] = 2.5
    of_constant_target = nested(X, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_target.alphas[:, 0], ALPHAS[-1])
    of_constant_features = nested(np.ones((N, 10)), Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_features.alphas, ALPHAS[-1])


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
def test_test_samples_that_are_the_same_to_the_fit_have_no_correlation(rng, standardize):
    """Each block has columns of its own, constant elsewhere: rounding would vary at random."""
    blocks = np.repeat(np.arange(4), 10)
    X = np.zeros((40, 40))
    for b in range(4):
        own = np.flatnonzero(blocks == b)
        X[np.ix_(own, own)] = rng.normal(size=(10, 10))
    Y = rng.normal(size=(40, 6))
    folds = folds_lib.contiguous_folds(["run"] * 40, 4, gap=0, groups=blocks)
    result = nested(X, Y, folds, np.array([0.1, 10.0]), standardize=standardize)
    assert np.isnan(result.r).all() and np.isfinite(result.r2).all()
    # One sample that differs in a column of another block is enough.
    X[3, 25] = 1.0
    result = nested(X, Y, folds, np.array([0.1, 10.0]), standardize=standardize)
    assert np.isfinite(result.r[0]).all() and np.isnan(result.r[1]).all()
