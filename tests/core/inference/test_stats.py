import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxalign.core.inference import stats


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_interval_matches_scipy(rng, n, confidence):
    values = rng.normal(0.2, 0.1, size=n)
    result = stats.mean_interval(values, confidence)
    test = scipy_stats.ttest_1samp(values, 0).confidence_interval(confidence)
    low, high = scipy_stats.t.interval(
        confidence, n - 1, loc=values.mean(), scale=scipy_stats.sem(values)
    )
    assert result.n == n
    assert result.mean == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx((low, high))
    assert (result.low, result.high) == pytest.approx((test.low, test.high))


def test_the_default_is_95_percent(rng):
    values = rng.normal(size=7)
    assert stats.mean_interval(values) == stats.mean_interval(values, 0.95)


def test_undefined_values_are_left_out_and_not_counted(rng):
    values = rng.normal(size=6)
    with_gaps = np.r_[np.nan, values[:3], np.nan, values[3:]]
    assert stats.mean_interval(with_gaps) == stats.mean_interval(values)


def test_one_value_has_a_mean_but_no_interval():
    mean, low, high, n = stats.mean_interval(np.array([np.nan, 0.3]))
    assert (mean, n) == (0.3, 1)
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_without_values_there_is_no_mean(values):
    mean, low, high, n = stats.mean_interval(np.array(values))
    assert n == 0
    assert np.isnan([mean, low, high]).all()


def test_the_interval_of_equal_values_is_a_point():
    assert stats.mean_interval(np.full(5, 0.25)) == (0.25, 0.25, 0.25, 5)


def test_the_interval_covers_the_mean_as_often_as_it_says(rng):
    intervals = [stats.mean_interval(values, 0.8) for values in rng.normal(size=(1000, 5))]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    # Three standard errors of a proportion over 1000 draws.
    assert abs(covered - 0.8) < 0.04


def test_shifting_and_scaling_values_does_so_to_the_interval(rng):
    values = rng.normal(size=8)
    plain = stats.mean_interval(values)
    changed = stats.mean_interval(3 * values + 1)
    np.testing.assert_allclose(changed[:3], 3 * np.array(plain[:3]) + 1)


@pytest.mark.parametrize("of_folds", [0.0, 1.0, 3.0])
def test_crossed_intervals_by_hand(rng, of_folds):
    values = rng.normal(size=(4, 3)) + rng.normal(size=(4, 1)) + of_folds * rng.normal(size=3)
    mean, low, high, n = stats.crossed_interval(values, 0.9)
    # An analysis of variance of the table, written out.
    grand = sum(map(sum, values)) / 12
    a = [row.sum() / 3 - grand for row in values]
    b = [column.sum() / 4 - grand for column in values.T]
    rest = sum((values[i, j] - grand - a[i] - b[j]) ** 2 for i in range(4) for j in range(3)) / 6
    c = 1 / 3 + 1 / 2
    v_s, v_k = sum(x**2 for x in a) / 3 / 4, c * sum(x**2 for x in b) / 2
    v = v_s + max(v_k - c * rest / 4, 0)
    df = max(v**2 / (v_s**2 / 3 + v_k**2 / 2), 2)
    half = scipy_stats.t.isf(0.05, df) * v**0.5
    assert (mean, low, high, n) == pytest.approx((grand, grand - half, grand + half, 4))


def test_crossed_intervals_of_one_subject_are_over_folds(rng):
    values = rng.normal(size=(1, 5))
    found = stats.crossed_interval(values)
    plain = stats.mean_interval(values[0])
    # t over folds, with 1/5 + 1/4 in place of 1/5.
    assert found.high - found.mean == pytest.approx((plain.high - plain.mean) * np.sqrt(0.45 * 5))
    assert found.n == 1


