"""Selection of penalties, fits on all samples, held-out predictions, and grids."""

import numpy as np
import pytest
import ridge_oracle
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit
from solver_problems import (
    ALPHAS,
    MANY,
    TILE,
    N,
    assert_bar,
    curves,
    equal_folds,
    gapped_folds,
    make_problem,
    many_targets,
    nested,
    refit,
    select,
)

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Method


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize("form, search", [("primal", "grid"), ("sums", "adaptive")])
def test_selection_matches_the_oracle(criterion, form, search):
    X, Y, _ = many_targets("plain", 10)
    splits = folds_lib.splits(ShuffleSplit(8, test_size=0.25, random_state=3), N)
    options = {"search": search, "criterion": criterion, "form": form}
    found = select(X, Y, splits, ALPHAS, **options)
    costs, null = ridge_oracle.costs(X, Y, splits, ALPHAS, standardize=True)[criterion]
    assert_bar(found.alphas[1:], costs[:, 1:], ALPHAS, criterion)
    best = costs.min(axis=0)
    close = np.abs(found.cost - best)[1:] <= 1e-4 * np.maximum(np.abs(best[1:]), 1e-3 * null[1:])
    assert close.mean() > 0.99
    every = curves(X, Y, splits, ALPHAS, **options)
    scale = np.abs(costs[:, 1:]) if criterion == "squared_error" else 1
    assert (np.abs(every - costs)[:, 1:] / scale).max() < 1e-4
    if criterion == "squared_error":
        expected = 1 - found.cost[1:] / null[1:]
        assert np.isnan(found.score[0])
    else:
        expected = -found.cost[1:]
    np.testing.assert_allclose(found.score[1:], expected, atol=1e-5)


