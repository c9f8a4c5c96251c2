"""Scores depend on no unit of features, and without an intercept on no mean of both sides."""

import numpy as np
import pytest
from solver_problems import DISTINCT_ALPHAS, N, equal_folds, make_many, nested

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import banded
from jaxalign.core.solver.method import Method


@pytest.mark.parametrize("unit", [1e-30, 1e30])
@pytest.mark.parametrize(
    "form, standardize",
    [
        ("primal", False),
        pytest.param("dual", False, marks=pytest.mark.slow),
        pytest.param("sums", False, marks=pytest.mark.slow),
        pytest.param("primal", True, marks=pytest.mark.slow),
        pytest.param("sums", True, marks=pytest.mark.slow),
    ],
)
def test_scores_do_not_depend_on_the_unit_of_features(unit, form, standardize):
    X, Y = make_many(10, 30)
    options = {"form": form, "standardize": standardize, "search": "adaptive"}
    square = 1 if standardize else unit**2
    plain = nested(X, Y, equal_folds(), DISTINCT_ALPHAS, **options)
    found = nested(unit * X, Y, equal_folds(), DISTINCT_ALPHAS * square, **options)
    np.testing.assert_allclose(found.alphas, plain.alphas * square)
    np.testing.assert_allclose(found.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(found.r2, plain.r2, atol=1e-5)
    np.testing.assert_array_equal(found.num_constant, 0)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_least_squares_does_not_depend_on_the_unit_of_features(unit):
    X, Y = make_many(10, 30)
    plain, found = (nested(k * X, Y, equal_folds(), [0.0], standardize=False) for k in (1, unit))
    np.testing.assert_allclose(found.r, plain.r, atol=1e-5)
    np.testing.assert_array_equal(found.rank, plain.rank)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_banded_ridge_does_not_depend_on_the_unit_of_features(unit):
    X, Y = make_many(10, 16)
    bands, budget = np.repeat([0, 1], 5), banded.Budget(0, num_draws=2, rounds=1)
    folds = equal_folds()
    plain, found = (
        banded.nested(
            banded.Features(k * X, bands),
            Y,
            folds,
            Method(DISTINCT_ALPHAS * k**2, standardize=False),
            budget,
        )
        for k in (1, unit)
    )
    np.testing.assert_allclose(found.weights, plain.weights)
    np.testing.assert_allclose(found.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(found.product_measure, plain.product_measure, atol=1e-5)


def in_float64(X, Y, fold, alphas):
    """Choose penalties and score without an intercept, plainly; R2 and penalties [v]."""

    def predict(split):
        A, B = X[split.train], X[split.test]
        spectrum, Q = np.linalg.eigh(A @ A.T)
        kept = spectrum > 1e-14 * spectrum[-1]
        w, loadings = Q[:, kept].T @ Y[split.train], B @ A.T @ Q[:, kept]
        return [loadings @ (w / (spectrum[kept] + alpha)[:, None]) for alpha in alphas]

    errors = np.mean(
        [[((p - Y[s.test]) ** 2).mean(axis=0) for p in predict(s)] for s in fold.inner], axis=0
    )
    place = errors.argmin(axis=0)
    predicted, y = np.array(predict(fold.outer)), Y[fold.outer.test]
    predicted = predicted[place, :, np.arange(Y.shape[1])].T
    square = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    return 1 - ((predicted - y) ** 2).sum(axis=0) / square, np.asarray(alphas)[place]


@pytest.mark.slow
@pytest.mark.parametrize("search", ["grid", "adaptive"])
@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
def test_without_an_intercept_a_common_offset_costs_no_digits(rng, offset, search):
    p = 120 if search == "adaptive" else 20
    X, Y = rng.normal(size=(200, p)), rng.normal(size=(200, 12))
    Y[:, :8] += X @ rng.normal(size=(p, 8)) / np.sqrt(p)
    folds = folds_lib.nest(4, 4, len(X))
    alphas = np.logspace(0, 5, 9)
    X, Y = X + offset, Y + offset
    options = {"standardize": False, "intercept": False, "search": search}
    found = nested(X, Y, folds, alphas, **options)
    assert (found.num_computed.max() < len(alphas)) == (search == "adaptive")
    for i, fold in enumerate(folds):
        r2, chosen = in_float64(X, Y, fold, alphas)
        np.testing.assert_array_equal(found.alphas[i], chosen)
        np.testing.assert_allclose(found.r2[i], r2, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-25, 1e-9])
def test_a_feature_in_small_units_counts_as_much_as_in_large_ones(scale):
    X, Y = make_many(10, 30)
    plain = nested(X, Y, equal_folds(), DISTINCT_ALPHAS, standardize=True)
    X[:, 0] *= scale
    found = nested(X, Y, equal_folds(), DISTINCT_ALPHAS, standardize=True)
    assert len(X) == N
    np.testing.assert_allclose(found.r, plain.r, atol=1e-5)
    np.testing.assert_array_equal(found.num_constant, 0)
