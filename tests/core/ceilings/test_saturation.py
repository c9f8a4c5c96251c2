import warnings

import numpy as np
import pytest
from scipy import optimize

from jaxalign.core.ceilings import saturation

X = np.arange(2.0, 11.0)
CURVES = {
    "exponential": lambda x, v0, tau: v0 * (1 - np.exp(-x / tau)),
    "reliability": lambda x, v0, tau: v0 * np.sqrt(x / (x + tau)),
}


@pytest.mark.parametrize("family", CURVES)
@pytest.mark.parametrize("v0", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("tau0", [0.6, 3.0, 25.0])
def test_curves_without_noise_are_found(family, v0, tau0):
    found = saturation.fit(X, CURVES[family](X, v0, tau0)[None], family=family)
    np.testing.assert_allclose(found.v0, v0, rtol=1e-6)
    np.testing.assert_allclose(found.tau0, tau0, rtol=1e-5)
    assert found.cost[0] < 1e-12


def series(rng, num):
    """Rising curves with noise, and series of nothing but noise: rising, falling, negative."""
    v0, tau0 = rng.uniform(0, 1, num), rng.uniform(0.3, 20, num)
    noise = rng.normal(size=(num, len(X))) * rng.choice([0.003, 0.03, 0.3], size=(num, 1))
    planted = CURVES["exponential"](X[None], v0[:, None], tau0[:, None])
    return np.where(rng.random((num, 1)) < 0.7, planted, rng.uniform(-0.3, 0.3, (num, 1))) + noise


def curve_fit(family, x, y, start):
    """Return the cost of what is published: bounded, from one starting point, it may fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bounds = ([0, 1e-9], [1, np.inf])
            params, _ = optimize.curve_fit(CURVES[family], x, y, p0=start, bounds=bounds)
        except (RuntimeError, ValueError):
            return np.inf
    return ((CURVES[family](x, *params) - y) ** 2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("family", CURVES)
def test_no_fit_of_scipy_is_better(rng, family):
    """From two starting points, in 40 series."""
    y = series(rng, 40)
    found = saturation.fit(X, y, family=family)
    near = 0
    for i, own in enumerate(y):
        for start in ([0.5, 1.0], [0.9, 10.0]):
            cost = curve_fit(family, X, own, start)
            assert found.cost[i] <= cost + 1e-12
            near += cost <= found.cost[i] * (1 + 1e-3)
    # The other is a real one: it mostly gets there as well.
    assert near > len(y)


@pytest.mark.parametrize("family", CURVES)
def test_no_curve_of_a_fine_grid_is_better(rng, family):
    y = series(rng, 20)
    found = saturation.fit(X, y, family=family)
    levels = np.linspace(0, 1, 101)[:, None, None]
    scales = np.geomspace(1e-2, 1e5, 300)[None, :, None]
    curves = CURVES[family](X, levels, scales)
    for i, own in enumerate(y):
        assert found.cost[i] <= ((curves - own) ** 2).sum(axis=2).min() + 1e-12


def test_series_that_do_not_rise():
    y = np.stack([np.full(9, 0.3), -X / 20, np.zeros(9), 0.5 - X / 100])
    found = saturation.fit(X, y)
    np.testing.assert_allclose(found.v0, [0.3, 0, 0, y[3].mean()], atol=1e-12)
    np.testing.assert_array_equal(np.isnan(found.tau0), [False, True, True, False])
    assert found.tau0[0] < 0.1


def test_a_straight_rise_ends_at_the_bound():
    found = saturation.fit(X, X[None] / 1000)
    np.testing.assert_allclose(found.v0, 1)
    np.testing.assert_allclose(found.tau0, 1000, rtol=0.01)


def test_levels_stay_within_their_bounds(rng):
    found = saturation.fit(X, rng.normal(size=(200, 9)))
    assert (found.v0 >= 0).all() and (found.v0 <= 1).all()
    assert (found.v0 == 0).any() and (found.v0 == 1).any()


@pytest.mark.slow
def test_missing_values_are_left_out(rng):
    y = series(rng, 30)
    y[:, [1, 4, 8]] = np.nan
    found = saturation.fit(X, y)
    kept = [0, 2, 3, 5, 6, 7]
    alone = saturation.fit(X[kept], y[:, kept])
    np.testing.assert_allclose(found.cost, alone.cost, atol=1e-12)
    np.testing.assert_allclose(found.v0, alone.v0, atol=1e-7)


def test_one_value_is_no_curve():
    y = np.full((3, 9), np.nan)
    y[1, 4] = 0.5
    y[2, 4:6] = 0.5
    found = saturation.fit(X, y)
    for part in found:
        np.testing.assert_array_equal(np.isnan(part), [True, True, False])


@pytest.mark.slow
def test_shapes_are_kept_and_chunks_do_not_interact(rng, monkeypatch):
    y = series(rng, 60).reshape(4, 3, 5, 9)
    whole = saturation.fit(X, y)
    assert whole.v0.shape == (4, 3, 5)
    monkeypatch.setattr(saturation, "FEW", 16)
    monkeypatch.setattr(saturation, "CHUNK", 16)
    parts = saturation.fit(X, y)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert saturation.fit(X, np.empty((0, 9))).v0.shape == (0,)


@pytest.mark.parametrize("x", [[2.0], [0.0, 1.0], [2.0, 2.0], [3.0, 2.0], [1.0, np.nan]])
def test_x_must_be_positive_and_ascending(x):
    with pytest.raises(ValueError, match="x must be at least 2 positive, ascending numbers"):
        saturation.fit(np.array(x), np.zeros((1, len(x))))


def test_lengths_must_agree(unchecked):
    with pytest.raises(ValueError, match="y must have one value per x: 9, got 8"):
        saturation.fit(X, np.zeros((2, 8)))
