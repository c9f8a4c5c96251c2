import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxalign.core import stats


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


def test_inputs_are_not_changed():
    values = np.array([1.0, np.nan, 2.0])
    stats.mean_interval(values)
    np.testing.assert_array_equal(values, [1.0, np.nan, 2.0])
