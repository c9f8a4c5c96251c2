"""What must hold of held-out scores for any data."""

import numpy as np
import pytest
from solver_problems import (
    ALPHAS,
    DISTINCT_ALPHAS,
    N,
    equal_folds,
    gapped_folds,
    make_problem,
    nested,
)

from jaxalign.core.folds import Fold


@pytest.mark.slow
def test_targets_do_not_interact(rng):
    X, Y = make_problem(rng)
    before = nested(X, Y, gapped_folds(), ALPHAS)
    Y[:, 0] = 1e6 * rng.normal(size=N)
    Y[:, 1] = 0.3
    after = nested(X, Y, gapped_folds(), ALPHAS)
    for name in ("r", "r2", "alphas", "inner_score"):
        np.testing.assert_array_equal(getattr(after, name)[:, 2:], getattr(before, name)[:, 2:])


@pytest.mark.slow
def test_permuting_targets_permutes_scores(rng):
    X, Y = make_problem(rng)
    order = rng.permutation(Y.shape[1])
    plain = nested(X, Y, gapped_folds(), ALPHAS)
    permuted = nested(X, Y[:, order], gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas[:, order])
    np.testing.assert_allclose(permuted.r, plain.r[:, order], atol=1e-6)
    np.testing.assert_allclose(permuted.r2, plain.r2[:, order], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("p", [10, 90])
def test_permuting_features_changes_nothing(rng, p):
    X, Y = make_problem(rng, p)
    plain = nested(X, Y, gapped_folds(), ALPHAS)
    permuted = nested(X[:, rng.permutation(p)], Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.r, plain.r, atol=1e-5)


@pytest.mark.parametrize("p", [10, 90])
def test_scale_and_offset_of_features_do_not_matter_when_standardized(rng, p):
    X, Y = make_problem(rng, p)
    plain = nested(X, Y, gapped_folds(), ALPHAS)
    rescaled = nested(X * np.logspace(-2, 2, p) - 7, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(rescaled.alphas, plain.alphas)
    np.testing.assert_allclose(rescaled.r, plain.r, atol=1e-5)


@pytest.mark.slow
def test_scale_of_features_matters_when_not_standardized(rng):
    X, Y = make_problem(rng)
    alphas = np.array([10.0])
    plain = nested(X, Y, gapped_folds(), alphas, standardize=False)
    # Features c times as large under a penalty c squared times as large are the same problem.
    scaled = nested(10 * X, Y, gapped_folds(), 100 * alphas, standardize=False)
    np.testing.assert_allclose(scaled.r, plain.r, atol=1e-5)
    other = nested(10 * X, Y, gapped_folds(), alphas, standardize=False)
    assert np.abs(other.r2 - plain.r2).max() > 1e-2


# 1e-13: a magnetometer in tesla. 1e-5: an electrode in volts.
@pytest.mark.parametrize("scale, offset", [(-1, 0), (3, 1e4), (1e-5, 1), (1e-13, 0), (1e12, 0)])
def test_affine_change_of_targets_leaves_scores_unchanged(rng, scale, offset):
    X, Y = make_problem(rng)
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    alphas = DISTINCT_ALPHAS
    plain = nested(X, Y, gapped_folds(), alphas)
    changed = nested(X, scale * Y + offset, gapped_folds(), alphas)
    np.testing.assert_array_equal(changed.alphas, plain.alphas)
    np.testing.assert_allclose(changed.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(changed.r2, plain.r2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(changed.inner_score, plain.inner_score, atol=1e-5)


def test_an_infinite_penalty_scores_as_the_training_mean(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    result = nested(X, Y, folds, np.array([1e9]))
    for i, fold in enumerate(folds):
        y = Y[fold.outer.test]
        error = ((y - Y[fold.outer.train].mean(axis=0)) ** 2).sum(axis=0)
        expected = 1 - error / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(result.r2[i], expected, atol=1e-4)
    np.testing.assert_allclose(result.inner_score, 0, atol=1e-5)


@pytest.mark.slow
def test_a_noiseless_signal_is_recovered_in_full(rng):
    X = rng.normal(size=(N, 10))
    result = nested(X, X @ rng.normal(size=(10, 10)), gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(result.alphas, ALPHAS[0])
    np.testing.assert_allclose(result.r, 1, atol=1e-5)
    np.testing.assert_allclose(result.r2, 1, atol=1e-5)
    np.testing.assert_allclose(result.inner_score, 1, atol=1e-5)


@pytest.mark.slow
def test_unrelated_features_predict_nothing(rng):
    X = rng.normal(size=(N, 10))
    result = nested(X, rng.normal(size=(N, 400)), gapped_folds(), ALPHAS)
    # 2000 correlations over 12 samples each, 0.29 wide.
    assert abs(result.r.mean()) < 0.03


def test_held_out_responses_do_not_choose_the_penalty(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    alphas = DISTINCT_ALPHAS
    before = nested(X, Y, folds, alphas)
    Y[folds[2].outer.test] = rng.permutation(Y[folds[2].outer.test])
    after = nested(X, Y, folds, alphas)
    np.testing.assert_array_equal(after.alphas[2], before.alphas[2])
    np.testing.assert_allclose(after.inner_score[2], before.inner_score[2], atol=1e-4)
    assert (after.alphas != before.alphas).any()


def test_samples_within_the_gap_do_not_reach_the_fit(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    # One penalty, as other folds' inner tests do hold these samples.
    alphas = np.array([10.0])
    before = nested(X, Y, folds, alphas)
    used = np.r_[folds[0].outer.train, folds[0].outer.test]
    gap = np.setdiff1d(np.arange(N), used)
    assert len(gap) == 3
    X[gap] += 100 * rng.normal(size=(3, 10))
    Y[gap] += 100 * rng.normal(size=(3, 1)) * Y.std(axis=0)
    after = nested(X, Y, folds, alphas)
    np.testing.assert_allclose(after.r[0], before.r[0], atol=1e-4)
    np.testing.assert_allclose(after.r2[0], before.r2[0], rtol=1e-4, atol=1e-4)
    assert np.abs(after.r[3] - before.r[3]).max() > 0.1


@pytest.mark.slow
def test_a_fold_scores_alike_alone_and_among_others(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    together = nested(X, Y, folds, ALPHAS)
    alone = nested(X, Y, [folds[1]], ALPHAS)
    np.testing.assert_array_equal(alone.alphas[0], together.alphas[1])
    np.testing.assert_allclose(alone.r[0], together.r[1], atol=1e-5)
    np.testing.assert_allclose(alone.inner_score[0], together.inner_score[1], atol=1e-5)


def test_order_of_penalties_does_not_matter(rng):
    X, Y = make_problem(rng)
    plain = nested(X, Y, gapped_folds(), ALPHAS)
    shuffled = nested(X, Y, gapped_folds(), rng.permutation(ALPHAS))
    np.testing.assert_array_equal(shuffled.alphas, plain.alphas)
    np.testing.assert_array_equal(shuffled.r, plain.r)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_not_changed(rng, dtype):
    X, Y = (array.astype(dtype) for array in make_problem(rng))
    alphas = ALPHAS[::-1].copy()
    before = X.copy(), Y.copy(), alphas.copy()
    nested(X, Y, gapped_folds(), alphas)
    for array, old in zip((X, Y, alphas), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form, p, search", [("primal", 10, "grid"), ("dual", 90, "grid"), ("sums", 10, "adaptive")]
)
def test_permuting_samples_within_folds_changes_nothing(rng, form, p, search):
    X, Y = make_problem(rng, p)
    folds = equal_folds()
    order = np.concatenate([rng.permutation(fold.outer.test) for fold in folds])
    assert (order != np.arange(N)).mean() > 0.8
    plain, permuted = (
        nested(X[rows], Y[rows], folds, DISTINCT_ALPHAS, form=form, search=search)
        for rows in (np.arange(N), order)
    )
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(permuted.r2, plain.r2, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(permuted.inner_score, plain.inner_score, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_one_penalty_needs_no_inner_splits(rng, alpha):
    X, Y = make_problem(rng)
    outer = [Fold(fold.outer, ()) for fold in equal_folds()]
    found = nested(X, Y, outer, np.array([alpha]))
    beside = nested(X, Y, equal_folds(), np.array([alpha]))
    for name in ("r", "r2", "alphas", "predicted_norm", "recorded_norm"):
        np.testing.assert_array_equal(getattr(found, name), getattr(beside, name))
    assert np.isnan(found.inner_score).all() and np.isfinite(beside.inner_score).all()
