"""Ridge in float64, plainly: every split and penalty is solved anew, and nothing is shared.

A ridge is least squares with one more row per feature, which says that its coefficient is zero with
the weight sqrt(alpha). Least squares itself (penalty 0) is left to `np.linalg.lstsq`.
"""

import numpy as np
from numpy.linalg import lstsq, qr, solve

# Singular values below this fraction of the largest are none; its square is `ridge.CUTOFF`.
CUTOFF = 1e-6


def scaled(X, train, *, standardize):
    """Centre features by their training means, and divide them by their training spreads."""
    Z = X - X[train].mean(axis=0)
    return Z / X[train].std(axis=0) if standardize else Z


def hat(X, split, alphas, *, standardize):
    """Return what takes centred training targets to predicted deviations of test ones [a T R]."""
    Z = scaled(X, split.train, standardize=standardize)
    R, p = len(split.train), Z.shape[1]
    if np.array_equal(alphas, [0]):
        return (Z[split.test] @ lstsq(Z[split.train], np.eye(R), rcond=CUTOFF)[0])[None]
    weights = np.sqrt(alphas)[:, None, None] * np.eye(p)
    rows = np.broadcast_to(Z[split.train], (len(alphas), R, p))
    Q, triangle = qr(np.concatenate([rows, weights], axis=1))
    return Z[split.test] @ solve(triangle, Q[:, :R].swapaxes(1, 2))


def predict(X, Y, split, alphas, *, standardize=False):
    """Return predicted deviations from the training mean [a T v], and that mean [v]."""
    mean = Y[split.train].mean(axis=0)
    return hat(X, split, alphas, standardize=standardize) @ (Y[split.train] - mean), mean


def pearson_r(a, b):
    """Correlate along the last axis but one; NaN where either is constant."""
    varies = (np.ptp(a, axis=-2) > 0) & (np.ptp(b, axis=-2) > 0)
    a, b = (x - x.mean(axis=-2, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(axis=-2) * (b**2).sum(axis=-2))
    return np.where(varies, (a * b).sum(axis=-2) / np.where(varies, size, 1), np.nan)


def costs(X, Y, splits, alphas, *, standardize):
    """Return costs averaged over splits [a v], and those of the training mean [v], by criterion."""
    errors, null, correlations = [], [], []
    for split in splits:
        deviations, mean = predict(X, Y, split, alphas, standardize=standardize)
        y = Y[split.test]
        errors.append(((y - mean - deviations) ** 2).mean(axis=1))
        null.append(((y - mean) ** 2).mean(axis=0))
        # An undefined correlation counts as none.
        correlations.append(-np.nan_to_num(pearson_r(deviations, y)))
    return {
        "squared_error": (np.mean(errors, axis=0), np.mean(null, axis=0)),
        "correlation": (np.mean(correlations, axis=0), np.zeros(Y.shape[1])),
    }


def left_out(X, train, *, standardize):
    """Split a training set into all but one sample and that one; features are scaled before."""
    Z = scaled(X, train, standardize=standardize)
    return Z, [(np.delete(train, i), train[i : i + 1]) for i in range(len(train))]


def scores(X, Y, split, chosen, *, standardize):
    """Return r and R2 [v] on the test samples, each target with its own penalty."""
    r, r2 = np.full((2, len(chosen)), np.nan)
    for alpha in np.unique(chosen):
        own = chosen == alpha
        deviations, mean = predict(X, Y[:, own], split, np.array([alpha]), standardize=standardize)
        y = Y[split.test][:, own]
        total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        # Without the mean, whose digits would bury the slopes of a large penalty.
        r[own] = pearson_r(deviations[0], y)
        with np.errstate(invalid="ignore", divide="ignore"):
            r2[own] = 1 - ((y - mean - deviations[0]) ** 2).sum(axis=0) / total
    return r, r2
