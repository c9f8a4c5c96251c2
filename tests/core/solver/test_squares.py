"""Squared predictions at every penalty, against predictions formed in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import cv, squares, tiles
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import Problem

ALPHAS = np.logspace(-3, 6, 12)
N, V = 160, 24


def features(kind, rng):
    """Features whose spectra differ: flat, steep, few distinct rows, one eigenvalue throughout."""
    if kind == "white":
        return rng.standard_normal((N, 120))
    if kind == "steep":
        return rng.standard_normal((N, 120)) @ np.diag(np.arange(1, 121) ** -1.5)
    if kind == "few rows":
        return rng.standard_normal((12, 90))[rng.integers(0, 12, N)]
    return np.tile(np.eye(4), (N // 4, 1))


def problem_of(X, Y, form):
    folds = folds_lib.contiguous_folds(["run"] * N, 4, gap=0)
    method = Method(ALPHAS, standardize=False)
    return Problem(X, Y, folds, method, Execution("grid", form))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "dual", "sums"])
@pytest.mark.parametrize("kind", ["white", "steep", "few rows"])
@pytest.mark.parametrize("center", [False, True])
def test_squares_are_those_of_predictions(rng, kind, form, center):
    X = features(kind, rng)
    Y = X @ rng.standard_normal((X.shape[1], V)) + rng.standard_normal((N, V))
    problem = problem_of(X, Y, form)
    sets = squares.prepare(problem.outer() if center else problem.inner().sets)
    assert sets.squares is not None
    [tile] = problem.load()
    targets = tiles.tile(problem.layout, tile.values, tile.offset)
    trained = targets.train(sets)
    for u in range(len(sets.source)):
        b = int(sets.source[u])
        found = targets.observe(sets, trained, jnp.int32(u), problem.grid, center=center)
        spectrum = np.asarray(sets.design.spectrum[b], np.float64)
        loadings = np.asarray(sets.design.loadings[u], np.float64)
        w = np.asarray(trained.rotated[b], np.float64)
        for a, alpha in enumerate(np.asarray(problem.grid, np.float64)):
            z = w / (spectrum + alpha)
            if form == "sums":
                expected = ((z @ loadings) * z).sum(axis=1)
            else:
                expected = ((z @ loadings.T) ** 2).sum(axis=1)
            whole = np.asarray(found.yy)[:, 0] + expected
            assert (np.abs(found.q[:, a] - expected)[:V] <= 2e-6 * whole[:V]).all()
            np.testing.assert_allclose(found.q[:V, a], expected[:V], rtol=2e-4)


def test_close_directions_are_paired():
    spectrum = np.array([[9.0, 1.0, 2.0, 2.001, 2.0015, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    pairs = squares.close_pairs(spectrum, np.array([5, 6]))
    assert pairs is not None
    first, second, weight = (x[0][pairs.weight[0] > 0] for x in pairs)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(2, 3), (2, 4), (3, 4)]
    assert (weight == 1).all()
    assert not pairs.weight[1].any()


def test_features_that_repeat_one_eigenvalue_have_too_many_pairs(rng):
    X = features("one eigenvalue", rng)
    spectrum = np.linalg.eigvalsh(X.T @ X)[None]
    assert squares.close_pairs(np.repeat(spectrum, 9, axis=1), np.array([36])) is None


@pytest.mark.slow
@pytest.mark.parametrize("search", ["grid", "adaptive"])
def test_a_close_fit_keeps_its_digits(rng, search):
    """Where little is left, y'y - 2 b + q has lost what tells penalties apart."""
    X = rng.standard_normal((N, 110))
    Y = X[:, :100] @ rng.standard_normal((100, V))
    Y[:, V // 2 :] += 30 * rng.standard_normal((N, V - V // 2))
    folds = folds_lib.contiguous_folds(["run"] * N, 4, gap=0)
    method = Method(ALPHAS, standardize=False)
    found = cv.nested(X, Y, folds, method, execution=Execution(search))
    for i, fold in enumerate(folds):
        errors = np.zeros((len(ALPHAS), V))
        for train, test in fold.inner:
            Z, y = X - X[train].mean(axis=0), Y - Y[train].mean(axis=0)
            gram = Z[train] @ Z[train].T
            for a, alpha in enumerate(ALPHAS):
                slopes = np.linalg.solve(gram + alpha * np.eye(len(train)), y[train])
                predicted = Z[test] @ Z[train].T @ slopes
                errors[a] += ((predicted - y[test]) ** 2).mean(axis=0) / len(fold.inner)
        place = np.searchsorted(ALPHAS, found.alphas[i])
        taken = errors[place, np.arange(V)]
        variance = Y.var(axis=0)
        # Within float32's rounding of the error where a fit is close, and of the least elsewhere.
        assert (taken - errors.min(axis=0) <= 1e-5 * errors.min(axis=0) + 1e-9 * variance).all()
