"""Ceilings in float64 by loops over subjects, subsets and bootstraps, with SciPy's optimiser."""

import itertools

import numpy as np
import protocol_oracle as oracle
from scipy import optimize, stats


def t_interval(value, left_out):
    """Interval of Student's t, with the standard error of a jackknife."""
    g = len(left_out)
    error = np.sqrt((g - 1) * np.var(left_out))
    half = stats.t.ppf(0.975, g - 1) * error
    return value - half, value + half


def z_interval(value, left_out):
    """`t_interval` on the scale of Fisher's z."""
    return np.tanh(t_interval(np.arctanh(value), np.arctanh(left_out)))


def with_others(Y, blocks, subjects, targets):
    """Correlate each column with the mean of the others' columns of its name; NaN without any."""
    found = np.full(Y.shape[1], np.nan)
    for i in range(Y.shape[1]):
        others = [
            j for j in range(Y.shape[1]) if targets[j] == targets[i] and subjects[j] != subjects[i]
        ]
        if others:
            mean = Y[:, others].mean(axis=1)
            found[i] = np.mean([np.corrcoef(Y[b, i], mean[b])[0, 1] for b in blocks])
    return found


def mean_over_subjects(values, subjects):
    subjects = np.asarray(subjects)
    means = [
        np.nanmean(values[subjects == x])
        for x in dict.fromkeys(subjects)
        if not np.isnan(values[subjects == x]).all()
    ]
    return np.mean(means)


def level(x, y):
    """v0 of the best v0 (1 - exp(-x / tau0)) with 0 <= v0 <= 1."""

    def best(log_tau):
        g = 1 - np.exp(-x / np.exp(log_tau))[..., None, :]
        v0 = np.clip((g * y).sum(axis=-1) / (g**2).sum(axis=-1), 0, 1)
        return ((y - v0[..., None] * g) ** 2).sum(axis=-1)[..., 0], v0[..., 0]

    grid = np.linspace(np.log(x[0] / 40), np.log(x[-1] * 1e6), 400)
    i = int(np.argmin(best(grid[:, None])[0]))
    bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(
        lambda z: best(np.array([z]))[0], bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    return float(min(best(np.array([found.x])), best(grid[i : i + 1]))[1])


def exhaustive(Y, subjects, score):
    """Score each subject from the others of every subset: {(subset, subject): [k v]}."""
    subjects = np.asarray(subjects)
    names = list(dict.fromkeys(subjects.tolist()))
    return {
        (subset, one): score(Y[:, np.isin(subjects, subset) & (subjects != one)], subjects == one)
        for size in range(2, len(names) + 1)
        for subset in itertools.combinations(names, size)
        for one in subset
    }


def extrapolated(Y, subjects, scores, *, num_resamples=100, without=None):
    """Level of each target: the median over bootstraps, or with `without` that of the averages."""
    subjects = np.asarray(subjects)
    found = np.full(Y.shape[1], np.nan)
    for one in dict.fromkeys(subjects.tolist()):
        own = {subset: r for (subset, x), r in scores.items() if x == one and without not in subset}
        sizes = np.array(sorted({len(subset) for subset in own}), float)
        for place, column in enumerate(np.flatnonzero(subjects == one)):
            parts = [
                np.concatenate([r[:, place] for subset, r in own.items() if len(subset) == size])
                for size in sizes
            ]
            if not parts:
                continue
            if without is not None:
                found[column] = level(sizes, np.array([x.mean() for x in parts]))
                continue
            draw = np.random.RandomState(0)
            found[column] = np.median(
                [
                    level(sizes, np.array([draw.choice(x, size=len(x)).mean() for x in parts]))
                    for _ in range(num_resamples)
                ]
            )
    return found


def split_half(times):
    """Median over ten halves of the corrected correlation of mean times, as for Futrell2018."""
    draw, s = np.random.RandomState(0), times.shape[1]
    found = []
    for _ in range(10):
        first = draw.choice(s, size=s // 2, replace=False)
        second = [i for i in range(s) if i not in first]
        a, b = np.nanmean(times[:, first], axis=1), np.nanmean(times[:, second], axis=1)
        both = np.isfinite(a) & np.isfinite(b)
        r = abs(np.corrcoef(a[both], b[both])[0, 1])
        found.append(2 * r / (1 + r))
    return np.median(found)


def oota(Y, test):
    """Return what scores a subject by the ridge of Oota et al., each side in its own units."""
    sides = np.flatnonzero(~test), np.flatnonzero(test)

    def score(X, own):
        Z, targets = np.empty_like(X), np.empty_like(Y[:, own])
        for side in sides:
            Z[side], targets[side] = oracle.zscore(X[side]), oracle.zscore(Y[side][:, own])
        predicted, _ = oracle.kfold_ridge(Z, targets, *sides, np.logspace(1, 4, 60))
        return oracle.pearson_r(predicted, targets[test])[None]

    return score