@pytest.mark.slow
def test_selection_over_the_inner_splits_is_that_of_the_fold(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    inside = nested(X, Y, folds, ALPHAS)
    selected = select(X, Y, folds[2].inner, ALPHAS)
    np.testing.assert_array_equal(selected.alphas, inside.alphas[2])
    np.testing.assert_allclose(selected.score, inside.inner_score[2], atol=1e-5)


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("p", [10, 90])
def test_fits_match_sklearn(rng, p, standardize, intercept, form):
    X, Y = make_problem(rng, p)
    X = X + 2
    alphas = 10.0 ** rng.integers(-2, 6, size=10)
    scale = X.std(axis=0) if standardize else np.ones(p)
    model = Ridge(alphas, solver="svd", fit_intercept=intercept).fit(X / scale, Y)
    found = refit(X, Y, alphas, standardize=standardize, form=form, intercept=intercept)
    expected = (model.coef_ / scale).T
    error = np.abs(found.coef - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert error.max() < 5e-5
    spread = Y.std(axis=0)
    np.testing.assert_allclose(
        found.intercept / spread, model.intercept_ / spread, rtol=1e-6, atol=1e-4
    )
    predicted = X @ found.coef + found.intercept
    expected = model.predict(X / scale)
    np.testing.assert_allclose(predicted / spread, expected / spread, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
@pytest.mark.parametrize("p", [10, 90])
def test_fits_without_a_penalty_are_of_minimum_norm(rng, p, form):
    X, Y = make_problem(rng, p)
    X[:, 3] = X[:, 1]
    Z = X - X.mean(axis=0)
    expected = np.linalg.pinv(Z, rcond=1e-6) @ (Y - Y.mean(axis=0))
    found = refit(X, Y, np.zeros(10), form=form)
    assert (np.abs(found.coef - expected).max(axis=0) / np.abs(expected).max(axis=0)).max() < 1e-3
    np.testing.assert_allclose(
        (X @ found.coef + found.intercept - Y.mean(axis=0)) / Y.std(axis=0),
        Z @ expected / Y.std(axis=0),
        atol=1e-3,
    )


def test_fits_of_constant_columns(rng):
    X, Y = make_problem(rng)
    X[:, 4] = 7.0
    Y[:, 0] = 3.5
    found = refit(X, Y, np.full(10, 0.1), standardize=True)
    np.testing.assert_array_equal(found.coef[4], 0)
    np.testing.assert_array_equal(found.coef[:, 0], 0)
    assert found.intercept[0] == 3.5


def test_fits_take_tiles(rng):
    X, Y, _ = many_targets("plain", 10)
    alphas = rng.choice(ALPHAS, size=MANY)
    whole, parts = (refit(X, Y, alphas, tile=tile) for tile in (None, TILE))
    spread = np.maximum(Y.std(axis=0), 1e-9)
    np.testing.assert_allclose(parts.coef / spread, whole.coef / spread, atol=1e-6)
    np.testing.assert_allclose(parts.intercept / spread, whole.intercept / spread, atol=1e-6)


@pytest.mark.parametrize("alphas", [np.full(10, -1.0), np.r_[np.ones(9), np.nan]])
def test_fits_refuse_negative_penalties(rng, alphas):
    with pytest.raises(ValueError, match="alphas must be >= 0 and finite"):
        refit(*make_problem(rng), alphas)


def test_edges_are_the_shares_of_the_outermost_penalties():
    chosen = np.array([[1.0, 10.0, 100.0, 100.0], [1.0, 10.0, 10.0, 100.0]])
    assert cv.edges(chosen, np.array([10.0, 100.0, 1.0])) == (0.25, 0.375)


def test_grids_are_widened_in_their_own_steps():
    grid = 10.0 ** np.arange(-1, 4)
    np.testing.assert_allclose(cv.widen(grid, low=True, high=False), 10.0 ** np.arange(-3, 4))
    np.testing.assert_allclose(cv.widen(grid, low=False, high=True), 10.0 ** np.arange(-1, 6))
    np.testing.assert_allclose(cv.widen(grid, low=True, high=True), 10.0 ** np.arange(-3, 6))
    np.testing.assert_array_equal(cv.widen(grid[::-1], low=False, high=False), grid)


@pytest.mark.parametrize("grid", [[1.0], [0.0, 1.0], [-1.0, 1.0]])
def test_grids_that_cannot_be_widened_are_refused(grid):
    with pytest.raises(ValueError, match="A grid to widen must have 2 positive penalties"):
        cv.widen(np.array(grid), low=True, high=True)


@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("standardize", [False, True])
def test_held_out_predictions_match_float64(rng, p, standardize):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()[3:]  # samples of the others are never tested
    alphas = rng.choice([0.1, 1.0, 100.0], size=(len(folds), Y.shape[1]))
    found = cv.held_out(X, Y, folds, alphas, Method(standardize=standardize))
    expected = np.full(Y.shape, np.nan)
    for fold, own in zip(folds, alphas, strict=True):
        for t, alpha in enumerate(own):
            deviations, mean = ridge_oracle.predict(
                X, Y[:, t : t + 1], fold.outer, np.array([alpha]), standardize=standardize
            )
            expected[fold.outer.test, t] = deviations[0, :, 0] + mean[0]
    assert np.isnan(found).any(axis=1).sum() == N - sum(len(fold.outer.test) for fold in folds)
    scale = Y.std(axis=0)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


@pytest.mark.slow
def test_held_out_predictions_have_the_scores_of_nested(rng):
    X, Y = make_problem(rng)
    folds = equal_folds()
    scores = nested(X, Y, folds, ALPHAS)
    predicted = cv.held_out(X, Y, folds, scores.alphas, Method())
    for fold, expected in zip(folds, scores.r, strict=True):
        test = fold.outer.test
        r = ridge_oracle.pearson_r(predicted[test], Y[test])
        np.testing.assert_allclose(r, expected, atol=1e-5)


def test_samples_without_one_prediction_are_refused(rng):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match="one row for each of 5 folds, got 4"):
        cv.held_out(X, Y, equal_folds(), np.ones((4, Y.shape[1])), Method())
    folds = equal_folds()[:1] * 2
    with pytest.raises(ValueError, match="folds must test no sample twice"):
        cv.held_out(X, Y, folds, np.ones((len(folds), Y.shape[1])), Method())
