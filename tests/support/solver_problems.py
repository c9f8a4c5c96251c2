"""Problems that the solver is tested on, and what is asked of its results."""

import functools

import numpy as np
import pytest
import ridge_oracle
import tensorstore

from jaxalign.core import folds as folds_lib
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import Problem

N = 60


ALPHAS = 10.0 ** np.arange(-3, 10)


# Beyond 1e4 the errors of neighbouring penalties are equal in float32; as many as in ALPHAS, for
# both to share their compilations.
DISTINCT_ALPHAS = np.logspace(-3, 4, len(ALPHAS))


GROUP_SIZES = (3, 9, 5, 1, 14, 6, 2, 8, 7, 5)


GROUPS = np.repeat(np.arange(len(GROUP_SIZES)), GROUP_SIZES)


# Enough that one in a thousand could be missed; all in one tile.
MANY = 400


TILE = 80


SLOW = pytest.mark.slow


def equal_folds():
    return folds_lib.contiguous_folds(["a"] * N, 5, gap=0)


def gapped_folds():
    return folds_lib.contiguous_folds(["a"] * 23 + ["b"] * 37, 5, gap=3)


def make_targets(rng, X):
    """Targets of falling signal, two of pure noise, one with a large baseline, one small."""
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    signal = X @ rng.normal(size=(X.shape[1], 10)) / np.sqrt(X.shape[1])
    gain = np.array([10.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.0, 0.0, 2.0, 2.0])
    Y = gain * signal + rng.normal(size=signal.shape)
    Y[:, 8] = 1e4 + Y[:, 8] / Y[:, 8].std()
    Y[:, 9] *= 1e-5
    return Y


def make_features(rng, p):
    """Features whose variance falls off, as that of activations does."""
    rotation, _ = np.linalg.qr(rng.normal(size=(p, p)))
    return rng.normal(size=(N, p)) / np.arange(1, p + 1) @ rotation * np.sqrt(p)


def make_problem(rng, p=10):
    X = make_features(rng, p)
    return X, make_targets(rng, X)


def duplicated(X, rng):
    X[:, 1] = X[:, 4] = X[:, 0]


def nearly_duplicated(X, rng):
    X[:, 1] = X[:, 0] + 1e-7 * rng.normal(size=len(X))


def low_rank(X, rng):
    X[:] = rng.normal(size=(len(X), 3)) @ rng.normal(size=(3, X.shape[1]))


def of_unequal_scale(X, rng):
    X *= np.logspace(-1, 2, X.shape[1])


def of_unequal_units(X, rng):
    X *= np.logspace(-3, 3, X.shape[1])[rng.permutation(X.shape[1])]


def ill_conditioned(X, rng):
    """Set eigenvalues that fall by a power law, over eight decades."""
    U, _, W = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    r = min(len(X) - 1, X.shape[1])
    power = 8 / np.log10(r)
    X[:] = 10 * U[:, :r] * np.arange(1, r + 1) ** (-power / 2) @ W[:r]


def off_centre(X, rng):
    X += 1e3


def constant(X, rng):
    X[:, 2], X[:, 5] = 0.1, 0.0
    return [2, 5]


def tiny(X, rng):
    X[:, [2, 5]] = 1e-33 * rng.normal(size=(len(X), 2))
    return [2, 5]


def plain(X, rng):
    pass


COLUMNS = {
    function.__name__: function
    for function in (
        plain,
        duplicated,
        nearly_duplicated,
        low_rank,
        of_unequal_scale,
        of_unequal_units,
        ill_conditioned,
        off_centre,
        constant,
        tiny,
    )
}


@functools.cache
def many_targets(columns, p, num_targets=MANY):
    """Features of a kind, which of them count for nothing, and targets of any signal and unit."""
    rng = np.random.default_rng(0)
    X = make_features(rng, p)
    dead = COLUMNS[columns](X, rng) or []
    live = np.delete(X, dead, axis=1)
    live = (live - live.mean(axis=0)) / live.std(axis=0)
    # Some depend on all features alike, some on the first principal directions.
    U, values, _ = np.linalg.svd(live, full_matrices=False)
    weights = rng.normal(size=(len(values), num_targets))
    weights[:, ::2] *= values[:, None] / values[0]
    signal = U @ weights
    gain = rng.choice([0.0, 0.3, 1.0, 3.0], size=num_targets)
    Y = gain * signal / signal.std(axis=0) + rng.normal(size=signal.shape)
    Y[:, 1] = 1e4 + Y[:, 1]
    Y *= 10.0 ** rng.integers(-4, 5, size=num_targets)
    Y[:, 0] = 0.1
    return X, Y, tuple(dead)


