"""The adaptive search misses no least inner error, in regimes where curves have many shapes.

The errors of every penalty are computed in float64, without the solver. docs/solver.md has the
figures of a larger run of the same kind.
"""

import itertools

import numpy as np
import pytest
from scipy.signal import lfilter
from solver_problems import nested

from jaxalign.core import folds as folds_lib

# Number of targets; each is a choice in every fold.
V, K = 400, 5
ALPHAS = np.logspace(-2, 7, 19)


def noise(rng, shape, phi=0.0):
    """White noise, or autoregressive series along the first axis."""
    draws = np.sqrt(1 - phi**2) * rng.normal(size=shape)
    return lfilter([1], [1, -phi], draws, axis=0)


def signal(rng, X, gains):
    """A linear function of the features for each target, of a gain drawn from `gains`."""
    S = (X - X.mean(axis=0)) @ rng.normal(size=(X.shape[1], V))
    return rng.choice(gains, size=V) * S / S.std(axis=0)


def white(rng):
    X = noise(rng, (240, 150))
    return X, signal(rng, X, [0, 0.3, 1]) + noise(rng, (240, V))


def collinear(rng):
    X = noise(rng, (160, 12)) @ noise(rng, (12, 300)) + 0.3 * noise(rng, (160, 300))
    return X, signal(rng, X[:, :20], [0, 0.3, 1]) + noise(rng, (160, V))


def slow_and_steep(rng):
    X = noise(rng, (220, 200), 0.8) * np.arange(1, 201) ** -0.7
    return X, signal(rng, X, [0, 0.1, 0.3]) + noise(rng, (220, V), 0.8)


def strong(rng):
    X = noise(rng, (200, 140)) * np.arange(1, 141) ** -0.5
    return X, signal(rng, X, [3, 30]) + noise(rng, (200, V))


def two_minima(rng):
    X = noise(rng, (200, 130), 0.5) * np.arange(1, 131) ** -0.5
    weights = rng.normal(size=(130, V))
    weights[2:, ::2], weights[-1, ::4] = 0, 35
    S = X @ weights
    return X, rng.choice([0, 0.5, 2], size=V) * S / S.std(axis=0) + noise(rng, (200, V))


def pure_noise(rng):
    return noise(rng, (150, 400)), noise(rng, (150, V), 0.5)


def inner_errors(X, Y, folds):
    """Mean squared errors on inner test sets, averaged over them, at every penalty [k a v]."""
    found = np.zeros((len(folds), len(ALPHAS), V))
    for of_fold, fold in zip(found, folds, strict=True):
        for train, test in fold.inner:
            Z, y = X - X[train].mean(axis=0), Y - Y[train].mean(axis=0)
            spectrum, Q = np.linalg.eigh(Z[train] @ Z[train].T)
            w, loadings = Q.T @ y[train], Z[test] @ Z[train].T @ Q
            for a, alpha in enumerate(ALPHAS):
                z = w / (np.maximum(spectrum, 0) + alpha)[:, None]
                of_fold[a] += ((loadings @ z - y[test]) ** 2).mean(axis=0) / len(fold.inner)
    return found


REGIMES = (white, collinear, slow_and_steep, strong, two_minima, pure_noise)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES, ids=lambda x: x.__name__)
def test_no_choice_is_above_the_least_inner_error(regime):
    X, Y = regime(np.random.default_rng(0))
    folds = folds_lib.contiguous_folds(["run"] * len(X), K, gap=0)
    costs = inner_errors(X, Y, folds)
    for form, search in itertools.product(("auto", "sums"), ("bound", "adaptive")):
        options = {"standardize": False, "search": search, "form": form}
        result = nested(X, Y, folds, ALPHAS, **options)
        place = np.searchsorted(ALPHAS, result.alphas)[:, None]
        excess = np.take_along_axis(costs, place, axis=1)[:, 0] / costs.min(axis=1) - 1
        assert excess.size == K * V
        assert excess.max() < 1e-4
        assert (result.num_computed.mean() < len(ALPHAS) / 3) == (search == "bound")
