"""Do tests and intervals keep what they promise, on data whose truth is known?

Bars were set before the simulations ran; the seed is that of every other test.
"""

import numpy as np
import pytest
from scipy import signal

from jaxalign.core import bootstrap, cv, orders, permutation
from jaxalign.core import folds as folds_lib
from jaxalign.core import stats as stats_lib

pytestmark = pytest.mark.slow

ALPHAS = np.logspace(0, 4, 5)
NUM_TRS = 300
RUN = [0] * NUM_TRS
GAP = 10
FOLDS = folds_lib.contiguous_folds(RUN, 5, gap=GAP)
BLOCKS = [fold.outer.test for fold in FOLDS]
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
    """Return scores and held-out predictions of penalties chosen inside."""
    fitted = cv.nested(X, Y, folds, ALPHAS)
    return fitted.r.mean(axis=0), cv.held_out(X, Y, folds, fitted.alphas)


def null_sets(rng, phi, *, num=25, targets=200):
    """Yield features and responses that have nothing to do with each other: 5,000 targets."""
    for _ in range(num):
        X = autoregression(rng, phi, NUM_TRS, 20)
        yield X, autoregression(rng, phi, NUM_TRS, targets)


def rejected(parts):
    """Share of targets whose p is at most the level."""
    return np.concatenate([np.atleast_1d(part.p) for part in parts]).__le__(LEVEL).mean()


@pytest.mark.parametrize("phi", [0.5, 0.8])
def test_time_series_are_rejected_as_often_as_the_level_says(rng, phi):
    found = {"shifts": [], "blocks": [], "rows": []}
    for X, Y in null_sets(rng, phi):
        _, predicted = predict(X, Y, FOLDS)
        shifts = orders.draw_shifts(RUN, num=299, rng=rng)
        found["shifts"].append(permutation.shifted_correlation(predicted, Y, BLOCKS, RUN, shifts))
        tau = np.median(orders.correlation_time(predicted, Y, RUN))
        drawn = {
            "blocks": orders.block_orders(RUN, int(np.ceil(10 * tau)), num=299, rng=rng),
            "rows": orders.row_orders(RUN, num=299, rng=rng),
        }
        for name, own in drawn.items():
            found[name].append(permutation.permuted_correlation(predicted, Y, BLOCKS, own))
    rates = {name: rejected(parts) for name, parts in found.items()}
    assert 0.04 <= rates["shifts"] <= 0.06, rates
    assert 0.04 <= rates["blocks"] <= 0.06, rates
    # Row permutations take neighbours for independent.
    assert rates["rows"] > {0.5: 0.08, 0.8: 0.15}[phi], rates


def test_fitted_nulls_of_time_series_need_no_gap(rng):
    """Training samples next to test samples leak; what is fitted anew leaks as much."""
    folds = folds_lib.contiguous_folds(RUN, 5, gap=0)
    fitted, given = [], []
    for X, Y in null_sets(rng, 0.8):
        shifts = orders.draw_shifts(RUN, num=99, rng=rng)
        drawn = orders.shift_orders(RUN, shifts)
        fitted.append(permutation.permuted_fit(X, Y, folds, ALPHAS, drawn))
        _, predicted = predict(X, Y, folds)
        given.append(permutation.shifted_correlation(predicted, Y, BLOCKS, RUN, shifts))
    rates = rejected(fitted), rejected(given)
    assert 0.04 <= rates[0] <= 0.06, rates


def test_the_false_discovery_rate_and_the_family_wise_error_hold(rng):
    """A fifth of the targets follow the features; all share noise, as neighbouring voxels do."""
    num_sets, v, level = 400, 60, 0.1
    is_signal = np.arange(v) < v // 5
    shares, powers, any_false = [], [], []
    for _ in range(num_sets):
        X = autoregression(rng, 0.8, NUM_TRS, 10)
        noise = autoregression(rng, 0.8, NUM_TRS, v) + autoregression(rng, 0.8, NUM_TRS, 1)
        Y = noise + X @ weights(rng, 10, v) * is_signal
        _, predicted = predict(X, Y, FOLDS)
        shifts = orders.draw_shifts(RUN, num=299, rng=rng)
        found = permutation.shifted_correlation(predicted, Y, BLOCKS, RUN, shifts)
        hits = stats_lib.benjamini_hochberg(found.p) <= level
        shares.append((hits & ~is_signal).sum() / max(hits.sum(), 1))
        powers.append(hits[is_signal].mean())
        any_false.append((found.p_max[~is_signal] <= LEVEL).any())
    shares = np.array(shares)
    error = shares.std(ddof=1) / np.sqrt(num_sets)
    assert shares.mean() <= level + 2 * error, (shares.mean(), error)
    assert np.mean(any_false) <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / num_sets)
    assert np.mean(powers) > 0.3


