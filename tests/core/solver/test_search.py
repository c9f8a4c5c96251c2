"""The adaptive search against its definitions, in float64 and without shortcuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core.solver import search
from jaxalign.core.solver.search import Moments

ALPHAS = np.logspace(-3, 4, 9)


def make_directions(rng, r, *, columns=40, test=24, decay=1.0):
    """A spectrum that falls off, a basis of orthogonal rows, and the Gram matrix of loadings."""
    spectrum = np.sort(50 * np.arange(1, r + 1) ** -decay)
    basis = np.linalg.qr(rng.normal(size=(max(columns, r), r)))[0].T
    loadings = rng.normal(size=(test, r)) * np.sqrt(spectrum)
    return spectrum, basis, loadings.T @ loadings


def narrow(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


compiled = jax.jit(search.neglected)


def neglected(spectrum, basis, gram, alphas, xp=np):
    arrays = (np.float32(x) for x in (spectrum, (basis**2).sum(axis=1), gram, alphas))
    return search.neglected(*arrays, np) if xp is np else compiled(*map(jnp.asarray, arrays))


def double_sum(spectrum, basis, gram, alphas):
    """The covariance as its docstring defines it: one term at a time."""
    variance = (basis**2).sum(axis=1)
    d = 1 / (spectrum + alphas[:, None])
    diagonal = (variance * d**2 * np.diag(gram)).sum(axis=1)
    found = np.zeros((len(alphas), len(alphas)))
    for r in range(len(spectrum)):
        others = np.arange(len(spectrum)) != r
        # One row of the sum: its terms are products of four.
        terms = gram[r] ** 2 * variance[r] * variance * others
        pairs = d[:, r, None] * d
        found += 2 * (pairs * terms) @ pairs.T
    return found / diagonal[:, None] / diagonal


@pytest.mark.parametrize("decay", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("r", [1, 7, 30])
@pytest.mark.parametrize("xp", [np, jnp])
def test_neglected_terms_are_the_double_sum(rng, r, decay, xp):
    problem = make_directions(rng, r, decay=decay)
    found = neglected(*problem, ALPHAS, xp)
    np.testing.assert_allclose(found, double_sum(*problem, ALPHAS), rtol=1e-4, atol=1e-7)


def test_neglected_terms_of_a_basis_of_any_length(rng):
    # The primal basis is not orthonormal: its rows have the lengths of the directions.
    spectrum, basis, gram = make_directions(rng, 12)
    basis = basis * np.sqrt(spectrum)[:, None]
    found = neglected(spectrum, basis, gram, ALPHAS)
    np.testing.assert_allclose(found, double_sum(spectrum, basis, gram, ALPHAS), rtol=1e-4)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_of_features_do_not_change_what_is_neglected(rng, unit):
    spectrum, basis, gram = make_directions(rng, 12)
    plain = neglected(spectrum, basis, gram, ALPHAS)
    scaled = neglected(spectrum * unit, basis, gram * unit, ALPHAS * unit)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4)


def test_directions_that_were_dropped_neglect_nothing(rng):
    spectrum, basis, gram = make_directions(rng, 12)
    plain = neglected(spectrum, basis, gram, ALPHAS)
    padded = neglected(
        np.r_[np.zeros(3), spectrum],
        np.r_[np.zeros((3, basis.shape[1])), basis],
        np.pad(gram, ((3, 0), (3, 0))),
        ALPHAS,
    )
    np.testing.assert_allclose(padded, plain, rtol=1e-5)


@pytest.mark.parametrize("r", [129, 300, 384])
def test_many_directions_are_summed_in_groups(rng, r):
    problem = make_directions(rng, r, test=100)
    found = neglected(*problem, ALPHAS)
    # Neighbouring directions are alike, but not the same.
    np.testing.assert_allclose(found, double_sum(*problem, ALPHAS), rtol=0.05)


def test_neglected_terms_are_the_covariance_over_noise_targets(rng):
    spectrum, basis, gram = make_directions(rng, 20)
    num_targets = 40000
    w = basis @ rng.normal(size=(basis.shape[1], num_targets))
    errors = []
    for alpha in ALPHAS:
        z = w / (spectrum + alpha)[:, None]
        q, diagonal = (z * (gram @ z)).sum(axis=0), np.diag(gram) @ z**2
        errors.append((q - diagonal) / diagonal.mean())
    expected = np.cov(errors)
    found = np.asarray(neglected(spectrum, basis, gram, ALPHAS))
    spread = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.mean(errors, axis=1), 0, atol=5 / np.sqrt(num_targets))
    np.testing.assert_allclose(np.sqrt(np.diag(found)), spread, rtol=0.03)
    correlation = lambda c: c / np.sqrt(np.outer(np.diag(c), np.diag(c)))
    np.testing.assert_allclose(correlation(found), correlation(expected), atol=0.03)


def test_a_covariance_is_symmetric_and_of_no_negative_variance(rng):
    found = np.asarray(neglected(*make_directions(rng, 30), ALPHAS), np.float64)
    np.testing.assert_allclose(found, found.T, rtol=1e-5)
    assert np.linalg.eigvalsh(found).min() > -1e-5 * found.max()


learn = jax.jit(jax.vmap(search.learn))
propose = jax.jit(search.propose)


class Process:
    """A Gaussian process over penalties, conditioned by dense float64 algebra."""

    def __init__(self, rng, k=2, v=5, a=16):
        # Neighbouring penalties err alike, the more so the closer they are.
        distance = np.subtract.outer(np.arange(a), np.arange(a)) / 3
        self.prior = np.array([(0.02 + 0.1 * i) * np.exp(-(distance**2)) for i in range(k)])
        self.prior += 1e-4 * np.eye(a)
        self.cheap = rng.normal(size=(k, v, a)) ** 2 + 1
        self.scale = rng.uniform(0.2, 2, size=(k, v, a))
        root = np.linalg.cholesky(self.prior)
        self.truth = self.cheap + self.scale * np.einsum(
            "kab,kvb->kva", root, rng.normal(size=(k, v, a))
        )
        self.seen = np.empty((k, v, 0), int)

    def arrays(self):
        return narrow(self.prior, self.cheap, self.scale)

    def start(self):
        return search.believe(self.arrays()[0], self.cheap.shape[1])

    def observe(self, belief, place, new=None):
        """Return the belief after one more exact value of each target, or of the new ones."""
        prior, cheap, scale = self.arrays()
        new = jnp.ones(place.shape, bool) if new is None else new
        self.seen = np.concatenate([self.seen, place[..., None]], axis=2)
        exact = np.take_along_axis(self.truth, place[..., None], axis=2)[..., 0]
        observed = search.Observed(jnp.asarray(place, jnp.int32), *narrow(exact), new)
        return learn(belief, prior, search.Cheap(cheap, scale), observed)

    def posterior(self, f, t, remembered):
        """Return mean, variance and surprise of one target."""
        seen = self.seen[f, t, :remembered]
        x = ((self.truth - self.cheap) / self.scale)[f, t, seen]
        across = self.prior[f][:, seen]
        weights = np.linalg.solve(self.prior[f][np.ix_(seen, seen)], across.T).T
        variance = np.diag(self.prior[f]) - (weights * across).sum(axis=1)
        return weights @ x, variance, x @ np.linalg.solve(self.prior[f][np.ix_(seen, seen)], x)


def draw_places(rng, shape, a, number):
    return np.moveaxis(rng.permuted(np.broadcast_to(np.arange(a), (*shape, a)), axis=2), 2, 0)[
        :number
    ]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_learning_conditions_the_process(rng, number):
    process = Process(rng)
    k, v, a = process.cheap.shape
    belief = process.start()
    for place in draw_places(rng, (k, v), a, number):
        belief = process.observe(belief, place)
    for f in range(k):
        for t in range(v):
            mean, variance, surprise = process.posterior(f, t, number)
            largest = process.prior[f, 0, 0]
            np.testing.assert_allclose(belief.mean[f, t], mean, atol=2e-3 * largest**0.5)
            np.testing.assert_allclose(belief.variance[f, t], variance, atol=1e-3 * largest)
            np.testing.assert_allclose(belief.surprise[f, t], surprise, rtol=2e-3)
    np.testing.assert_array_equal(belief.count, number)


def test_exact_values_are_kept(rng):
    process = Process(rng)
    k, v, a = process.cheap.shape
    belief = process.start()
    places = draw_places(rng, (k, v), a, 3)
    for place in places:
        belief = process.observe(belief, place)
    expected = np.full((k, v, a), np.inf)
    np.put_along_axis(
        expected, process.seen, np.take_along_axis(process.truth, process.seen, axis=2), axis=2
    )
    np.testing.assert_allclose(belief.exact, expected, rtol=1e-6)


def test_what_exceeds_the_history_is_kept_but_teaches_nothing(rng):
    process = Process(rng)
    k, v, a = process.cheap.shape
    belief = process.start()
    states = []
    for place in draw_places(rng, (k, v), a, search.HISTORY + 2):
        belief = process.observe(belief, place)
        states.append(belief)
    full, after = states[search.HISTORY - 1], states[-1]
    for name in ("mean", "variance", "factors", "surprise"):
        np.testing.assert_array_equal(getattr(after, name), getattr(full, name))
    assert np.isfinite(np.asarray(after.exact)).sum(axis=2).min() == search.HISTORY + 2


def lower_bounds(process, remembered):
    """Return the lower bounds of all curves, exact values included."""
    k, v, a = process.cheap.shape
    low = np.empty((k, v, a))
    for f in range(k):
        for t in range(v):
            mean, variance, surprise = process.posterior(f, t, remembered)
            prior, seen = search.PRIOR_WEIGHT, process.seen[f, t]
            spread = max((prior + surprise) / (prior + len(seen)), 1)
            deviation = np.sqrt(np.maximum(variance, 0) * spread)
            low[f, t] = process.cheap[f, t] + process.scale[f, t] * (
                mean - search.WIDTH * deviation
            )
            low[f, t, seen] = process.truth[f, t, seen]
    return low


@pytest.mark.parametrize("number", [1, 3])
def test_the_next_penalty_has_the_lowest_bound(rng, number):
    process = Process(rng, v=60)
    # A narrower process leaves some of the targets in no doubt.
    process.scale *= 0.1
    process.truth = process.cheap + 0.1 * (process.truth - process.cheap)
    belief = process.start()
    for place in np.argsort(process.cheap, axis=2).transpose(2, 0, 1)[:number]:
        belief = process.observe(belief, place)
    place, need = propose(belief, search.Cheap(*process.arrays()[1:]))
    low = lower_bounds(process, number)
    best = np.take_along_axis(process.truth, process.seen, axis=2).min(axis=2)
    least = low.min(axis=2)
    # Away from ties, which rounding may break either way.
    second = np.sort(low, axis=2)[..., 1]
    clear = (second - least > 1e-3) & (np.abs(least - best * (1 - search.TOLERANCE)) > 1e-3)
    clear |= least == best
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(place)[clear], low.argmin(axis=2)[clear])
    np.testing.assert_array_equal(np.asarray(need)[clear], (least < best)[clear])
    assert {True, False} == set(np.asarray(need)[clear].tolist())


def test_targets_with_nothing_new_are_left_alone(rng):
    process = Process(rng)
    k, v, a = process.cheap.shape
    first, second = draw_places(rng, (k, v), a, 2)
    before = process.observe(process.start(), first)
    new = jnp.asarray(rng.random((k, v)) < 0.5)
    some, every = (process.observe(before, second, new=mask) for mask in (new, None))
    for old, partly, wholly in zip(before, some, every, strict=True):
        np.testing.assert_array_equal(np.asarray(partly)[new], np.asarray(wholly)[new])
        np.testing.assert_array_equal(np.asarray(partly)[~new], np.asarray(old)[~new])
    np.testing.assert_array_equal(some.count, 1 + np.asarray(new))


@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_the_least_of_curves_of_the_process(seed):
    process = Process(np.random.default_rng(seed), v=300)
    belief = process.observe(process.start(), process.cheap.argmin(axis=2))
    for _ in range(process.cheap.shape[2]):
        place, need = propose(belief, search.Cheap(*process.arrays()[1:]))
        belief = process.observe(belief, np.asarray(place), new=need)
    assert not np.asarray(need).any()
    found = np.asarray(search.last_argmin(belief.exact))
    assert (found == process.truth.argmin(axis=2)).mean() >= 0.999
    assert np.asarray(belief.count).mean() < 0.8 * process.cheap.shape[2]


def test_a_value_that_is_known_already_leaves_the_process_finite(rng):
    process = Process(rng)
    k, v, _ = process.cheap.shape
    belief = process.start()
    for _ in range(3):
        belief = process.observe(belief, np.full((k, v), 4))
    assert all(np.isfinite(np.asarray(x)).all() for x in (belief.mean, belief.variance))


def test_a_process_of_no_variance_stops_at_once(rng):
    cheap = search.Cheap(*Process(rng).arrays()[1:])
    k, v, a = cheap.curve.shape
    prior = jnp.zeros((k, a, a))
    belief = search.believe(prior, v)
    place = search.last_argmin(cheap.curve)
    exact = jnp.take_along_axis(cheap.curve, place[..., None], axis=2)[..., 0]
    belief = learn(belief, prior, cheap, search.Observed(place, exact, place >= 0))
    _, need = propose(belief, cheap)
    assert not np.asarray(need).any()
    np.testing.assert_array_equal(search.last_argmin(belief.exact), cheap.curve.argmin(axis=2))


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


def test_the_cost_is_the_mean_squared_error(rng):
    y, predicted = make_moments(rng)
    size = jnp.float32(len(y))
    found, slope = search.cost("squared_error", moments_of(y, predicted), size)
    np.testing.assert_allclose(found, ((y - predicted) ** 2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(slope, (predicted**2).mean(axis=0), rtol=1e-5)


def test_the_cost_is_the_negative_correlation(rng):
    y, predicted = (x - x.mean(axis=0) for x in make_moments(rng))
    size = jnp.float32(len(y))
    found, _ = search.cost("correlation", moments_of(y, predicted), size)
    expected = [-np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, predicted.T, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
def test_the_slope_of_the_cost_is_by_the_logarithm_of_the_squared_predictions(rng, criterion):
    y, predicted = (x - x.mean(axis=0) for x in make_moments(rng))
    moments, size = moments_of(y, predicted), jnp.float32(len(y))
    cost = lambda log_q: search.cost(criterion, moments._replace(q=jnp.exp(log_q)), size)[0].sum()
    _, slope = search.cost(criterion, moments, size)
    np.testing.assert_allclose(slope, np.abs(jax.grad(cost)(jnp.log(moments.q))), rtol=1e-4)


@pytest.mark.parametrize("zero", [["yy", "b"], ["b", "q"], ["yy", "b", "q"]])
def test_an_undefined_correlation_counts_as_none(zero):
    moments = Moments(*narrow([2.0], [1.0], [3.0]))
    moments = moments._replace(**dict.fromkeys(zero, jnp.zeros(1)))
    for found in search.cost("correlation", moments, jnp.float32(5)):
        np.testing.assert_array_equal(found, 0)


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
