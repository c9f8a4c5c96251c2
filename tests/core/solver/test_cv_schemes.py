"""Leave-one-out and generalised cross-validation against their definitions."""

import numpy as np
import pytest
import ridge_oracle
from sklearn.linear_model import RidgeCV
from solver_problems import (
    ALPHAS,
    N,
    assert_bar,
    assert_scores,
    curves,
    gapped_folds,
    make_many,
    make_problem,
    nested,
    select,
)

from jaxalign.core.folds import Split

REGIMES = {"n>p": 10, "n=p": N - 1, "n<p": 90, "n<<p": 300}


SHORT_REGIMES = [
    x if x in ("n>p", "n<p") else pytest.param(x, marks=pytest.mark.slow) for x in REGIMES
]


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("regime", SHORT_REGIMES)
def test_leave_one_out_matches_ridge_cv_of_sklearn(regime, form):
    X, Y = make_many(REGIMES[regime])
    model = RidgeCV(ALPHAS, store_cv_results=True, alpha_per_target=True).fit(X, Y)
    options = {"standardize": False, "scheme": "loo", "form": form}
    found = select(X, Y, (), ALPHAS, **options)
    expected = model.cv_results_.mean(axis=0).T
    np.testing.assert_allclose(curves(X, Y, (), ALPHAS, **options), expected, rtol=1e-4)
    assert_bar(found.alphas, expected, ALPHAS, "squared_error")


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize("standardize", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("p", [10, 90])
def test_leave_one_out_matches_leaving_each_out(p, standardize, criterion):
    X, Y = make_many(p)
    folds = gapped_folds()[:2]
    alphas = ALPHAS[::2]
    result = nested(X, Y, folds, alphas, standardize=standardize, scheme="loo", criterion=criterion)
    for i, fold in enumerate(folds):
        Z, splits = ridge_oracle.left_out(X, fold.outer.train, standardize=standardize)
        predicted = []
        for split in map(Split._make, splits):
            deviations, mean = ridge_oracle.predict(Z, Y, split, alphas)
            predicted.append(deviations[:, 0] + mean)
        predicted = np.stack(predicted, axis=1)  # [a R v]
        y = Y[fold.outer.train]
        if criterion == "squared_error":
            costs = ((y - predicted) ** 2).mean(axis=1)
        else:
            costs = -ridge_oracle.pearson_r(predicted, y)
        assert_bar(result.alphas[i], costs, alphas, criterion)
    assert_scores(result, X, Y, folds, standardize=standardize)


@pytest.mark.parametrize("form, standardize", [("primal", True), ("dual", False)])
@pytest.mark.parametrize("regime", SHORT_REGIMES)
def test_generalised_cross_validation_matches_its_closed_form(regime, form, standardize):
    X, Y = make_many(REGIMES[regime])
    Z = ridge_oracle.scaled(X, np.arange(N), standardize=standardize)
    y = Y - Y.mean(axis=0)
    expected = []
    U, values, _ = np.linalg.svd(Z, full_matrices=True)
    values = np.r_[values, np.zeros(N - len(values))] ** 2
    for alpha in ALPHAS:
        # I - H, of which one direction is the constant's; H is that of the centred fit.
        left = np.where(np.arange(N) < N, alpha / (values + alpha), 1.0)
        residual = U @ (left[:, None] * (U.T @ y))
        expected.append((residual**2).mean(axis=0) / ((left.sum() - 1) / N) ** 2)
    options = {"standardize": standardize, "scheme": "gcv", "form": form}
    found = select(X, Y, (), ALPHAS, **options)
    np.testing.assert_allclose(curves(X, Y, (), ALPHAS, **options), expected, rtol=1e-4)
    assert_bar(found.alphas, np.array(expected), ALPHAS, "squared_error")


@pytest.mark.slow
def test_gcv_and_leave_one_out_agree_where_leverages_are_equal(rng):
    # Cosines: every sample has the same leverage.
    time = 2 * np.pi * np.arange(N) / N
    X = np.stack([f(k * time) for k in (1, 2, 5) for f in (np.cos, np.sin)], axis=1)
    Y = X @ rng.normal(size=(6, 8)) + rng.normal(size=(N, 8))
    both = [curves(X, Y, (), ALPHAS, scheme=scheme) for scheme in ("loo", "gcv")]
    np.testing.assert_allclose(*both, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["loo", "gcv"])
@pytest.mark.parametrize("p", [10, 90])
def test_permuting_training_samples_changes_no_closed_form(rng, scheme, p):
    X, Y = make_problem(rng, p)
    order = rng.permutation(N)
    plain, permuted = (
        select(X[rows], Y[rows], (), ALPHAS[2:8], scheme=scheme) for rows in (np.arange(N), order)
    )
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.score, plain.score, atol=1e-5)
