"""Planted experiments, and what a protocol should make of them by scikit-learn on fresh draws."""

from typing import NamedTuple

import numpy as np
from sklearn import decomposition, linear_model

from jaxalign.core.inference import stats
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import Protocol

NUM_FEATURES = 12
NUM_SUBJECTS = 6
NUM_TARGETS = 3  # of each subject
COLUMNS = NUM_SUBJECTS * NUM_TARGETS
SUBJECTS = np.repeat([f"s{i}" for i in range(NUM_SUBJECTS)], NUM_TARGETS)
TARGETS = np.tile([f"t{i}" for i in range(NUM_TARGETS)], NUM_SUBJECTS)
NOISE_SD = 1.0  # in units of the signal's
NUM_FRESH = 200


class Size(NamedTuple):
    """Samples, and of those the last ones as a test set that comes with the data."""

    samples: int
    test: int


def size(protocol: Protocol, samples: int) -> Size:
    """Return how many samples there are; chunks have to leave something to train on."""
    folds, penalty = protocol.encoding
    if folds.rule != "test_set":
        return Size(samples, 0)
    return Size(max(samples, int(1.25 * penalty.chunk * penalty.num_chunks)), samples // 3)


def labels(protocol: Protocol, samples: int) -> dict[str, np.ndarray]:
    """Return what a protocol asks for beside features and responses."""
    rule = protocol.encoding[0].rule
    n, test = size(protocol, samples)
    if rule == "test_set":
        return {"test": np.arange(n) >= n - test}
    if rule == "trimmed":
        return {"runs": np.repeat(["a", "b", "c"], n // 3)}
    return {"groups": np.arange(n) // 5}


def draw(rng, n, num=1, *, noise_sd=NOISE_SD, shared=True, X=None, W=None):
    """Draw experiments that have their features in common: X [n p], Y [n num s v], weights.

    Signals are linear in the features and have unit variance. Subjects share them, or each has its
    own; noise is theirs alone.
    """
    X = rng.standard_normal((n, NUM_FEATURES)) if X is None else X
    if W is None:
        W = rng.standard_normal((NUM_FEATURES, num, 1 if shared else NUM_SUBJECTS, NUM_TARGETS))
        W /= np.sqrt((W**2).sum(axis=0))
    noise = rng.standard_normal((len(X), num, NUM_SUBJECTS, NUM_TARGETS))
    return X, np.einsum("np,pesv->nesv", X, W) + noise_sd * noise, W


def expected(protocol: Protocol, rng, samples, *, num=1, draws=NUM_FRESH, **options) -> float:
    """Return the expected held-out score: fits to fresh training sets, scored on fresh test sets.

    Sets are as large as those of the protocol's folds. Penalties come from its grid, but are chosen
    by scikit-learn's leave-one-out. The experiments of a draw have their features in common.
    """
    n = size(protocol, samples).samples
    folds = scoring.make_folds(protocol, n, **labels(protocol, samples))
    found = []
    for i in range(draws):
        train, test = (len(part) for part in folds[i % len(folds)].outer)
        X, Y, _ = draw(rng, train + test, num, **options)
        Y = Y.reshape(len(Y), -1)
        predicted = _fit(protocol, X[:train], Y[:train], X[train:])
        r = _score(protocol, predicted, Y[train:]).reshape(num, -1)
        middle = np.median if protocol.aggregation.targets == "median" else np.mean
        found.append(middle(r, axis=1).mean())
    return float(np.mean(found))


def _fit(protocol, X, Y, X_test):
    if protocol.scaling.pca:
        components = decomposition.PCA(protocol.scaling.pca, svd_solver="full").fit(X)
        X, X_test = components.transform(X), components.transform(X_test)
    _, penalty = protocol.encoding
    if penalty.grid == (0.0,):
        return linear_model.LinearRegression().fit(X, Y).predict(X_test)
    alphas = np.array(penalty.grid) ** (2 if penalty.squared else 1)
    model = linear_model.RidgeCV(
        alphas[alphas < 1e9],  # beyond, scikit-learn's errors are rounding
        fit_intercept=protocol.scaling.intercept,
        alpha_per_target=penalty.per_target,
    )
    return model.fit(X, Y).predict(X_test)


def _score(protocol, predicted, recorded):
    apart = recorded - recorded.mean(axis=0)
    total = (apart**2).sum(axis=0)
    if protocol.metric == "r2":
        return 1 - ((recorded - predicted) ** 2).sum(axis=0) / total
    predicted = predicted - predicted.mean(axis=0)
    return (predicted * apart).sum(axis=0) / np.sqrt((predicted**2).sum(axis=0) * total)


def interval(values, confidence):
    """Return the interval of scores of subjects and folds [s k]; of one test set, over subjects."""
    if values.shape[1] > 1:
        return stats.crossed_interval(values, confidence)
    return stats.mean_interval(values[:, 0], confidence)
