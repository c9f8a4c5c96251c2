import numpy as np
import pytest
from scipy import stats

from jaxalign.core.inference import resampling


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_jackknife_of_means_is_students_interval(rng, confidence):
    x = rng.normal(size=(7, 3))
    left_out = (x.sum(axis=0) - x) / 6
    low, high = resampling.jackknife(x.mean(axis=0), left_out, confidence=confidence)
    expected = stats.ttest_1samp(x, 0).confidence_interval(confidence)
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)


def test_correlations_have_their_interval_on_the_scale_of_z(rng):
    left_out, value = rng.uniform(0.6, 0.9, size=(5, 4)), np.array([0.7, 0.8, 0.9, -0.2])
    low, high = resampling.jackknife(value, left_out, is_correlation=True)
    ends = resampling.jackknife(np.arctanh(value), np.arctanh(left_out))
    np.testing.assert_allclose([low, high], np.tanh(ends), rtol=1e-9)
    one = np.ones(4)
    found = resampling.jackknife(one, np.ones((5, 4)) - 1e-16, is_correlation=True)
    np.testing.assert_allclose(found, 1, atol=1e-11)


def test_groups_without_a_share_do_not_count(rng):
    left_out = rng.normal(size=(6, 3))
    value = left_out.mean(axis=0)
    counted = np.ones((6, 3), bool)
    counted[[0, 4], 0] = False
    counted[1:, 1] = False
    left_out[[0, 4], 0] = np.nan
    left_out[5, 2] = np.nan
    low, high = resampling.jackknife(value, left_out, counted=counted)
    own = resampling.jackknife(value[:1], left_out[[1, 2, 3, 5], :1])
    np.testing.assert_allclose([low[:1], high[:1]], own)
    assert np.isnan([low[1:], high[1:]]).all()


def test_one_group_or_none_has_no_interval():
    for g in (0, 1):
        assert np.isnan(resampling.jackknife(np.array(0.5), np.zeros(g))).all()


def test_no_targets_have_no_ends():
    low, high = resampling.percentiles(np.empty((9, 0)), np.empty(0), 0.95)
    assert low.shape == high.shape == (0,)
