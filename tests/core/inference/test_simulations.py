"""Do tests and intervals keep what they promise, on data whose truth is known?

Bars were set before the simulations ran; the seed is that of every other test. What is measured
goes into the properties of a junit report (`--junitxml=FILE -o junit_family=xunit1`).
"""

import numpy as np
import pytest
from scipy import signal
from scipy import stats as scipy_stats

from jaxalign.core import folds as folds_lib
from jaxalign.core.folds import Fold, Split
from jaxalign.core.inference import orders, permutation
from jaxalign.core.inference import stats as stats_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Method

pytestmark = pytest.mark.slow

METHOD = Method(np.logspace(0, 4, 5))
NUM_TRS = 300
RUN = [0] * NUM_TRS
EVERY = np.arange(NUM_TRS)
# The second run is predicted by what was fitted to the first.
TEST_RUN = Fold(
    Split(EVERY, NUM_TRS + EVERY),
    tuple(fold.outer for fold in folds_lib.contiguous_folds(RUN, 5, gap=10)),
)
LEVEL = 0.05


def autoregression(rng, phi, *shape):
    """First-order along the first axis, of unit variance, stationary from the start."""
    noise = rng.normal(size=shape) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return signal.lfilter([1], [1, -phi], noise, axis=0)


def weights(rng, p, v):
    """Of a signal of unit variance."""
    w = rng.normal(size=(p, v))
    return w / np.sqrt((w**2).sum(axis=0))


def predict(X, Y, folds):
    """Return held-out predictions of penalties chosen inside."""
    return cv.held_out(X, Y, folds, cv.nested(X, Y, folds, METHOD).alphas, METHOD)


def predict_test_run(X, Y):
    """Return predictions of the second run, and its responses."""
    return predict(X, Y, [TEST_RUN])[NUM_TRS:], Y[NUM_TRS:]


def null_sets(rng, phi, *, num=25, targets=100):
    """Yield features and responses that have nothing to do with each other: 2,500 targets."""
    for _ in range(num):
        yield tuple(autoregression(rng, phi, NUM_TRS, size) for size in (20, targets))


def compare_given(predicted, recorded, blocks, drawn):
    """Compare the correlation of predictions as they are with those of permuted responses."""

    def score(recorded):
        found = []
        for block in blocks:
            p, y = (x[block] - x[block].mean(axis=0) for x in (predicted, recorded))
            found.append((p * y).sum(axis=0) / np.sqrt((p**2).sum(axis=0) * (y**2).sum(axis=0)))
        return np.mean(found, axis=0)

    nulls = np.stack([score(recorded[order]) for order in drawn])
    return stats_lib.compare(score(recorded), nulls, rounding=1e-10)


def rejected(parts):
    """Share of targets whose p is at most the level."""
    return (np.concatenate([part.p for part in parts]) <= LEVEL).mean()


def test_cross_validated_scores_need_nulls_that_are_fitted(rng, record_property):
    """Two samples that each serve to predict the other count twice, in fitted nulls as well.

    Nor do these need a gap: training samples next to test samples leak as much in them.
    """
    without, with_gap = (folds_lib.contiguous_folds(RUN, 5, gap=gap) for gap in (0, 10))
    fitted, given = [], []
    for X, Y in null_sets(rng, 0.8):
        shifts = orders.draw_shifts(RUN, num=99, rng=rng)
        drawn = orders.shift_orders(RUN, shifts)
        fitted.append(permutation.permuted_fit(X, Y, without, drawn, METHOD))
        predicted = predict(X, Y, with_gap)
        blocks = [fold.outer.test for fold in with_gap]
        given.append(compare_given(predicted, Y, blocks, drawn))
    rates = rejected(fitted), rejected(given)
    record_property("rejected", rates)
    assert 0.04 <= rates[0] <= 0.06, rates
    assert rates[1] > 0.08, rates


# The length that is asked for of autoregressions that both go with .8: ten times tau.
BLOCK = int(np.ceil(10 * (1 + 0.8**2) / (1 - 0.8**2)))
DRAW = {
    "shifts": lambda rng: orders.shift_orders(RUN, orders.draw_shifts(RUN, num=99, rng=rng)),
    "blocks": lambda rng: orders.block_orders(RUN, BLOCK, num=99, rng=rng),
    "rows": lambda rng: orders.row_orders(RUN, num=99, rng=rng),
}


@pytest.mark.parametrize("kind", DRAW)
def test_fitted_nulls_keep_the_level_of_a_cross_validation_with_gaps(rng, kind, record_property):
    """Five contiguous folds, penalties chosen inside: what users have."""
    with_gap = folds_lib.contiguous_folds(RUN, 5, gap=10)
    few = np.array([1.0, 100.0, 10_000.0])
    rates = []
    for X, Y in null_sets(rng, 0.8):
        rates.append(
            rejected([permutation.permuted_fit(X, Y, with_gap, DRAW[kind](rng), Method(few))])
        )
    rate, error = np.mean(rates), np.std(rates, ddof=1) / np.sqrt(len(rates))
    record_property("rejected, standard error over sets of features", (rate, error))
    if kind == "rows":
        assert rate > 0.12, (rate, error)
    else:
        assert 0.04 <= rate <= 0.06, (rate, error)


