"""Planted responses have the signal, the noise and the isotropy that they claim."""

import numpy as np
import pytest

from jaxalign.data.synthetic import planted


def plant(features, *, seed=7, **changes):
    settings = {"num_subjects": 2, "num_targets": 5, "noise_sd": 1.0} | changes
    return planted.plant(features, rng=np.random.default_rng(seed), **settings)


@pytest.fixture
def features(rng):
    """Return 60 samples of 20 correlated units of very different size."""
    mixed = rng.normal(size=(60, 20)) @ rng.normal(size=(20, 20))
    return mixed * 10.0 ** rng.uniform(-2, 2, size=20) + rng.normal(size=20)


def standard(features):
    return (features - features.mean(axis=0)) / features.std(axis=0)


def directions(features, signal):
    """Return the weights behind a signal, one column of unit length per target."""
    weights, *_ = np.linalg.lstsq(standard(features), signal, rcond=None)
    return weights / np.linalg.norm(weights, axis=0)


def test_shapes(features):
    responses, signal = plant(features, num_subjects=3, num_targets=4)
    assert responses.shape == (3, 60, 4)
    assert signal.shape == (60, 4)


def test_the_signal_has_mean_0_and_variance_1(features):
    _, signal = plant(features)
    np.testing.assert_allclose(signal.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(signal.std(axis=0), 1)


def test_the_signal_is_a_linear_function_of_the_features(features):
    _, signal = plant(features)
    Z = standard(features)
    fitted = Z @ np.linalg.lstsq(Z, signal, rcond=None)[0]
    np.testing.assert_allclose(fitted, signal, atol=1e-9)
    # Of other features of the same size it is not.
    Z = standard(np.random.default_rng(1).normal(size=features.shape))
    assert np.abs(Z @ np.linalg.lstsq(Z, signal, rcond=None)[0] - signal).max() > 0.5


@pytest.mark.parametrize("noise_sd", [0.5, 1.2, 4.0])
def test_the_noise_is_as_large_as_asked_and_independent(rng, noise_sd):
    features = rng.normal(size=(20_000, 3))
    responses, signal = plant(features, num_subjects=2, num_targets=3, noise_sd=noise_sd)
    noise = responses - signal
    columns = noise.transpose(1, 0, 2).reshape(20_000, 6)
    # The standard error of a standard deviation is sd / sqrt(2 n), that of a correlation
    # 1 / sqrt(n); four of them.
    np.testing.assert_allclose(columns.std(axis=0), noise_sd, rtol=4 / np.sqrt(40_000))
    correlation = np.corrcoef(np.c_[columns, signal].T)
    # Signals of three units may be alike; noise is like nothing else.
    between = correlation[:6] - np.eye(6, 9)
    assert np.abs(between).max() < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("noise_sd", [0.5, 1.2, 4.0])
def test_the_planted_ceiling_is_as_documented(rng, noise_sd):
    responses, signal = plant(rng.normal(size=(20_000, 8)), noise_sd=noise_sd)
    for own in responses:
        r = [np.corrcoef(x, y)[0, 1] for x, y in zip(own.T, signal.T, strict=True)]
        # Four standard errors at most.
        np.testing.assert_allclose(r, 1 / np.sqrt(1 + noise_sd**2), atol=4 / np.sqrt(20_000))


def test_without_noise_participants_are_the_signal(features):
    responses, signal = plant(features, num_subjects=3, noise_sd=0.0)
    np.testing.assert_array_equal(responses, np.stack([signal] * 3))


def test_participants_share_the_signal_and_not_the_noise(features):
    responses, signal = plant(features, num_subjects=400, num_targets=2, noise_sd=2.0)
    # The mean of 400 leaves a twentieth of the noise.
    np.testing.assert_allclose(responses.mean(axis=0), signal, atol=5 * 2.0 / 20)
    assert np.abs(responses[0] - responses[1]).min() > 0


@pytest.mark.parametrize("noise", [0.0, 1e-33])
def test_constant_units_play_no_part(features, rng, noise):
    expected = plant(features)
    constant = np.array([0.0, 1.0, -3e4, 1e-33]) + noise * rng.normal(size=(60, 4))
    where = [0, 7, 20, 20]
    found = plant(np.insert(features, where, constant, axis=1))
    for x, y in zip(found, expected, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, y)


def test_the_size_of_a_unit_plays_no_part(features, rng):
    expected = plant(features)
    found = plant(features * 10.0 ** rng.integers(-1, 2, size=20) + rng.normal(size=20))
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)


def test_the_weights_have_no_preferred_unit_or_component(features):
    num_targets = 20_000
    _, signal = plant(features, num_targets=num_targets, noise_sd=0.0)
    w = directions(features, signal)
    # Uniform on the sphere of 20 dimensions: covariance I / 20, in any basis.
    for basis in (np.eye(20), np.linalg.svd(standard(features))[2]):
        c = 20 * (basis @ w) @ (basis @ w).T / num_targets
        np.testing.assert_allclose(c, np.eye(20), atol=5 * np.sqrt(2 / num_targets))
    np.testing.assert_allclose(w.mean(axis=1), 0, atol=5 / np.sqrt(20 * num_targets))


@pytest.mark.slow
def test_the_signal_covaries_as_the_scaled_features(features, rng):
    # Many units, hardly correlated: dividing by the deviation of the signal then changes little.
    features = rng.normal(size=(12, 2000)) * 10.0 ** rng.uniform(-2, 2, size=2000)
    Z = standard(features)
    _, signal = plant(features, num_targets=20_000, noise_sd=0.0)
    expected = Z @ Z.T / 2000
    found = signal @ signal.T / 20_000
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_leading_component_has_its_own_share_of_the_signal(rng):
    # Half of the units copy one another; the first component has a good half of the variance.
    copies = rng.normal(size=(200, 1)) + 0.1 * rng.normal(size=(200, 20))
    Z = standard(np.c_[copies, rng.normal(size=(200, 20))])
    U, s, _ = np.linalg.svd(Z, full_matrices=False)
    _, signal = plant(Z, num_targets=20_000, noise_sd=0.0)
    share = (U[:, 0] @ signal) ** 2 / 200
    weights = np.random.default_rng(0).normal(size=(40, 20_000))
    raw = Z @ weights
    expected = (U[:, 0] @ raw) ** 2 / (raw**2).sum(axis=0)
    assert s[0] ** 2 / (s**2).sum() > 0.4
    assert share.mean() == pytest.approx(expected.mean(), abs=0.02)


def test_the_seed_fixes_everything(features):
    first, again, other = plant(features), plant(features), plant(features, seed=8)
    for x, y, z in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.isclose(x, z).any()


def test_noise_and_participants_leave_the_signal_as_it_is(features):
    _, signal = plant(features)
    _, other = plant(features, num_subjects=9, noise_sd=3.0)
    np.testing.assert_array_equal(signal, other)


def test_the_features_are_not_changed(features):
    before = features.copy()
    plant(features)
    np.testing.assert_array_equal(features, before)
