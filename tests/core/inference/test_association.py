"""Correlations and their kin against SciPy, statsmodels and likelihoods by hand."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.regression import linear_model

from jaxalign.core.inference import association


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def _pair(rng, n, slope=0.6):
    x = rng.standard_normal(n)
    return x, slope * x + rng.standard_normal(n)


@pytest.mark.parametrize("n", [4, 5, 17, 60])
def test_pearson_is_scipys(rng, n):
    x, y = _pair(rng, n)
    found = association.pearson(x, y, confidence=0.9)
    theirs = stats.pearsonr(x, y)
    interval = theirs.confidence_interval(0.9)
    expected = (theirs.statistic, interval.low, interval.high, theirs.pvalue)
    np.testing.assert_allclose(found[:4], expected, rtol=1e-12)
    assert found.n == n and found.reason == ""


@pytest.mark.parametrize("n", [9, 17, 60])
def test_spearman_is_scipys(rng, n):
    x, y = _pair(rng, n)
    x = np.round(x, 1)  # ties
    found = association.spearman(x, y)
    theirs = stats.spearmanr(x, y)
    np.testing.assert_allclose((found.value, found.p), theirs, rtol=1e-12)
    error = np.sqrt((1 + theirs.statistic**2 / 2) / (n - 3))
    ends = np.tanh(np.arctanh(theirs.statistic) + error * stats.norm.ppf([0.025, 0.975]))
    np.testing.assert_allclose((found.low, found.high), ends, rtol=1e-12)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_spearman_of_few_is_exact(rng, n):
    x, y = _pair(rng, n)
    statistic = lambda y: stats.spearmanr(x, y).statistic
    theirs = stats.permutation_test((y,), statistic, permutation_type="pairings", n_resamples=6000)
    np.testing.assert_allclose(association.spearman(x, y).p, theirs.pvalue, rtol=1e-9)
    perfect = association.spearman(x, x**3)
    np.testing.assert_allclose((perfect.value, perfect.low, perfect.high), 1, rtol=1e-12)
    np.testing.assert_allclose(perfect.p, 2 / len(list(itertools.permutations(range(n)))))


@pytest.mark.slow
def test_bonett_and_wrights_interval_covers(rng):
    draws = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=(600, 25))
    true = 6 / np.pi * np.arcsin(0.4)  # Spearman's coefficient of normal variables with r .8
    found = [association.spearman(x, y) for x, y in draws.transpose(0, 2, 1)]
    share = np.mean([x.low <= true <= x.high for x in found])
    assert 0.92 < share < 0.98


@pytest.mark.parametrize("num_covariates", [1, 3])
def test_partial_is_the_slope_of_a_regression(rng, num_covariates):
    n = 20
    C = rng.standard_normal((n, num_covariates))
    x = C.sum(axis=1) + rng.standard_normal(n)
    y = x - 2 * C[:, 0] + rng.standard_normal(n)
    found = association.partial(x, y, C)
    design = np.column_stack([np.ones(n), x, C])
    fit = linear_model.OLS(y, design).fit()
    np.testing.assert_allclose(found.p, fit.pvalues[1], rtol=1e-9)
    t, freedom = fit.tvalues[1], fit.df_resid
    np.testing.assert_allclose(found.value, t / np.sqrt(t**2 + freedom), rtol=1e-9)
    z = np.arctanh(found.value) + stats.norm.ppf([0.025, 0.975]) / np.sqrt(n - 3 - num_covariates)
    np.testing.assert_allclose((found.low, found.high), np.tanh(z), rtol=1e-9)


def test_partial_given_groups_is_the_correlation_within_them(rng):
    groups = np.repeat(["a", "b", "c"], [4, 5, 6])
    x, y = _pair(rng, 15)
    y = y + 5 * (groups == "b")
    inside = lambda v: v - np.array([v[groups == g].mean() for g in groups])
    found = association.partial(x, y, association.indicators(groups))
    np.testing.assert_allclose(
        found.value, stats.pearsonr(inside(x), inside(y)).statistic, rtol=1e-9
    )
    assert association.indicators(groups).tolist() == [
        [float(g == "b"), float(g == "c")] for g in groups
    ]


def test_partial_without_covariates_is_pearsons(rng):
    x, y = _pair(rng, 12)
    found = association.partial(x, y, association.indicators(np.repeat("a", 12)))
    np.testing.assert_allclose(found[:4], association.pearson(x, y)[:4], rtol=1e-9)
    # A constant, and a column twice, take no degree of freedom.
    z = rng.standard_normal(12)
    once = association.partial(x, y, z[:, None])
    twice = association.partial(x, y, np.column_stack([z, np.ones(12), 1e6 * z + 3]))
    np.testing.assert_allclose(once[:4], twice[:4], rtol=1e-6)


def test_partial_that_covariates_explain_is_undefined(rng):
    x, y = _pair(rng, 8)
    found = association.partial(x, y, (2 * x + 1)[:, None])
    assert np.isnan(found[:4]).all() and "nothing" in found.reason
    found = association.partial(x[:4], y[:4], rng.standard_normal((4, 2)))
    assert np.isnan(found[:4]).all() and "no degree of freedom" in found.reason


def test_leave_one_group_out(rng):
    groups = np.repeat(["a", "b"], [6, 9])
    x, y = _pair(rng, 15)
    found = association.leave_one_group_out(x, y, groups, measure=association.spearman)
    assert list(found) == ["a", "b"]
    assert found["a"] == association.spearman(x[6:], y[6:])
    assert found["b"] == association.spearman(x[:6], y[:6])
    narrow = association.leave_one_group_out(x, y, groups, confidence=0.5)
    assert narrow["a"] == association.pearson(x[6:], y[6:], confidence=0.5)


def _reml_slope(x, y, groups):
    """Slope and its standard error at the maximum of the restricted likelihood, by hand."""
    n, Z = len(x), (groups[:, None] == np.unique(groups)).astype(float)
    X = np.column_stack([np.ones(n), x])

    def fit(log_ratio):
        inverse = np.linalg.inv(np.eye(n) + np.exp(log_ratio) * Z @ Z.T)
        information = X.T @ inverse @ X
        b = np.linalg.solve(information, X.T @ inverse @ y)
        variance = (y - X @ b) @ inverse @ (y - X @ b) / (n - 2)
        determinants = np.linalg.slogdet(information)[1] - np.linalg.slogdet(inverse)[1]
        return (n - 2) * np.log(variance) + determinants, b[1], variance, information

    best = optimize.minimize_scalar(lambda t: fit(t)[0], bounds=(-12, 12), method="bounded").x
    _, slope, variance, information = fit(best)
    return slope, np.sqrt(variance * np.linalg.inv(information)[1, 1])


def test_mixed_slope_is_that_of_restricted_likelihood(rng):
    groups = np.repeat([f"g{k}" for k in range(6)], 8)
    x = rng.standard_normal(48) * 3 + 10
    y = 0.5 * x + 4 * np.repeat(rng.standard_normal(6), 8) + rng.standard_normal(48)
    found = association.mixed_slope(x, y, groups)
    standardise = lambda v: (v - v.mean()) / v.std(ddof=1)
    slope, error = _reml_slope(standardise(x), standardise(y), groups)
    expected = (slope, *(slope + error * stats.t.ppf([0.025, 0.975], 41)))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4)
    np.testing.assert_allclose(found.p, 2 * stats.t.sf(slope / error, 41), rtol=1e-2)
    # Groups that shift x and y apart mislead an ordinary correlation, and not this slope.
    x, y = x + 20 * np.repeat(np.arange(6), 8), y - 20 * np.repeat(np.arange(6), 8)
    assert association.pearson(x, y).value < -0.9
    assert association.mixed_slope(x, y, groups).value > 0


def test_mixed_slope_that_is_singular_is_undefined(rng):
    x, y = _pair(rng, 20)
    groups = np.tile(["a", "b"], 10)  # which say nothing
    y = y - np.where(groups == "a", y[groups == "a"].mean(), y[groups == "b"].mean())
    x = x - np.where(groups == "a", x[groups == "a"].mean(), x[groups == "b"].mean())
    found = association.mixed_slope(x, y, groups)
    assert np.isnan(found[:4]).all() and found.reason.startswith("singular")
    assert "of at least 2" in association.mixed_slope(x, y, np.repeat("a", 20)).reason
    assert "degree of freedom" in association.mixed_slope(x[:3], y[:3], groups[:3]).reason


@pytest.mark.parametrize("measure", [association.pearson, association.spearman])
def test_undefined_is_nan_and_says_why(rng, measure):
    x, y = _pair(rng, 6)
    assert np.isnan(measure(np.ones(6), y)[:4]).all()
    assert "vary" in measure(np.ones(6), y).reason
    few = measure(x[:2], y[:2])
    assert np.isnan(few[:4]).all() and few.n == 2 and "2 samples" in few.reason
    three = measure(x[:3], y[:3])
    assert np.isfinite([three.value, three.p]).all() and np.isnan([three.low, three.high]).all()
    holes = np.where(np.arange(6) == 2, np.nan, x)
    assert measure(holes, y) == measure(np.delete(x, 2), np.delete(y, 2))


def test_published_r_gets_its_interval_and_p(rng):
    x, y = _pair(rng, 17)
    whole = association.pearson(x, y)
    np.testing.assert_allclose(association.of_r(whole.value, 17)[:4], whole[:4], rtol=1e-9)
    assert np.isnan(association.of_r(0.5, 2)[:4]).all()
    with pytest.raises(ValueError, match=r"r must lie in \[-1, 1\], got 1.2"):
        association.of_r(1.2, 17)


def test_refusals(rng):
    x, y = _pair(rng, 6)
    with pytest.raises(ValueError, match="equally many: 6 and 5"):
        association.pearson(x, y[:5])
    with pytest.raises(ValueError, match="equally many: 6 and 5"):
        association.partial(x, y[:5], np.ones((6, 1)))
    with pytest.raises(ValueError, match="confidence"):
        association.spearman(x, y, confidence=1.0)
    with pytest.raises(ValueError, match="covariates must have one row per sample: 6"):
        association.partial(x, y, np.ones((5, 1)))