def test_crossed_intervals_without_an_effect_of_folds_are_over_subjects(rng):
    values = np.repeat(rng.normal(size=(6, 1)), 5, axis=1)
    assert stats.crossed_interval(values) == pytest.approx(stats.mean_interval(values[:, 0]))


def test_crossed_intervals_leave_out_subjects_with_an_undefined_fold(rng):
    values = rng.normal(size=(5, 4))
    with_gap = np.insert(values, 2, np.nan, axis=0)
    with_gap[2, 1:] = 0.3
    assert stats.crossed_interval(with_gap) == stats.crossed_interval(values)
    none = stats.crossed_interval(np.full((2, 4), np.nan))
    assert np.isnan(none[:3]).all()
    assert none.n == 0
    alone = stats.crossed_interval(values[:, :1])
    assert alone.mean == pytest.approx(values[:, 0].mean())
    assert np.isnan([alone.low, alone.high]).all()
    assert stats.crossed_interval(np.full((3, 4), 0.5)) == (0.5, 0.5, 0.5, 3)


def test_inputs_are_not_changed():
    values = np.array([1.0, np.nan, 2.0])
    stats.mean_interval(values)
    np.testing.assert_array_equal(values, [1.0, np.nan, 2.0])


def every_sign(d):
    """Exact p-values of the sum of positive ranks: all signs of the differences, one by one."""
    d = d[d != 0]
    ranks = scipy_stats.rankdata(np.abs(d))
    signs = np.array(list(itertools.product([0, 1], repeat=len(d))))
    sums, own = signs @ ranks, ranks[d > 0].sum()
    greater, less = (sums >= own).mean(), (sums <= own).mean()
    return own, min(1.0, 2 * min(greater, less))


@pytest.mark.parametrize("case", ["plain", "ties", "zeros"])
def test_paired_tests_match_enumeration_and_scipy(rng, case):
    first, second = rng.normal(0.3, 1, size=(2, 9))
    if case != "plain":
        first, second = (np.round(x) for x in (first, second))
        second[:5] = [0.0, 1.0, 2.0, 1.0, 1.0]
        first[:5] = [1.0, 2.0, 1.0, 3.0, 2.0]
    if case == "zeros":
        first[6:8] = second[6:8]
    found = stats.paired(first, second)
    d = first - second
    t = scipy_stats.ttest_rel(first, second)
    assert (found.t, found.p_t) == pytest.approx((t.statistic, t.pvalue))
    assert found.d_z == pytest.approx(found.t / 3)
    assert found.difference == stats.mean_interval(d)
    w, p = every_sign(d)
    assert (found.w, found.p_wilcoxon) == pytest.approx((w, p))
    assert found.is_exact
    ranks = scipy_stats.rankdata(np.abs(d[d != 0]))
    signed = np.sign(d[d != 0]) * ranks
    assert found.rank_biserial == pytest.approx(signed.sum() / ranks.sum())


@pytest.mark.parametrize(
    ("n", "is_tied", "is_exact"), [(50, False, True), (51, False, False), (14, True, False)]
)
def test_large_samples_say_that_they_are_not_exact(rng, n, is_tied, is_exact):
    d = rng.normal(0.2, 1, size=n)
    if is_tied:
        d[1] = -d[0]
    found = stats.paired(d, np.zeros(n))
    assert found.is_exact == is_exact
    expected = scipy_stats.wilcoxon(d, method="exact" if is_exact else "asymptotic").pvalue
    assert found.p_wilcoxon == pytest.approx(expected)


def test_subjects_without_both_scores_are_left_out(rng):
    first, second = rng.normal(size=(2, 8))
    first[1] = second[4] = np.nan
    kept = [0, 2, 3, 5, 6, 7]
    assert stats.paired(first, second) == stats.paired(first[kept], second[kept])
    assert stats.paired(first, second).difference.n == 6


def test_six_subjects_are_the_fewest_for_a_level_of_5_percent():
    assert stats.paired(np.arange(1.0, 7), np.zeros(6)).p_wilcoxon == 2**-5
    assert stats.paired(np.arange(1.0, 6), np.zeros(5)).p_wilcoxon == 2**-4


