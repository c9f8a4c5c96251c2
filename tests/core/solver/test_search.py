"""The adaptive search against its definitions, in float64 and without shortcuts."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core.solver import search
from jaxalign.core.solver.search import Moments


def narrow(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


class Curves:
    """Predictions of test sets at every penalty, and what the search is told of them."""

    def __init__(self, rng, v=40, a=12, test=25, r=30):
        spectrum, alphas = np.geomspace(1e-2, 1e3, r), np.geomspace(1e-2, 1e4, a)
        loadings = rng.normal(size=(test, r)) * np.sqrt(spectrum)
        w = rng.normal(size=(v, r)) * np.sqrt(spectrum)
        z = w[:, None] / (spectrum + alphas[:, None])  # [v a r]
        self.predicted = z @ loadings.T  # [v a T]
        self.y = rng.normal(size=(v, test)) + self.predicted[:, a // 2]
        self.gram = self.predicted @ self.predicted.swapaxes(1, 2)
        self.yy = (self.y**2).sum(axis=1)
        self.b = np.einsum("vt,vat->va", self.y, self.predicted)
        self.q = np.diagonal(self.gram, axis1=1, axis2=2)
        self.error = self.yy[:, None] - 2 * self.b + self.q

    def start(self):
        first = search.first_direction(Moments(*narrow(self.yy[:, None], self.b, self.q)))
        known = jnp.zeros((*first.shape[:1], search.HISTORY, first.shape[1]))
        return known.at[:, 0].set(first)

    def look(self, known, slot, place):
        """Return what is known after each target was computed at one penalty."""
        rows = np.arange(len(place))
        products, error = narrow(self.gram[rows, place], self.error[rows, place])
        looked = search.Looked(error, jnp.asarray(place), products)
        return known.at[:, slot].set(search.next_direction(known, looked, *narrow(self.q)))


def projected(curves, target, places):
    """Square what lies along the target and the predictions at some penalties, by its meaning."""
    columns = np.c_[curves.y[target], curves.predicted[target, places].T]
    basis, _ = np.linalg.qr(columns)
    return ((curves.predicted[target] @ basis) ** 2).sum(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_the_bound_is_what_lies_along_the_directions_computed(rng, number):
    curves = Curves(rng)
    known = curves.start()
    places = np.sort(rng.permuted(np.tile(np.arange(0, 12, 2), (40, 1)), axis=1)[:, :number])
    for slot in range(number):
        known = curves.look(known, slot + 1, places[:, slot])
    found = (np.asarray(known, np.float64) ** 2).sum(axis=1)
    expected = np.array([projected(curves, t, places[t]) for t in range(len(places))])
    scale = curves.q + curves.yy[:, None]
    assert ((found - expected) / scale).max() < 1e-6  # at most: the bound has to hold
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-3)
    assert ((found - curves.q) / scale).max() < 1e-6
    at = np.take_along_axis(curves.q, places, axis=1)
    np.testing.assert_allclose(np.take_along_axis(found, places, axis=1), at, rtol=1e-3)


@pytest.mark.slow
def test_a_direction_that_is_not_new_adds_nothing(rng):
    curves = Curves(rng)
    place = np.full(40, 5)
    once = curves.look(curves.start(), 1, place)
    twice = curves.look(once, 2, place)
    np.testing.assert_array_equal(twice[:, 2], 0)


@pytest.mark.slow
def test_of_a_target_that_is_zero_nothing_is_known():
    zero = jnp.zeros((3, 4))
    first = search.first_direction(Moments(zero[:, :1], zero, zero))
    np.testing.assert_array_equal(first, 0)
    looked = search.Looked(zero[:, 0], jnp.zeros(3, int), zero)
    part = search.next_direction(jnp.zeros((3, 2, 4)), looked, zero)
    np.testing.assert_array_equal(part, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_the_least_error_of_any_curve(seed):
    curves = Curves(np.random.default_rng(seed), v=300)
    known = curves.start()
    v, a = curves.error.shape
    rows, exact = np.arange(v), np.full((v, a), np.inf)
    place, need = curves.error.shape[1] * np.ones(v, int) - 1, np.ones(v, bool)
    for slot in range(1, search.HISTORY):
        exact[rows[need], place[need]] = curves.error[rows[need], place[need]]
        known = jnp.where(need[:, None, None], curves.look(known, slot, place), known)
        low = curves.yy[:, None] - 2 * curves.b + (np.asarray(known) ** 2).sum(axis=1)
        belief = search.Belief(*narrow(exact[None], low[None]), jnp.zeros((1, v), int))
        place, need = (np.asarray(x)[0] for x in search.propose(belief))
    assert not need.any()
    least = curves.error.min(axis=1)
    assert (exact.min(axis=1) / least).max() < 1 + 2 * search.TOLERANCE
    assert np.isfinite(exact).sum(axis=1).mean() < a / 2


@pytest.mark.slow
def test_what_is_proposed_has_the_lowest_bound_below_the_best_error():
    exact = jnp.array([[[jnp.inf, 3.0, jnp.inf], [jnp.inf, 1.0, jnp.inf]]])
    low = jnp.array([[[1.0, 0.0, 2.0], [1.0, 0.0, 2.0]]])
    place, need = search.propose(search.Belief(exact, low, jnp.ones((1, 2), int)))
    np.testing.assert_array_equal(place, 0)
    np.testing.assert_array_equal(need, [[True, False]])


@pytest.mark.parametrize(
    "curve, place",
    [
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 1.0, 2.0], 1),
        ([1.0, 2.0, 1.0], 2),
        ([0.0, 0.0, 0.0], 2),
        ([np.inf, np.inf, 5.0], 2),
        ([5.0, np.inf, np.inf], 0),
        ([-1.0], 0),
    ],
)
def test_of_equal_values_the_last_is_least(curve, place):
    assert int(search.last_argmin(jnp.asarray(curve, jnp.float32))) == place
    stacked = jnp.asarray([[curve, curve]], jnp.float32)
    np.testing.assert_array_equal(search.last_argmin(stacked), [[place, place]])


def make_moments(rng, v=6, test=15):
    y = rng.normal(size=(test, v))
    predicted = 0.5 * y + rng.normal(size=(test, v))
    return y, predicted


def moments_of(y, predicted):
    return Moments(*narrow((y**2).sum(axis=0), (y * predicted).sum(axis=0), (predicted**2).sum(0)))


def test_the_cost_is_the_negative_correlation(rng):
    y, predicted = (x - x.mean(axis=0) for x in make_moments(rng))
    found = search.negative_r(moments_of(y, predicted))
    expected = [-np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, predicted.T, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("zero", [["yy", "b"], ["b", "q"], ["yy", "b", "q"]])
def test_an_undefined_correlation_counts_as_none(zero):
    moments = Moments(*narrow([2.0], [1.0], [3.0]))
    moments = moments._replace(**dict.fromkeys(zero, jnp.zeros(1)))
    np.testing.assert_array_equal(search.negative_r(moments), 0)


@pytest.mark.parametrize(
    "span, num_alphas, most",
    [(1, 20, 12), (3, 20, 17), (3, 60, 20), (9, 60, 30), (0, 2, 2), (12, 1, 1)],
)
def test_divisors_of_few_penalties_give_those_of_all(rng, span, num_alphas, most):
    spectrum = 10 ** (3 - span * rng.uniform(size=(3, 50)))
    alphas = np.logspace(-1, 5, num_alphas)
    family = search.family(spectrum, alphas)
    assert len(family.pivots) <= most
    assert_gives_divisors(family, spectrum, alphas)


def assert_gives_divisors(family, spectrum, alphas):
    """Compare with float64 what float32 makes of them."""
    found = family.weights @ (1 / (np.float32(spectrum)[..., None, :] + family.pivots[:, None]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 / (spectrum[..., None, :] + alphas[:, None]), rtol=2e-6)


def test_least_squares_stands_for_itself():
    family = search.family(np.array([[1.0, 2.0]]), np.zeros(1))
    np.testing.assert_array_equal(family.weights, np.ones((1, 1)))
    np.testing.assert_array_equal(family.pivots, [0])


def test_penalties_of_eigenvalues_beyond_float32_stand_for_themselves():
    spectrum, alphas = np.array([[0.0, 1e-30, 1.0]]), np.logspace(-2, 2, 5)
    family = search.family(spectrum, alphas)
    np.testing.assert_array_equal(family.pivots, np.float32(alphas))
    assert_gives_divisors(family, spectrum, alphas)
