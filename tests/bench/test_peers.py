"""The reference in float64 against loops that share nothing with it; packages against both."""

import subprocess
import sys

import numpy as np
import pytest

from jaxalign.bench import peers
from jaxalign.core import folds as folds_lib

ALPHAS = 10.0 ** np.linspace(-1, 3, 5)


def problem(rng, n, p, v):
    X = rng.standard_normal((n, p))
    Y = 2 + X @ rng.standard_normal((p, v)) + 3 * rng.standard_normal((n, v))
    return X, Y, folds_lib.contiguous_folds(["run"] * n, 4, gap=0)


def by_hand(x, Y, fold, alpha):
    """Solve one target by the normal equations, with the intercept as an unpenalised column."""
    train, test = fold
    A = np.c_[x, np.ones(len(x))]
    penalty = alpha * np.diag([1.0] * x.shape[1] + [0.0])
    w = np.linalg.solve(A[train].T @ A[train] + penalty, A[train].T @ Y[train])
    return A[test] @ w


@pytest.mark.parametrize("n,p", [(40, 6), (20, 30)])
def test_reference_is_that_of_plain_loops(rng, n, p):
    X, Y, folds = problem(rng, n, p, 3)
    found, errors = peers.reference(X, Y, folds, ALPHAS[::-1])
    for i, fold in enumerate(folds):
        for j in range(Y.shape[1]):
            y = Y[:, j]
            curve = [
                np.mean([np.mean((by_hand(X, y, s, a) - y[s.test]) ** 2) for s in fold.inner])
                for a in ALPHAS
            ]
            np.testing.assert_allclose(errors[i, :, j], curve, rtol=1e-8)
            best = ALPHAS[np.argmin(curve)]
            assert found.alphas[i, j] == best
            predicted = by_hand(X, y, fold.outer, best)
            r = np.corrcoef(predicted, y[fold.outer.test])[0, 1]
            np.testing.assert_allclose(found.r[i, j], r, rtol=1e-8)


@pytest.mark.parametrize("n,p", [(40, 6), (20, 30)])
@pytest.mark.parametrize("name", [x for x in peers.PEERS if x != "numpy"])
def test_packages_agree_with_the_reference(rng, name, n, p):
    if absent := peers.missing(name):
        pytest.skip(f"{', '.join(absent)} not installed: pip install -e .[bench]")
    X, Y, folds = problem(rng, n, p, 4)
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    found = peers.PEERS[name].solve(X, Y, folds, ALPHAS)
    truth = peers.numpy_ridge(X, Y, folds, ALPHAS)
    np.testing.assert_allclose(found.alphas, truth.alphas, rtol=1e-5)
    # Under a large penalty slopes are small, and float32 adds an intercept of 2 to them.
    np.testing.assert_allclose(found.r, truth.r, atol=1e-3)


def test_of_equal_errors_the_largest_penalty_is_chosen(rng):
    X, Y, folds = problem(rng, 20, 3, 2)
    found, errors = peers.reference(np.zeros_like(X), Y, folds, ALPHAS)
    assert (errors == errors[:, :1]).all()
    assert (found.alphas == ALPHAS[-1]).all()
    assert np.isnan(found.r).all()


def test_positions_within_the_outer_training_set():
    fold = folds_lib.contiguous_folds(["run"] * 9, 3, gap=0)[1]  # tests 3, 4, 5
    train, test = peers.positions(fold, fold.inner[0])
    assert (train.tolist(), test.tolist()) == ([3, 4, 5], [0, 1, 2])
    gapped = folds_lib.contiguous_folds(["run"] * 12, 3, gap=1)[1]
    with pytest.raises(ValueError, match="inner splits must lie within the outer training set"):
        peers.positions(gapped, gapped.inner[0])


@pytest.mark.slow
def test_nothing_optional_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from jaxalign.bench import peers, solver;"
        "[peers.missing(x) for x in peers.PEERS];"
        "assert not {'torch', 'himalaya', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