def test_the_sign_of_effects_is_that_of_the_first():
    found = stats.paired(np.arange(1.0, 8), np.zeros(7))
    assert found.rank_biserial == 1
    assert stats.paired(np.zeros(7), np.arange(1.0, 8)).rank_biserial == -1
    assert found.d_z > 0


def test_differences_that_do_not_vary_have_no_t():
    found = stats.paired(np.full(6, 0.5), np.full(6, 0.25))
    assert np.isnan([found.t, found.p_t, found.d_z]).all()
    assert found.difference.mean == 0.25
    assert found.p_wilcoxon == 2**-5  # all positive, tied
    same = stats.paired(np.ones(4), np.ones(4))
    assert np.isnan([same.t, same.w, same.p_wilcoxon, same.rank_biserial]).all()


@pytest.mark.parametrize("n", [0, 1])
def test_one_subject_is_no_test(n):
    found = stats.paired(np.ones(n), np.zeros(n))
    assert np.isnan([found.t, found.p_t, found.d_z]).all()
    assert found.difference.n == n


def test_corrections_by_hand():
    p = np.array([[0.01, np.nan, 0.04], [0.03, 0.5, 0.005]])
    # Of five: .005 x 5/1, .01 x 5/2, .03 x 5/3, .04 x 5/4 (both become .05), .5.
    expected = [[0.025, np.nan, 0.05], [0.05, 0.5, 0.025]]
    np.testing.assert_allclose(stats.benjamini_hochberg(p), expected)


def test_holm_by_its_definition():
    """The example of Holm's steps: .01 x 4, .02 x 3, .03 x 2, .5; none falls below one before."""
    found = stats.holm(np.array([0.03, 0.01, np.nan, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.5, 0.06])
    assert not len(stats.holm(np.empty(0)))


def test_holm_holds_the_rate_of_any_false_rejection(rng):
    """Of pairs of five equal models, which are dependent: 1.4 standard errors above .05 at most."""
    scores = rng.standard_normal((2000, 5))
    first, second = np.triu_indices(5, 1)
    z = (scores[:, first] - scores[:, second]) / np.sqrt(2)
    p = 2 * scipy_stats.norm.sf(np.abs(z))
    assert (p.min(axis=1) < 0.05).mean() > 0.2
    rate = np.mean([stats.holm(x).min() < 0.05 for x in p])
    assert 0.02 < rate < 0.05 + 1.4 * np.sqrt(0.05 * 0.95 / 2000)


def test_corrections_of_one_and_of_none():
    correct = stats.benjamini_hochberg
    np.testing.assert_array_equal(correct(np.array([0.2, np.nan])), [0.2, np.nan])
    assert np.isnan(correct(np.array([np.nan, np.nan]))).all()
    assert not len(correct(np.empty(0)))


def test_ends_on_the_scale_of_fishers_z():
    """Never beyond 1, and for small steps what they were."""
    np.testing.assert_allclose(stats.fisher_ends(0.3, 1e-4), (0.2999, 0.3001), atol=1e-7)
    low, high = stats.fisher_ends(0.84, 0.9)
    assert -1 < low < 0.84 < high < 1
    assert stats.fisher_ends(1.0, 0.0) == (1.0, 1.0)
    assert np.isnan(stats.fisher_ends(1.0, 0.1)).all()


def test_the_p_that_belongs_to_a_crossed_interval(rng):
    values = rng.normal(0.3, 1, size=(8, 5))
    p = stats.crossed_p(values)
    for confidence, holds in ((1 - p - 1e-6, False), (1 - p + 1e-6, True)):
        found = stats.crossed_interval(values, confidence)
        assert (found.low <= 0 <= found.high) == holds
    assert np.isnan(stats.crossed_p(values[:, :1]))
