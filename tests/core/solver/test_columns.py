import tracemalloc

import numpy as np
import pytest

from jaxalign.core import folds as folds_lib
from jaxalign.core import metrics
from jaxalign.core.solver import columns as columns_lib
from jaxalign.core.solver import cv, ridge
from jaxalign.core.solver.columns import Columns
from jaxalign.core.solver.method import Method

N, P = 30, 50
TRAIN = np.arange(20)


@pytest.fixture
def X(rng):
    found = np.float32(rng.normal(size=(N, P)) * np.logspace(-3, 3, P) + 5)
    found[:, 7] = 2
    return found


def test_blocks_are_all_features_in_their_units(X):
    units = columns_lib.units(X, each=True, intercept=True, block=4 * N)
    np.testing.assert_array_equal(units, columns_lib.units(X, each=True, intercept=True))
    columns = Columns(X, units, 7 * N)
    blocks = list(columns.blocks())
    assert len(blocks) == 8 and max(x.shape[1] for x in blocks) == 7
    assert all(x.dtype == np.float64 for x in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), X / units)
    np.testing.assert_array_equal(columns.whole, X / units)


def test_what_is_asked_of_all_features_is_found_in_blocks(X):
    columns = Columns(X, block=3 * N)
    assert columns.precision == metrics.precision(X)
    assert columns.is_finite()
    np.testing.assert_array_equal(np.flatnonzero(~columns.varying(TRAIN)), [7])
    varies = columns.varying(TRAIN)
    assert columns.differ(np.array([20, 21]), varies)
    assert not columns.differ(np.array([20, 20]), varies)
    X[5, 40] = np.nan
    assert not columns.is_finite()
    wide = X.astype(np.float64)
    wide[3, 49] += 1e-9
    assert Columns(wide, block=3 * N).precision == metrics.precision(wide) < columns.precision


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_a_factorisation_from_blocks_is_that_from_all_features(X, standardize, intercept):
    tests = np.arange(20, N)[None]
    rows = ridge.Rows(TRAIN, np.ones(20, bool), tests, np.ones((1, 10), bool))
    settings = ridge.Settings(standardize, True, "dual", intercept=intercept)
    alphas = np.ones(1)

    def gram(X):
        shared = None if standardize else ridge.kernel(X, intercept=intercept)
        found = ridge.factorize(X, rows, settings, shared=shared, alphas=alphas)
        return found, (found.basis.T * found.spectrum) @ found.basis

    (whole, expected), (found, product) = gram(Columns(X)), gram(Columns(X, block=9 * N))
    np.testing.assert_allclose(found.spectrum, whole.spectrum, rtol=1e-6)
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert found.rank == whole.rank


@pytest.mark.parametrize("standardize", [False, True])
def test_scores_do_not_depend_on_the_size_of_blocks(X, tmp_path, monkeypatch, rng, standardize):
    Y = X @ rng.normal(size=(P, 4)) + 100 * rng.normal(size=(N, 4))
    folds = folds_lib.contiguous_folds(np.zeros(N, int), 3, gap=0)
    method = Method((1.0, 10.0, 100.0), standardize)
    whole = cv.nested(X, Y, folds, method)
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(Columns.__init__, "__defaults__", (None, 9 * N))
    found = cv.nested(np.load(tmp_path / "X.npy", mmap_mode="r"), Y, folds, method)
    np.testing.assert_array_equal(found.alphas, whole.alphas)
    np.testing.assert_allclose(found.r, whole.r, atol=1e-5)
    np.testing.assert_array_equal(found.num_constant, 1)


def test_no_copy_of_all_features_is_held():
    X = np.zeros((50, 200_000), np.float32)  # 80 MB in float64
    X[:, ::7] = np.arange(50)[:, None]
    folds = folds_lib.contiguous_folds(np.zeros(50, int), 3, gap=0)
    tracemalloc.start()
    try:
        units = columns_lib.units(X, each=False, intercept=True, block=2**18)
        columns = Columns(X, units, 2**18)  # blocks of 2 MB
        assert columns.is_finite() and columns.precision > 1e-8
        found = ridge.kernel(columns)
        varies = columns.varying(folds[0].outer.train)
        assert columns.differ(folds[0].outer.test, varies)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert varies.sum() == -(-200_000 // 7) and found.products.shape == (50, 50)
    assert peak < 16e6


@pytest.mark.parametrize("spread", [1e-9, 1e-7, 1e-6, 1e-5, 1e-3])
def test_what_varies_is_told_by_the_standard_deviation(spread):
    X = np.ones((1000, 2))
    X[0, 0] += spread  # a single sample is apart
    X[:500, 1] += spread
    expected = ~metrics.is_rounding(X.std(axis=0), np.abs(X).max(axis=0))
    np.testing.assert_array_equal(Columns(X).varying(np.arange(1000)), expected)