def costs_of_folds(X, Y, folds, alphas, standardize):
    each = [ridge_oracle.costs(X, Y, fold.inner, alphas, standardize=standardize) for fold in folds]
    return {
        criterion: tuple(map(np.array, zip(*(one[criterion] for one in each), strict=True)))
        for criterion in each[0]
    }


def are_decided(costs, criterion):
    """Return for which targets one penalty is clearly better than all others [.. v]."""
    best, second = np.moveaxis(np.sort(costs, axis=-2)[..., :2, :], -2, 0)
    return second - best > (1e-4 * np.abs(best) if criterion == "squared_error" else 1e-5)


def assert_bar(chosen, costs, alphas, criterion):
    """Require equal penalties [.. v] for 99.9 % of the targets that costs [.. a v] decide."""
    decided = are_decided(costs, criterion)
    wrong = decided & (chosen != alphas[costs.argmin(axis=-2)])
    # Of features of rank 3 a correlation does not depend on small penalties, nor on large ones.
    assert decided.mean() > 0.15
    assert wrong.sum() <= 1e-3 * decided.sum(), f"{wrong.sum()} of {decided.sum()} penalties"


def assert_scores(result, X, Y, folds, *, standardize):
    """Compare with the oracle's scores at the penalties that were chosen."""
    for i, fold in enumerate(folds):
        r, r2 = ridge_oracle.scores(X, Y, fold.outer, result.alphas[i], standardize=standardize)
        varies = Y.std(axis=0) > 1e-6 * np.abs(Y).max(axis=0)
        for found, expected in ((result.r[i], r), (result.r2[i], r2)):
            assert np.isnan(found[~varies]).all()
            np.testing.assert_allclose(found[varies], expected[varies], rtol=1e-4, atol=1e-4)
        assert np.abs(result.r[i] - r)[varies].max() < 1e-4


def make_many(p, num_targets=200):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, p))
    signal = X @ rng.normal(size=(p, num_targets)) / np.sqrt(p)
    return X, np.linspace(0, 5, num_targets) * signal + rng.normal(size=signal.shape)


PER_TARGET = ("r", "r2", "alphas", "inner_score", "num_computed")


def assert_same(result, expected, columns=slice(None)):
    """Compare scores that may differ by rounding; choices may not."""
    for name, tolerance in (("r", 1e-6), ("r2", 1e-5), ("inner_score", 1e-5)):
        np.testing.assert_allclose(
            getattr(result, name), getattr(expected, name)[:, columns], rtol=1e-5, atol=tolerance
        )
    np.testing.assert_array_equal(result.alphas, expected.alphas[:, columns])


def stored(Y):
    """Return a tensorstore array in memory, in chunks that tiles do not follow."""
    store = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": "memory://",
            "metadata": {
                "shape": list(Y.shape),
                "data_type": str(Y.dtype),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [7, 33]}},
            },
        },
        create=True,
    ).result()
    store.write(Y).result()
    return store


def settings(alphas, **options):
    """Divide options between what is asked for and how it is computed."""
    how = {name: options.pop(name) for name in Execution._fields if name in options}
    return Method(alphas, **options), Execution(**how)


def nested(X, Y, folds, alphas, **options):
    method, execution = settings(alphas, **options)
    return cv.nested(X, Y, folds, method, execution=execution)


def select(X, Y, splits, alphas, **options):
    method, execution = settings(alphas, **options)
    return cv.select(X, Y, splits, method, execution=execution)


def curves(X, Y, splits, alphas, **options):
    """Return the cost of every penalty [a v], in units of the targets, from one tile."""
    every = np.arange(len(X))
    solved = Problem(
        X, Y, (Fold(Split(every, every), tuple(splits)),), *settings(alphas, **options)
    )
    [targets] = solved.load()
    costs, _ = solved.curves(solved.inner(), targets)
    return (np.asarray(costs)[0] * solved.unit(targets))[:, : len(targets)]


def refit(X, Y, alphas, *, standardize=False, **options):
    method, execution = settings((), standardize=standardize, **options)
    return cv.refit(X, Y, alphas, method, execution=execution)
