"""Protocols in float64 by scikit-learn and NumPy, from the published descriptions alone."""

import numpy as np
from sklearn import decomposition, linear_model, model_selection


def pearson_r(a, b, epsilon=0.0):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    a_norm, b_norm = (np.sqrt((x**2).sum(axis=0)) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((a / (a_norm + epsilon)) * (b / (b_norm + epsilon))).sum(axis=0)


def r2(predicted, recorded):
    total = ((recorded - recorded.mean(axis=0)) ** 2).sum(axis=0)
    return 1 - ((recorded - predicted) ** 2).sum(axis=0) / total


def zscore(x):
    sd = x.std(axis=0)
    return np.where(sd > 0, (x - x.mean(axis=0)) / np.where(sd > 0, sd, 1), 0.0)


def harry_potter(n):
    """Pairs of training and test samples."""
    size, found = n // 4, []
    fold = np.minimum(np.arange(n) // size, 3)
    for number in range(4):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        trimmed = {0: (train[5:], test), 3: (train[:-5], test)}
        found.append(trimmed.get(number, (train, test[5:-5])))
    return found


def chunks(train, *, times, chunk, num_chunks):
    """Yield positions in the training set; the draws are those of NumPy's generator."""
    whole, draws = len(train) // chunk, np.random.default_rng(0)
    for _ in range(times):
        held = np.isin(np.arange(len(train)) // chunk, draws.permutation(whole)[:num_chunks])
        yield np.flatnonzero(~held), np.flatnonzero(held)


def blocks(n, groups=None, runs=None, *, num=6, gap=6):
    """Test blocks of the default protocol, and samples too near to each to be trained on."""
    order = np.arange(n)
    if groups is not None:
        first = {g: i for i, g in reversed(list(enumerate(groups)))}
        order = np.array(sorted(range(n), key=lambda i: (first[groups[i]], i)))
    begins = [
        i for i in range(n) if not i or groups is None or groups[order[i]] != groups[order[i - 1]]
    ]
    edges = [min(begins, key=lambda b: (abs(b - n * i / num), b)) for i in range(num)] + [n]
    found = [np.sort(order[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    if runs is None:
        runs = np.zeros(n) if groups is None else groups
    place = np.arange(n)
    close = (np.abs(place[:, None] - place) <= gap) & (np.asarray(runs)[:, None] == runs)
    return found, [np.flatnonzero(close[block].any(axis=0)) for block in found]


def folds(name, n, *, groups=None, runs=None, test=None, sizes=None):
    """Outer training and test samples of a protocol, and pairs of inner ones."""
    every = np.zeros(n)
    if name == "jaxalign":
        test_blocks, near = blocks(n, groups, runs)
        without = lambda *lost: np.setdiff1d(np.arange(n), np.concatenate([near[i] for i in lost]))
        return [
            (without(i), own, [(without(i, j), b) for j, b in enumerate(test_blocks) if j != i])
            for i, own in enumerate(test_blocks)
        ]
    inner = {"wehbe2014": 10, "himalaya": 5, "oota2025": 5}
    if name.startswith("brainscore-linear"):
        splitter = model_selection.ShuffleSplit(n_splits=10, train_size=0.9, random_state=1)
        outer = splitter.split(every)
    elif name.startswith("brainscore-ridge"):
        num = 8 if name.endswith("8folds") else 10
        splitter = model_selection.GroupKFold(num, shuffle=True, random_state=1234)
        outer = splitter.split(every, groups=groups)
    elif name == "himalaya":
        outer = model_selection.KFold(5).split(every)
    elif name == "wehbe2014":
        outer = harry_potter(n)
    else:
        outer = [(np.flatnonzero(~test), np.flatnonzero(test))]
    found = []
    for train, own in outer:
        pairs = []
        if name in inner:
            pairs = model_selection.KFold(inner[name]).split(train)
        elif name.startswith("huth"):
            pairs = chunks(train, **sizes)
        found.append((train, own, [(train[a], train[b]) for a, b in pairs]))
    return found


def ridge(X, Y, alpha):
    """Weights of a ridge without an intercept, by singular values."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    return Vt.T @ ((s / (s**2 + alpha))[:, None] * (U.T @ Y))


def shuffled(X, Y, *, epsilon=0.0):
    """Brain-Score's linear regression [k v]."""
    folds = model_selection.ShuffleSplit(n_splits=10, train_size=0.9, random_state=1)
    scores = []
    for train, test in folds.split(X):
        model = linear_model.LinearRegression().fit(X[train], Y[train])
        scores.append(pearson_r(model.predict(X[test]), Y[test], epsilon))
    return np.array(scores)


def grouped_ridge(X, Y, groups, num_folds=10):
    """Brain-Score's ridge [k v], and the penalty of each fold."""
    folds = model_selection.GroupKFold(num_folds, shuffle=True, random_state=1234)
    scores, alphas = [], []
    for train, test in folds.split(X, groups=groups):
        model = linear_model.RidgeCV(alphas=np.logspace(-3, 3, 7)).fit(X[train], Y[train])
        scores.append(pearson_r(model.predict(X[test]).reshape(Y[test].shape), Y[test], 1e-8))
        alphas.append(model.alpha_)
    return np.array(scores), np.array(alphas)


def chosen_inside(X, Y, splits, alphas, score, *, one=False):
    """Choose penalties of a ridge without an intercept by their mean score; fit all samples."""
    total = np.zeros((len(alphas), Y.shape[1]))
    for train, test in splits:
        total += [score(X[test] @ ridge(X[train], Y[train], alpha), Y[test]) for alpha in alphas]
    place = total.argmax(axis=0)
    if one:
        place[:] = total.sum(axis=1).argmax()
    W = np.zeros((X.shape[1], Y.shape[1]))
    for i in np.unique(place):
        W[:, place == i] = ridge(X, Y[:, place == i], alphas[i])
    return W, np.asarray(alphas)[place]


def negative_loss(predicted, recorded):
    return -((predicted - recorded) ** 2).mean(axis=0)


def wehbe(X, Y, runs, delays):
    """The Harry Potter code on features of TRs: r [k v], and penalties."""
    Y = np.concatenate([zscore(Y[runs == run]) for run in dict.fromkeys(runs)])
    alphas = 10.0 ** np.arange(-6, 10)
    scores, chosen = [], []
    for train, test in harry_potter(len(X)):
        components = decomposition.PCA(10, svd_solver="full")
        values = components.fit(X[train]).transform(X)
        parts = []
        for run in dict.fromkeys(runs):
            own = values[runs == run]
            late = [np.r_[np.zeros((d, 10)), own[: len(own) - d]] for d in delays]
            parts.append(zscore(np.concatenate(late, axis=1)))
        F = np.concatenate(parts)
        splits = model_selection.KFold(10).split(train)
        W, best = chosen_inside(zscore(F[train]), zscore(Y[train]), splits, alphas, r2)
        scores.append(pearson_r(zscore(F[test]) @ W, Y[test]))
        chosen.append(best)
    return np.array(scores), np.array(chosen)


def same_penalties(found, expected):
    """Beyond 1e6, errors of neighbouring penalties differ by less than float32 resolves."""
    np.testing.assert_allclose(np.minimum(found, 1e6), np.minimum(expected, 1e6), rtol=1e-6)


def kfold_ridge(X, Y, train, test, alphas):
    """What himalaya's RidgeCV does with cv=5: predictions of the test set, and penalties."""
    splits = model_selection.KFold(5).split(train)
    W, best = chosen_inside(X[train], Y[train], splits, alphas, negative_loss)
    return X[test] @ W, best


def huth(X, Y, train, test, *, times, chunk, num_chunks, one):
    """Bootstrap of chunks; penalties are squared. The draws are those of NumPy's generator."""
    splits = list(chunks(train, times=times, chunk=chunk, num_chunks=num_chunks))
    alphas = np.logspace(1, 3, 10)
    W, best = chosen_inside(X[train], Y[train], splits, alphas**2, pearson_r, one=one)
    return pearson_r(X[test] @ W, Y[test]), np.sqrt(best)


def default(layers, Y, blocks, near, alphas, subjects):
    """The default protocol: penalties per target and layers per subject, chosen inside.

    Args:
      layers: [L n p].
      Y: [n v].
      blocks: test samples of each fold.
      near: of each block, samples that may not be trained on when it is tested.
      alphas: to choose from.
      subjects: of each target.

    Returns:
      r [k v], penalties [k v] and layers [k v].
    """
    every, k, v = np.arange(len(Y)), len(blocks), Y.shape[1]
    r, chosen, picked = np.zeros((k, v)), np.zeros((k, v)), np.zeros((k, v), int)

    def predict(X, train, test):
        """Predictions under each penalty, from one decomposition."""
        mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
        Z = (X - mean) / np.where(sd > 0, sd, np.inf)
        offset = Y[train].mean(axis=0)
        U, s, Vt = np.linalg.svd(Z[train], full_matrices=False)
        left, right = Z[test] @ Vt.T, U.T @ (Y[train] - offset)
        return [left @ ((s / (s**2 + alpha))[:, None] * right) + offset for alpha in alphas]

    for i in range(k):
        inner, best = np.zeros((len(layers), v)), np.zeros((len(layers), v))
        for layer, X in enumerate(layers):
            errors, null = np.zeros((len(alphas), v)), np.zeros(v)
            for j in range(k):
                if j == i:
                    continue
                train = np.setdiff1d(every, np.union1d(near[i], near[j]))
                y = Y[blocks[j]]
                null += ((y - Y[train].mean(axis=0)) ** 2).mean(axis=0)
                for a, predicted in enumerate(predict(X, train, blocks[j])):
                    errors[a] += ((predicted - y) ** 2).mean(axis=0)
            inner[layer] = 1 - errors.min(axis=0) / null
            best[layer] = np.asarray(alphas)[errors.argmin(axis=0)]
        for subject in dict.fromkeys(subjects):
            own = np.asarray(subjects) == subject
            picked[i, own] = inner[:, own].mean(axis=1).argmax()
        train = np.setdiff1d(every, near[i])
        of_layers = [predict(X, train, blocks[i]) for X in layers]
        for target in range(v):
            layer = picked[i, target]
            chosen[i, target] = best[layer, target]
            found = of_layers[layer][list(alphas).index(chosen[i, target])]
            r[i, target] = pearson_r(found[:, target], Y[blocks[i], target])
    return r, chosen, picked
