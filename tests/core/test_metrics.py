import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxalign.core import metrics

N = 40


def narrow(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def score(metric, predicted, recorded, weight=None):
    weight = np.ones(len(predicted)) if weight is None else weight
    return np.asarray(metric(*narrow(predicted, recorded, weight)))


@pytest.fixture
def pair(rng):
    recorded = rng.normal(size=(N, 6))
    predicted = recorded * [5, 1, 0.5, 0.2, 0, -1] + rng.normal(size=(N, 6))
    return predicted, recorded


@pytest.mark.slow
def test_pearson_r_matches_scipy(pair):
    expected = stats.pearsonr(*pair, axis=0).statistic
    np.testing.assert_allclose(score(metrics.pearson_r, *pair), expected, atol=1e-6)


@pytest.mark.slow
def test_rows_of_weight_zero_do_not_count(rng, pair):
    padded = [np.r_[array, 1e3 * rng.normal(size=(9, 6))] for array in pair]
    weight = np.arange(N + 9) < N
    np.testing.assert_allclose(
        score(metrics.pearson_r, *padded, weight), score(metrics.pearson_r, *pair), atol=1e-5
    )


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -1e4 / 3])
def test_a_constant_response_or_prediction_has_no_correlation(pair, side, value):
    pair[side][:, 2] = value
    undefined = np.isnan(score(metrics.pearson_r, *pair))
    np.testing.assert_array_equal(undefined, np.arange(6) == 2)


def test_a_response_that_varies_in_the_padding_alone_is_constant(pair):
    predicted, recorded = pair
    recorded[:30] = 0.1
    weight = np.arange(N) < 30
    assert np.isnan(score(metrics.pearson_r, predicted, recorded, weight)).all()


# 1e-13: a magnetometer in tesla; 1e-9: slopes under a penalty of 1e9.
@pytest.mark.parametrize("scale", [1e-13, 1e-9, 1e-5, 1e4, 1e10])
def test_scores_do_not_depend_on_units(pair, scale):
    scaled = [scale * array for array in pair]
    np.testing.assert_allclose(
        score(metrics.pearson_r, *scaled), score(metrics.pearson_r, *pair), atol=1e-5
    )


def test_correlation_does_not_depend_on_units_of_either(pair):
    predicted, recorded = pair
    expected = score(metrics.pearson_r, predicted, recorded)
    changed = score(metrics.pearson_r, 1e-8 * predicted, 30 * recorded + 5)
    np.testing.assert_allclose(changed, expected, atol=1e-5)
    flipped = score(metrics.pearson_r, -predicted, recorded)
    np.testing.assert_allclose(flipped, -expected, atol=1e-6)


def test_a_baseline_a_thousand_times_the_spread_costs_few_digits(pair):
    predicted, recorded = pair
    changed = score(metrics.pearson_r, predicted + 1e3, recorded + 1e3)
    np.testing.assert_allclose(changed, score(metrics.pearson_r, *pair), atol=1e-3)


def test_perfect_predictions(pair):
    _, recorded = pair
    np.testing.assert_allclose(score(metrics.pearson_r, recorded, recorded), 1, atol=1e-6)


def test_targets_do_not_interact(pair):
    predicted, recorded = pair
    before = score(metrics.pearson_r, predicted, recorded)
    recorded[:, 0] = np.nan
    predicted[:, 1] = np.inf
    after = score(metrics.pearson_r, predicted, recorded)
    np.testing.assert_array_equal(after[2:], before[2:])
    assert np.isnan(after[0])


def test_means_and_medians_are_of_what_is_defined(rng):
    values = rng.normal(size=(5, 4))
    values[1, :2], values[:, 3] = np.nan, np.nan
    for found, expected in (
        (metrics.mean_defined, np.nanmean),
        (metrics.median_defined, np.nanmedian),
    ):
        np.testing.assert_allclose(found(values[:, :3], axis=0), expected(values[:, :3], axis=0))
        np.testing.assert_allclose(found(values[:, :3]), expected(values[:, :3]))
        assert np.isnan(found(values, axis=0)[3]) and np.isnan(found(values[:, 3]))  # no warning
        assert np.isnan(found(np.empty(0), axis=0))
    # Infinity is a value.
    assert metrics.mean_defined(np.array([1.0, -np.inf, np.nan])) == -np.inf


def test_a_quotient_without_a_positive_divisor_is_undefined():
    found = metrics.divide(np.ones((2, 1)), np.array([2.0, 0.0, -1.0, np.nan]))
    np.testing.assert_array_equal(found, np.tile([0.5, np.nan, np.nan, np.nan], (2, 1)))