NUM_SUBJECTS = 12
NUM_PASSAGES = 60
STIMULI = 300
PASSAGE = np.repeat(np.arange(NUM_PASSAGES), STIMULI // NUM_PASSAGES)
PASSAGE_FOLDS = folds_lib.contiguous_folds([0] * STIMULI, 5, gap=0, groups=PASSAGE)
NUM_SIMULATIONS, NUM_FRESH = 2000, 200


def experiment(rng, *, shared):
    """Draw stimuli, and the responses of subjects, of whom some follow the features more.

    Args:
      rng: source of all draws.
      shared: standard deviation of what all subjects have in common beyond the features, in units
        of the noise.

    Returns:
      Features [n p], and a response of each subject [n s].
    """
    X = rng.normal(size=(STIMULI, 20))
    signal_ = X @ weights(rng, 20, 1)
    gain = rng.gamma(4.0, 0.1, size=NUM_SUBJECTS)
    noise = rng.normal(size=(STIMULI, NUM_SUBJECTS)) + shared * rng.normal(size=(STIMULI, 1))
    return X, gain * signal_ + noise


def coverage(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_t_intervals_over_subjects_cover_the_expected_score(rng):
    def scores():
        X, Y = experiment(rng, shared=0.0)
        return cv.nested(X, Y, PASSAGE_FOLDS, ALPHAS).r.mean(axis=0)

    truth = np.mean([scores() for _ in range(NUM_FRESH)])
    values = np.stack([scores() for _ in range(NUM_SIMULATIONS)])
    found = [stats_lib.mean_interval(own)[1:3] for own in values]
    assert 0.93 <= coverage(found, truth) <= 0.97


def test_bca_intervals_over_passages_cover_the_expected_score_of_a_subject(rng):
    """The statistic is the pooled correlation; targets of one design are simulations."""
    per_design = 20

    def draw(num):
        X = rng.normal(size=(STIMULI, 20))
        Y = 0.4 * X @ weights(rng, 20, num) + rng.normal(size=(STIMULI, num))
        _, predicted = predict(X, Y, PASSAGE_FOLDS)
        blocks = [fold.outer.test for fold in PASSAGE_FOLDS]
        sums = bootstrap.block_sums(predicted, Y, blocks, PASSAGE)
        return bootstrap.correlation_over(sums)

    ones = np.ones((1, NUM_PASSAGES))
    truth = np.mean([draw(per_design)(ones) for _ in range(NUM_FRESH)])
    found = [
        bootstrap.interval(draw(per_design), [NUM_PASSAGES], num=2000, rng=rng)
        for _ in range(NUM_SIMULATIONS // per_design)
    ]
    low, high = (np.concatenate(x) for x in list(zip(*found, strict=True))[1:])
    assert 0.93 <= coverage(zip(low, high, strict=True), truth) <= 0.97


def test_intervals_over_subjects_and_passages_cover_where_subjects_share_noise(rng):
    """Subjects who saw the same stimuli are not independent: t over them is too narrow."""

    def draw():
        X, Y = experiment(rng, shared=1.0)
        _, predicted = predict(X, Y, PASSAGE_FOLDS)
        blocks = [fold.outer.test for fold in PASSAGE_FOLDS]
        sums = bootstrap.block_sums(predicted, Y, blocks, PASSAGE)
        each = bootstrap.Sums(*(x.T[..., None] for x in sums))  # a subject each, of one target
        return bootstrap.correlation_over_both(each), each

    ones = np.ones((1, NUM_SUBJECTS)), np.ones((1, NUM_PASSAGES))
    truth = np.mean([draw()[0](*ones) for _ in range(NUM_FRESH)])
    both, over_subjects = [], []
    for _ in range(NUM_SIMULATIONS):
        statistic, sums = draw()
        found = bootstrap.interval(statistic, [NUM_SUBJECTS, NUM_PASSAGES], num=500, rng=rng)
        both.append((found.low[0], found.high[0]))
        r = bootstrap.correlation_over(bootstrap.Sums(*(x[..., 0].T for x in sums)))(ones[1])[0]
        over_subjects.append(stats_lib.mean_interval(r)[1:3])
    rates = coverage(both, truth), coverage(over_subjects, truth)
    assert 0.93 <= rates[0] <= 0.97, rates
    assert rates[1] < 0.9, rates