def test_the_false_discovery_rate_and_the_family_wise_error_hold(rng, record_property):
    """A fifth of the targets follow the features; all share noise, as neighbouring voxels do."""
    num_sets, v, level = 150, 60, 0.1
    is_signal = np.arange(v) < v // 5
    shares, powers, any_false = [], [], []
    for _ in range(num_sets):
        X = autoregression(rng, 0.8, 2 * NUM_TRS, 10)
        common = autoregression(rng, 0.8, 2 * NUM_TRS, 1)
        noise = autoregression(rng, 0.8, 2 * NUM_TRS, v) + common
        predicted, recorded = predict_test_run(X, noise + X @ weights(rng, 10, v) * is_signal)
        shifts = orders.draw_shifts(RUN, num=299, rng=rng)
        found = compare_given(predicted, recorded, [EVERY], orders.shift_orders(RUN, shifts))
        hits = stats_lib.benjamini_hochberg(found.p) <= level
        shares.append((hits & ~is_signal).sum() / max(hits.sum(), 1))
        powers.append(hits[is_signal].mean())
        any_false.append((found.p_max[~is_signal] <= LEVEL).any())
    shares = np.array(shares)
    error = shares.std(ddof=1) / np.sqrt(num_sets)
    record_property("false_discoveries", (shares.mean(), error))
    record_property("any_false", np.mean(any_false))
    record_property("power", np.mean(powers))
    assert shares.mean() <= level + 2 * error, (shares.mean(), error)
    assert np.mean(any_false) <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / num_sets)
    assert np.mean(powers) > 0.3


