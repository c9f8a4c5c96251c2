"""Percent gains against all resamples of few bases, and against SciPy's bootstrap."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxalign.core.inference import gain


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_percent_gain_of_bases_is_that_of_all_resamples(rng):
    base = np.array([1.0, 1.0, 2.0, 4.0, 4.0, 4.0])
    tuned = np.array([1.1, 1.3, 1.9, 4.4, 4.2, 5.0])
    names = np.array(["a", "a", "b", "c", "c", "c"])
    found = gain.percent_gain(tuned, base, names, num_resamples=40_000, rng=rng)
    percent = 100 * (tuned / base - 1)
    np.testing.assert_allclose(found.percent, percent)
    np.testing.assert_allclose((found.mean.value, found.by_base.value), percent.mean())
    assert (found.mean.n, found.num_higher, found.num_bases) == (6, 5, 3)
    # All 27 resamples of three bases, each as likely: quantiles are known exactly.
    means = [
        np.concatenate([percent[names == k] for k in drawn]).mean()
        for drawn in itertools.product("abc", repeat=3)
    ]
    ends = np.percentile(np.repeat(means, 1000), [2.5, 97.5])
    np.testing.assert_allclose((found.by_base.low, found.by_base.high), ends)
    assert np.isnan(found.by_base.p)
    theirs = stats.wilcoxon(np.round(tuned - base, 10), method="exact")
    np.testing.assert_allclose(found.mean.p, theirs.pvalue)


def test_percent_gain_of_pairs_is_scipys_bootstrap(rng):
    percent = rng.gamma(2.0, 4.0, 12) - 2
    tuned = 1 + percent / 100
    draw = lambda seed: gain.percent_gain(
        tuned,
        np.ones(12),
        np.arange(12).astype(str),
        num_resamples=20_000,
        rng=np.random.default_rng(seed),
    )
    theirs = stats.bootstrap(
        (percent,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    found = draw(1).mean
    # Quantiles of 20,000 draws: their own standard error is about 1.2 % of the width.
    width = theirs.high - theirs.low
    np.testing.assert_allclose((found.low, found.high), theirs, atol=0.05 * width)


def test_the_interval_of_equal_gains_is_a_point(rng):
    found = gain.percent_gain(np.full(5, 1.25), np.ones(5), np.array(list("aabbc")), rng=rng)
    np.testing.assert_allclose(found.mean[:3], 25)
    np.testing.assert_allclose(found.by_base[:3], 25)


def test_shared_bases_widen_the_interval(rng):
    effect = np.repeat(rng.standard_normal(8), 4)  # of the base, in all of its pairs
    tuned = 1 + (effect + 0.1 * rng.standard_normal(32)) / 100
    found = gain.percent_gain(tuned, np.ones(32), np.repeat(np.arange(8), 4), rng=rng)
    width = lambda x: x.high - x.low
    assert width(found.by_base) > 1.5 * width(found.mean)


def test_percent_gain_without_pairs(rng):
    names = np.array(["a", "b", "c"])
    found = gain.percent_gain(np.ones(3), np.array([0.0, -1.0, np.nan]), names, rng=rng)
    assert np.isnan(found.percent).all() and np.isnan(found.mean[:4]).all() and found.mean.n == 0
    one = gain.percent_gain(np.array([1.1]), np.ones(1), np.array(["a"]), rng=rng)
    assert np.isnan((one.mean.low, one.by_base.low)).all() and one.num_bases == 1
    np.testing.assert_allclose(one.mean.value, 10)


def test_unequal_numbers_are_refused(rng):
    with pytest.raises(ValueError, match="Pairs must have .* 6, 6 and 5"):
        gain.percent_gain(np.ones(6), np.ones(6), np.array(list("abcde")), rng=rng)


def test_log_ratios_of_bases_by_hand(rng):
    base, names = rng.uniform(1, 2, 5)[[0, 0, 1, 2, 3, 3, 4]], np.array(list("aabcdde"))
    tuned = base * rng.uniform(0.8, 1.4, 7)
    found = gain.percent_gain(tuned, base, names, num_resamples=9, rng=rng).ratio
    logs = np.log(tuned / base)
    means = np.array([logs[names == x].mean() for x in "abcde"])
    theirs = stats.ttest_1samp(means, 0)
    ends = theirs.confidence_interval()
    np.testing.assert_allclose(found[:3], 100 * np.expm1([means.mean(), *ends]))
    np.testing.assert_allclose((found.p, found.n), (theirs.pvalue, 5))


@pytest.mark.slow
@pytest.mark.parametrize("cv", [0.14, 0.5])
def test_log_ratios_keep_their_level_where_means_of_ratios_do_not(rng, cv, record_property):
    """17 pairs of 8 bases that differ by chance alone, 1,000 times."""
    base_of, num, sd = np.r_[np.arange(8), rng.integers(0, 8, 9)], 1000, np.sqrt(np.log(1 + cv**2))
    above, rejected = 0, 0
    for _ in range(num):
        base = np.exp(sd * rng.standard_normal(8))
        tuned = np.exp(sd * rng.standard_normal(17))
        found = gain.percent_gain(
            tuned, base[base_of], base_of.astype(str), num_resamples=99, rng=rng
        )
        above += found.mean.low > 0
        rejected += found.ratio.p < 0.05
    record_property("above 0, rejected", (above / num, rejected / num))
    assert rejected / num < 0.05 + 3 * np.sqrt(0.05 * 0.95 / num)
    assert above / num > 0.025 + 3 * np.sqrt(0.025 * 0.975 / num)
