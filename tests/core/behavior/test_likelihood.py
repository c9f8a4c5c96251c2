import numpy as np
import pytest
from scipy import stats

from jaxalign.core.behavior import likelihood

NUM_STORIES = 4


def make(rng, *, n=120, num_participants=6, gain=0.5, spread=1.0):
    """Draw times that follow two predictors, of which the baseline has the first."""
    X = rng.normal(size=(n, 2)) * [1, 30] + [0, 500]
    participants = rng.integers(num_participants, size=n)
    intercepts = spread * rng.normal(size=num_participants)
    y = 3 + X @ [1, gain / 30] + intercepts[participants] + rng.normal(size=n)
    stories = np.repeat(np.arange(NUM_STORIES), n // NUM_STORIES)
    return y, X[:, :1], X, participants, stories


def test_in_sample_is_the_likelihood_of_ordinary_least_squares(rng):
    sm = pytest.importorskip("statsmodels.api")
    y, base, full, _, stories = make(rng)
    found = likelihood.linear_log_likelihoods(y, base, full, stories, held_out=False)
    for X, densities in ((base, found.baseline), (full, found.full)):
        assert densities.sum() == pytest.approx(sm.OLS(y, sm.add_constant(X)).fit().llf, abs=1e-8)


def test_held_out_is_the_density_under_a_fit_to_the_other_stories(rng):
    y, base, full, _, stories = make(rng)
    found = likelihood.linear_log_likelihoods(y, base, full, stories, held_out=True)
    for X, densities in ((base, found.baseline), (full, found.full)):
        Z = np.c_[np.ones(len(y)), X]
        for story in range(NUM_STORIES):
            train = stories != story
            weights = np.linalg.solve(Z[train].T @ Z[train], Z[train].T @ y[train])
            sd = np.sqrt(np.mean((y[train] - Z[train] @ weights) ** 2))
            expected = stats.norm.logpdf(y[~train], Z[~train] @ weights, sd).sum()
            assert densities[story] == pytest.approx(expected, abs=1e-8)


def dense(errors, participants, variance, ratio):
    """Mean 0 and the full covariance of errors with random intercepts."""
    same = participants[:, None] == participants[None]
    return variance * (np.eye(len(errors)) + ratio * same)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_random_intercepts_match_statsmodels(rng, spread):
    sm = pytest.importorskip("statsmodels.api")
    y, _, X, participants, stories = make(rng, n=480, num_participants=24, spread=spread)
    found = likelihood.mixed_log_likelihoods(y, X[:, :0], X, participants, stories, held_out=False)
    Z = sm.add_constant((X - X.mean(axis=0)) / X.std(axis=0))
    # Of its methods the one that never ends at a variance of 0 with an infinite likelihood.
    fit = sm.MixedLM(y, Z, groups=participants).fit(reml=False, method=["powell"])
    assert found.full.sum() == pytest.approx(fit.llf, abs=1e-6)


def test_stories_in_sample_are_conditional_densities_that_add_up(rng):
    """Against the dense covariance: the sum, and a story given those before it."""
    y, base, full, participants, stories = make(rng)
    found = likelihood.mixed_log_likelihoods(y, base, full, participants, stories, held_out=False)
    Z = likelihood._design(full, np.arange(len(y)))
    fit = likelihood._fit_random_intercepts(Z, y, participants)
    errors = y - Z @ fit.weights
    covariance = dense(errors, participants, fit.variance, fit.ratio)
    whole = stats.multivariate_normal(cov=covariance)
    assert found.full.sum() == pytest.approx(whole.logpdf(errors), abs=1e-8)
    for story in range(1, NUM_STORIES):
        upto = stories <= story
        before = stories < story
        joint = stats.multivariate_normal(cov=covariance[np.ix_(upto, upto)])
        given = stats.multivariate_normal(cov=covariance[np.ix_(before, before)])
        expected = joint.logpdf(errors[upto]) - given.logpdf(errors[before])
        assert found.full[story] == pytest.approx(expected, abs=1e-8)


def test_held_out_stories_are_conditional_on_what_participants_read_of_others(rng):
    y, base, full, participants, stories = make(rng)
    participants[stories == 3] += 3  # some read nothing else
    found = likelihood.mixed_log_likelihoods(y, base, full, participants, stories, held_out=True)
    for story in range(NUM_STORIES):
        train, test = stories != story, stories == story
        Z = likelihood._design(full, np.flatnonzero(train))
        fit = likelihood._fit_random_intercepts(Z[train], y[train], participants[train])
        errors = y - Z @ fit.weights
        covariance = dense(errors, participants, fit.variance, fit.ratio)
        joint = stats.multivariate_normal(cov=covariance).logpdf(errors)
        given = stats.multivariate_normal(cov=covariance[np.ix_(train, train)])
        assert found.full[story] == pytest.approx(joint - given.logpdf(errors[train]), abs=1e-8)
        assert found.num[story] == test.sum()


def test_the_fit_is_a_maximum(rng):
    y, _, X, participants, _ = make(rng)
    Z = likelihood._design(X, np.arange(len(y)))
    fit = likelihood._fit_random_intercepts(Z, y, participants)

    def log_likelihood(weights, variance, ratio):
        errors = y - Z @ weights
        covariance = dense(errors, participants, variance, ratio)
        return stats.multivariate_normal(cov=covariance).logpdf(errors)

    best = log_likelihood(*fit)
    for factor in (0.98, 1.02):
        assert log_likelihood(fit.weights * factor, fit.variance, fit.ratio) < best
        assert log_likelihood(fit.weights, fit.variance * factor, fit.ratio) < best
        assert log_likelihood(fit.weights, fit.variance, fit.ratio * factor) < best


def test_without_differences_of_participants_it_is_linear_regression(rng):
    """Times whose means are the same for every participant: the ratio is exactly 0."""
    y, base, full, participants, stories = make(rng, spread=0.0)
    Z = np.c_[np.ones(len(y)), full, np.eye(6)[participants]]
    errors = y - Z @ np.linalg.lstsq(Z, y, rcond=None)[0]
    y = full @ [1.0, 0.1] + errors
    mixed = likelihood.mixed_log_likelihoods(y, base, full, participants, stories, held_out=False)
    linear = likelihood.linear_log_likelihoods(y, base, full, stories, held_out=False)
    np.testing.assert_allclose(mixed.full, linear.full, atol=1e-8)


@pytest.mark.slow
def test_gain_of_a_useless_predictor_is_nothing_in_sample_and_a_loss_held_out():
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(100):
        y, base, full, _, stories = make(rng, gain=0.0)
        gains.append(
            [
                likelihood.delta_log_likelihood(
                    likelihood.linear_log_likelihoods(y, base, full, stories, held_out=held_out)
                ).value
                for held_out in (False, True)
            ]
        )
    in_sample, held_out = np.mean(gains, axis=0)
    # Twice the gain in log-likelihood is chi-squared with one degree of freedom, so that the mean
    # of 100 has a standard error of 0.07.
    assert in_sample * 120 == pytest.approx(0.5, abs=0.25)
    assert held_out < 0


def test_gain_of_a_planted_predictor_is_half_the_logarithm_of_the_variances(rng):
    y, base, full, _, stories = make(rng, n=8000, gain=0.5, spread=0.0)
    for held_out in (False, True):
        found = likelihood.delta_log_likelihood(
            likelihood.linear_log_likelihoods(y, base, full, stories, held_out=held_out)
        )
        assert found.value == pytest.approx(0.5 * np.log(1.25), abs=0.01)
        assert found.low < found.value < found.high
        assert (found.num, found.num_groups) == (8000, NUM_STORIES)


def test_gain_is_per_observation_whatever_the_sizes_of_stories(rng):
    found = likelihood.LogLikelihoods(
        ["a", "b"], np.array([10, 90]), np.array([-30.0, -90.0]), np.array([-20.0, -90.0])
    )
    np.testing.assert_allclose(found.delta, [1, 0])
    assert likelihood.delta_log_likelihood(found).value == pytest.approx(0.1)


def test_units_of_predictors_do_not_matter(rng):
    y, base, full, participants, stories = make(rng)
    args = (participants, stories)
    expected = likelihood.mixed_log_likelihoods(y, base, full, *args, held_out=True)
    scaled = full * [1e-6, 1e6] + [7e-6, -1e6]
    found = likelihood.mixed_log_likelihoods(y, scaled[:, :1], scaled, *args, held_out=True)
    np.testing.assert_allclose(found.full, expected.full, atol=1e-5)


def test_constant_and_repeated_predictors_add_nothing(rng):
    y, base, _, participants, stories = make(rng)
    more = np.c_[base, np.full(len(y), 0.1), base]
    for held_out in (False, True):
        linear = likelihood.linear_log_likelihoods(y, base, more, stories, held_out=held_out)
        np.testing.assert_allclose(linear.full, linear.baseline, atol=1e-8)
        mixed = likelihood.mixed_log_likelihoods(
            y, base, more, participants, stories, held_out=held_out
        )
        np.testing.assert_allclose(mixed.full, mixed.baseline, atol=1e-6)


def test_times_that_are_predicted_perfectly_have_no_likelihood(rng):
    _, base, full, participants, stories = make(rng)
    y = full @ [1.0, 2.0]
    linear = likelihood.linear_log_likelihoods(y, base, full, stories, held_out=True)
    assert np.isnan(linear.full).all() and np.isfinite(linear.baseline).all()
    mixed = likelihood.mixed_log_likelihoods(y, base, full, participants, stories, held_out=True)
    assert np.isnan(mixed.full).all()
    assert np.isnan(likelihood.delta_log_likelihood(mixed).value)


@pytest.mark.parametrize("held_out", [False, True])
def test_too_few_observations_are_refused(rng, held_out):
    y, X = rng.normal(size=4), rng.normal(size=(4, 3))
    with pytest.raises(ValueError, match="3 predictors and an intercept need more observations"):
        likelihood.linear_log_likelihoods(y, X, X, [0, 0, 1, 1], held_out=held_out)


def test_one_story_cannot_be_held_out(rng):
    y, base, full, participants, _ = make(rng)
    one = np.zeros(len(y), int)
    with pytest.raises(ValueError, match="takes at least two, got 1"):
        likelihood.linear_log_likelihoods(y, base, full, one, held_out=True)
    found = likelihood.mixed_log_likelihoods(y, base, full, participants, one, held_out=False)
    estimate = likelihood.delta_log_likelihood(found)
    assert np.isfinite(estimate.value) and np.isnan(estimate.low)


def test_what_is_not_finite_is_refused(rng):
    y, base, full, participants, stories = make(rng)
    full[5, 1] = np.nan
    with pytest.raises(ValueError, match="full must be finite, got 1 not"):
        likelihood.mixed_log_likelihoods(y, base, full, participants, stories, held_out=True)