NUM_SUBJECTS = 12
NUM_PASSAGES = 60
STIMULI = 300
P = 20
PASSAGE = np.repeat(np.arange(NUM_PASSAGES), STIMULI // NUM_PASSAGES)
PASSAGE_FOLDS = folds_lib.contiguous_folds([0] * STIMULI, 5, gap=0, groups=PASSAGE)
NUM_SIMULATIONS, NUM_FRESH, NUM_TOGETHER = 1000, 100, 10


def subject_scores(rng, *, shared):
    """Draw experiments of subjects, of whom some follow the features more, and score them.

    Args:
      rng: source of all draws.
      shared: standard deviation of what all subjects of an experiment have in common beyond the
        features, in units of the noise.

    Returns:
      A score of each experiment, subject and fold [e s k]. To save time, experiments have their
      features in common, and nothing else.
    """
    X = rng.normal(size=(STIMULI, P))
    size = (STIMULI, NUM_TOGETHER, NUM_SUBJECTS)
    gain = rng.gamma(4.0, 0.1, size=size[1:])
    Y = gain * (X @ weights(rng, P, NUM_TOGETHER))[..., None] + rng.normal(size=size)
    Y += shared * rng.normal(size=(*size[:2], 1))
    r = cv.nested(X, Y.reshape(STIMULI, -1), PASSAGE_FOLDS, METHOD).r
    return np.moveaxis(r.reshape(-1, *size[1:]), 0, -1)


def coverage(intervals, truth):
    return np.mean([found.low <= truth <= found.high for found in intervals])


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_intervals_cover_the_expected_score(rng, shared, record_property):
    truth = np.mean([subject_scores(rng, shared=shared) for _ in range(NUM_FRESH)])
    draws = range(NUM_SIMULATIONS // NUM_TOGETHER)
    found = [x for _ in draws for x in subject_scores(rng, shared=shared)]
    rates = {
        "crossed": coverage(map(stats_lib.crossed_interval, found), truth),
        "subjects": coverage([stats_lib.mean_interval(x.mean(axis=1)) for x in found], truth),
    }
    record_property("covered", rates)
    assert 0.93 <= rates["crossed"] <= 0.97, rates
    if shared:  # what they have in common makes subjects dependent
        assert rates["subjects"] < 0.9, rates
    else:
        assert 0.93 <= rates["subjects"] <= 0.97, rates


def ridge_scores(rng, num, *, s, k, shared, alike, n=180, p=12):
    """Score experiments by NumPy alone, each of its own stimuli, under k contiguous folds [e s k].

    Subjects follow the same linear signal, all as much if they are alike, and else in the mean.
    """
    X = rng.normal(size=(num, n, p))
    w = rng.normal(size=(num, p, 1))
    gain = 1.0 if alike else rng.gamma(4.0, 0.25, (num, 1, s))
    Y = gain * (X @ (w / np.sqrt((w**2).sum(axis=1, keepdims=True))))
    Y = Y + rng.normal(size=(num, n, s)) + shared * rng.normal(size=(num, n, 1))
    fold, found = np.arange(n) * k // n, np.empty((num, s, k))
    for i in range(k):
        A, T = X[:, fold != i], Y[:, fold == i]
        At = A.swapaxes(1, 2)
        P = X[:, fold == i] @ np.linalg.solve(At @ A + 8 * np.eye(p), At @ Y[:, fold != i])
        P, T = (x - x.mean(axis=1, keepdims=True) for x in (P, T))
        found[..., i] = (P * T).sum(axis=1) / np.sqrt((P**2).sum(axis=1) * (T**2).sum(axis=1))
    return found


@pytest.mark.parametrize("s,k", [(6, 6), (12, 5)])
@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("shared", [0.0, 0.7, 1.5])
def test_crossed_intervals_of_independent_experiments(rng, s, k, alike, shared, record_property):
    """No two experiments share anything here; subjects who share stimuli are not independent.

    Where subjects do not differ at all, crossed intervals are wider than they had to be.
    """
    settings = {"s": s, "k": k, "shared": shared, "alike": alike}
    truth = np.mean([ridge_scores(rng, 10, **settings).mean() for _ in range(NUM_FRESH)])
    draws = range(NUM_SIMULATIONS // 100)
    found = [x for _ in draws for x in ridge_scores(rng, 100, **settings)]
    of_subjects = np.stack([x.mean(axis=1) for x in found], axis=1)
    options = {"axis": 0, "n_resamples": 999, "rng": rng}
    bca = scipy_stats.bootstrap((of_subjects,), np.mean, **options).confidence_interval
    rates = {
        "crossed": coverage(map(stats_lib.crossed_interval, found), truth),
        "t": coverage([stats_lib.mean_interval(x.mean(axis=1)) for x in found], truth),
        "bca": np.mean((bca.low <= truth) & (truth <= bca.high)),
    }
    record_property("covered", rates)
    assert 0.93 <= rates["crossed"] <= (0.985 if alike else 0.97), rates
    assert rates["bca"] <= rates["t"] < 0.95, rates


def test_intervals_of_one_subject_cover_the_expected_score(rng, record_property):
    def scores(num):
        X = rng.normal(size=(STIMULI, P))
        Y = 0.4 * X @ weights(rng, P, num) + rng.normal(size=(STIMULI, num))
        return cv.nested(X, Y, PASSAGE_FOLDS, METHOD).r

    truth = np.mean([scores(NUM_TOGETHER) for _ in range(NUM_FRESH)])
    draws = range(NUM_SIMULATIONS // NUM_TOGETHER)
    found = [r[None] for _ in draws for r in scores(NUM_TOGETHER).T]
    rate = coverage(map(stats_lib.crossed_interval, found), truth)
    record_property("covered", rate)
    assert 0.93 <= rate <= 0.97


@pytest.mark.parametrize("gain", [1.0, 6.0])
def test_intervals_of_high_correlations_are_of_fishers_z(rng, gain, record_property):
    """Scores about .65 and .94 of 8 subjects and 6 folds, who follow the signal unlike well."""

    def scores(num):
        X = rng.normal(size=(num, 240, 5))
        w = np.ones((num, 5, 8)) + 0.5 * rng.normal(size=(num, 5, 8))
        noise = np.exp(0.3 * rng.normal(size=(num, 1, 8)))
        Y, fold = X @ w * gain / np.sqrt(5) + noise * rng.normal(size=(num, 240, 8)), np.arange(240)
        found = []
        for i in range(6):
            own = fold * 6 // 240 == i
            A, T = X[:, ~own], Y[:, own]
            P = X[:, own] @ np.linalg.solve(A.swapaxes(1, 2) @ A, A.swapaxes(1, 2) @ Y[:, ~own])
            P, T = (x - x.mean(axis=1, keepdims=True) for x in (P, T))
            found.append((P * T).sum(axis=1) / np.sqrt((P**2).sum(axis=1) * (T**2).sum(axis=1)))
        return np.stack(found, axis=-1)

    found = np.concatenate([scores(100) for _ in range(20)])
    truth = found.mean()
    rates = {}
    for name, options in (("plain", {}), ("z", {"is_correlation": True})):
        ends = [stats_lib.crossed_interval(x, **options) for x in found]
        rates[name] = coverage(ends, truth)
    record_property("covered, truth", (rates, truth))
    error = np.sqrt(0.05 * 0.95 / len(found))
    # An approximation: a percent on either side of what is promised, and binomial error.
    assert 0.94 - 3 * error < rates["z"] < 0.985 + 3 * error, rates
    assert rates["z"] > rates["plain"] if gain > 1 else rates["z"] > 0.93
