"""The nested ridge of core/solver/cv.py by other packages, to time it and to check it against.

All minimise ||X w + b - y||^2 + alpha ||w||^2 with a free intercept b, choose a penalty for each
target by the squared error averaged over the inner splits, and score by Pearson r on the outer
test block. Packages that may be absent are imported when they are asked for.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method


class Solution(NamedTuple):
    """What every solver returns; one row per outer fold, one column per target."""

    r: Float[np.ndarray, "k v"]  # Pearson r on the held-out block
    alphas: Float[np.ndarray, "k v"]  # penalty chosen on the inner splits


class Peer(NamedTuple):
    """A solver, and the modules that it imports."""

    solve: Callable[..., Solution]  # of X, Y, folds, alphas
    needs: tuple[str, ...]


def himalaya_ridge(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> Solution:
    """Fit himalaya's RidgeCV once per outer fold, in float32 with PyTorch.

    It centres features and targets by the mean of each inner training set, as core/solver/cv.py
    does.

    Raises:
      ValueError: if an inner split has samples outside the outer training set.
    """
    from himalaya.ridge import RidgeCV

    # It would warn that the other solver is faster for this shape.
    return _himalaya(RidgeCV, {"solver_params": {"warn": False}}, X, Y, folds, alphas)


def himalaya_kernel(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> Solution:
    """Fit himalaya's KernelRidgeCV, with its linear kernel, once per outer fold.

    With `fit_intercept=True` himalaya 0.4.11 centres the kernel and the targets by the mean of each
    inner training set (`KernelCenterer` in `_random_search.py`), which is the free intercept of
    core/solver/cv.py: no setting is needed to make the two agree. What differs is rounding:
    eigenvalues are in float32 too, and a penalty below twice the largest negative one cannot be
    chosen.

    Raises:
      ValueError: if an inner split has samples outside the outer training set.
    """
    from himalaya.kernel_ridge import KernelRidgeCV

    return _himalaya(KernelRidgeCV, {"warn": False}, X, Y, folds, alphas)


def _himalaya(kind, settings, X, Y, folds, alphas) -> Solution:
    import torch
    from himalaya.backend import set_backend
    from himalaya.scoring import correlation_score

    backend = set_backend("torch_cuda" if torch.cuda.is_available() else "torch")
    r, chosen = [], []
    for fold in folds:
        train, test = fold.outer
        model = kind(
            alphas=np.asarray(alphas, np.float32),
            fit_intercept=True,
            cv=[positions(fold, split) for split in fold.inner],
            **settings,
        )
        model.fit(X[train], Y[train])
        r.append(backend.to_numpy(correlation_score(Y[test], model.predict(X[test]))))
        chosen.append(backend.to_numpy(model.best_alphas_))
    return Solution(np.array(r, np.float64), np.array(chosen, np.float64))


def positions(fold: Fold, split: Split) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " T"]]:
    """Translate an inner split from samples to positions within the outer training set.

    Raises:
      ValueError: if it has samples outside the outer training set, as a gap leaves.
    """
    train = np.asarray(fold.outer.train)
    for indices in split:
        if not np.isin(indices, train).all():
            raise ValueError("inner splits must lie within the outer training set: use gap 0.")
    place = np.empty(train.max() + 1, np.int64)
    place[train] = np.arange(len(train))
    return place[split.train], place[split.test]


def sklearn_ridge(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> Solution:
    """Fit scikit-learn's Ridge to all targets, for each split and penalty.

    Its RidgeCV cannot choose a penalty for each target on given splits, so the loop is ours.
    """
    from sklearn.linear_model import Ridge

    def predict(split, alpha, columns):
        model = Ridge(alpha=float(alpha)).fit(X[split.train], Y[split.train][:, columns])
        return model.predict(X[split.test]).reshape(len(split.test), -1)

    everything = np.arange(Y.shape[1])
    alphas = np.sort(alphas)
    r, chosen = np.empty((len(folds), Y.shape[1])), np.empty((len(folds), Y.shape[1]))
    for i, fold in enumerate(folds):
        errors = np.zeros((len(alphas), Y.shape[1]))
        for split in fold.inner:
            for j, alpha in enumerate(alphas):
                residual = predict(split, alpha, everything) - Y[split.test]
                errors[j] += (residual**2).mean(axis=0) / len(fold.inner)
        chosen[i] = alphas[_least(errors)]
        for alpha in np.unique(chosen[i]):
            columns = np.flatnonzero(chosen[i] == alpha)
            recorded = Y[fold.outer.test][:, columns]
            r[i, columns] = _pearson_r(predict(fold.outer, alpha, columns), recorded)
    return Solution(r, chosen)


def every_penalty(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> Solution:
    """Compute the error of every penalty with our own solver: what the adaptive search saves."""
    method = Method(alphas, standardize=False)
    found = cv.nested(X, Y, folds, method, execution=Execution(search="grid"))
    return Solution(found.r, found.alphas)


def numpy_ridge(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> Solution:
    """Solve by one eigendecomposition per training set and one product per penalty, in float64."""
    return reference(X, Y, folds, alphas)[0]


def reference(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
) -> tuple[Solution, Float[np.ndarray, "k a v"]]:
    """Solve as `numpy_ridge` does, and return the mean squared errors on the inner splits too.

    The errors are in the order of ascending penalties.
    """
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    alphas = np.sort(np.asarray(alphas, np.float64))
    num_targets = Y.shape[1]
    errors = np.zeros((len(folds), len(alphas), num_targets))
    r, chosen = np.empty((len(folds), num_targets)), np.empty((len(folds), num_targets))
    for i, fold in enumerate(folds):
        for split in fold.inner:
            spectrum, loadings, rotated, mean = _rotate(X, Y, split)
            for j, alpha in enumerate(alphas):
                fitted = loadings @ (rotated / (spectrum[:, None] + alpha))
                residual = mean + fitted - Y[split.test]
                errors[i, j] += (residual**2).mean(axis=0) / len(fold.inner)
        chosen[i] = alphas[_least(errors[i])]
        spectrum, loadings, rotated, _ = _rotate(X, Y, fold.outer)
        fitted = loadings @ (rotated / (spectrum[:, None] + chosen[i]))
        r[i] = _pearson_r(fitted, Y[fold.outer.test])
    return Solution(r, chosen), errors


def _rotate(X, Y, split):
    """Return spectrum [r], held-out loadings [T r], rotated targets [r v] and their mean [v]."""
    train, test = split
    centre, mean = X[train].mean(axis=0), Y[train].mean(axis=0)
    Z, Z_test, residual = X[train] - centre, X[test] - centre, Y[train] - mean
    if Z.shape[1] < Z.shape[0]:
        spectrum, Q = np.linalg.eigh(Z.T @ Z)
        loadings, rotated = Z_test @ Q, Q.T @ (Z.T @ residual)
    else:
        spectrum, Q = np.linalg.eigh(Z @ Z.T)
        loadings, rotated = Z_test @ (Z.T @ Q), Q.T @ residual
    # Rounding makes some of the zero eigenvalues negative.
    return np.maximum(spectrum, 0), loadings, rotated, mean


def _least(errors: Float[np.ndarray, "a v"]) -> Int[np.ndarray, " v"]:
    """Return the place of the least error; of equal ones the last, which is the largest penalty."""
    return len(errors) - 1 - errors[::-1].argmin(axis=0)


def _pearson_r(predicted, recorded):
    a = predicted - predicted.mean(axis=0, dtype=np.float64)
    b = recorded - recorded.mean(axis=0, dtype=np.float64)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), scale, out=np.full_like(scale, np.nan), where=scale > 0)


# `packaging` is imported by himalaya, which does not declare it.
_HIMALAYA = ("himalaya", "packaging", "sklearn", "torch")
PEERS = {
    "himalaya_ridge": Peer(himalaya_ridge, _HIMALAYA),
    "himalaya_kernel": Peer(himalaya_kernel, _HIMALAYA),
    "sklearn": Peer(sklearn_ridge, ("sklearn",)),
    "every_penalty": Peer(every_penalty, ()),
    "numpy": Peer(numpy_ridge, ()),
}


def missing(name: str) -> list[str]:
    """Return the modules that a peer needs and that are not installed; imports none of them."""
    return [x for x in PEERS[name].needs if importlib.util.find_spec(x) is None]
