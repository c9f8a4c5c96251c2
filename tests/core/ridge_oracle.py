"""Ridge in float64 by the normal equations, independent of `jaxalign.core.ridge`.

The intercept is an unpenalised column of ones, not a subtraction; nothing is shared between
penalties or splits, and nothing is padded.
"""

import numpy as np
from scipy import stats
from sklearn.metrics import r2_score


def fit_predict(X, Y, split, alpha, *, standardize):
    """Return slopes times features [T v], and intercepts [v], with one penalty for all targets."""
    Z = X - X[split.train].mean(axis=0)
    if standardize:
        Z = Z / X[split.train].std(axis=0)
    A = np.c_[Z, np.ones(len(Z))]
    R = A[split.train]
    penalty = alpha * np.eye(A.shape[1])
    penalty[-1, -1] = 0
    W = np.linalg.solve(R.T @ R + penalty, R.T @ Y[split.train])
    return Z[split.test] @ W[:-1], W[-1]


def inner_errors(X, Y, fold, alphas, *, standardize):
    """Return mean squared errors [a v], averaged over inner splits, and those of the mean [v]."""
    errors = np.zeros((len(alphas), Y.shape[1]))
    null = np.zeros(Y.shape[1])
    for split in fold.inner:
        for i, alpha in enumerate(alphas):
            slopes, intercept = fit_predict(X, Y, split, alpha, standardize=standardize)
            errors[i] += ((Y[split.test] - slopes - intercept) ** 2).mean(axis=0)
        null += ((Y[split.test] - Y[split.train].mean(axis=0)) ** 2).mean(axis=0)
    return errors / len(fold.inner), null / len(fold.inner)


def held_out(X, Y, fold, chosen, *, standardize):
    """Return r and R2 [v] on the outer test block, each target with its own penalty."""
    r, r2 = np.empty(len(chosen)), np.empty(len(chosen))
    for alpha in np.unique(chosen):
        slopes, intercept = fit_predict(X, Y, fold.outer, alpha, standardize=standardize)
        for j in np.flatnonzero(chosen == alpha):
            y = Y[fold.outer.test, j]
            # Without the intercept, whose digits would bury the slopes of a large penalty.
            r[j] = stats.pearsonr(slopes[:, j], y).statistic
            r2[j] = r2_score(y, slopes[:, j] + intercept[j])
    return r, r2
