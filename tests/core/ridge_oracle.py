"""Ridge in float64 by the normal equations, independent of `jaxalign.core.ridge`.

The intercept is an unpenalised column of ones, not a subtraction; each penalty and each split is
solved anew, and nothing is padded.
"""

import numpy as np
from scipy import stats
from sklearn.metrics import r2_score


def fit_predict(X, Y, split, alphas, *, standardize):
    """Return slopes times features [a T v], and intercepts [a v], for each penalty."""
    Z = X - X[split.train].mean(axis=0)
    if standardize:
        Z = Z / X[split.train].std(axis=0)
    A = np.c_[Z, np.ones(len(Z))]
    R = A[split.train]
    penalised = np.diag(np.r_[np.ones(Z.shape[1]), 0])
    normal = R.T @ R + np.multiply.outer(alphas, penalised)
    W = np.linalg.solve(normal, R.T @ Y[split.train])
    return Z[split.test] @ W[:, :-1], W[:, -1]


def inner_errors(X, Y, fold, alphas, *, standardize):
    """Return mean squared errors [a v], averaged over inner splits, and those of the mean [v]."""
    errors, null = [], []
    for split in fold.inner:
        slopes, intercepts = fit_predict(X, Y, split, alphas, standardize=standardize)
        y = Y[split.test]
        errors.append(((y - slopes - intercepts[:, None]) ** 2).mean(axis=1))
        null.append(((y - Y[split.train].mean(axis=0)) ** 2).mean(axis=0))
    return np.mean(errors, axis=0), np.mean(null, axis=0)


def held_out(X, Y, fold, chosen, *, standardize):
    """Return r and R2 [v] on the outer test block, each target with its own penalty."""
    alphas, which = np.unique(chosen, return_inverse=True)
    slopes, intercepts = fit_predict(X, Y, fold.outer, alphas, standardize=standardize)
    r, r2 = np.empty(len(chosen)), np.empty(len(chosen))
    for j, a in enumerate(which):
        y = Y[fold.outer.test, j]
        # Without the intercept, whose digits would bury the slopes of a large penalty.
        r[j] = stats.pearsonr(slopes[a, :, j], y).statistic
        r2[j] = r2_score(y, slopes[a, :, j] + intercepts[a, j])
    return r, r2
