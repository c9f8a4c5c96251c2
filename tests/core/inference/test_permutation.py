import itertools

import numpy as np
import pytest
import ridge_oracle
import tensorstore

from jaxalign.core import folds
from jaxalign.core.inference import orders, permutation
from jaxalign.core.inference import stats as stats_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method

RUN = np.repeat(["a", "b"], [17, 23])
N = len(RUN)
ALPHAS = np.logspace(-1, 3, 5)
METHOD, PLAIN = Method(ALPHAS), Method(ALPHAS, standardize=False)
OUTER = folds.contiguous_folds(RUN, 4, gap=1)
# One width of tiles for all fits, for one compilation.
TILE = 16
IN_TILES = Execution(tile=TILE)


def make_problem(rng, v=3):
    X = rng.normal(size=(N, 6))
    Y = X @ rng.normal(size=(6, v)) * np.linspace(0, 0.6, v) + rng.normal(size=(N, v))
    return X, Y


def assert_agrees(found, statistic, nulls, *, atol=1e-12):
    """Compare with p-values counted one by one."""
    np.testing.assert_allclose(found.statistic, statistic, atol=atol)
    np.testing.assert_allclose(found.null_mean, nulls.mean(axis=0), atol=atol)
    np.testing.assert_allclose(found.null_sd, nulls.std(axis=0), atol=atol)
    np.testing.assert_allclose(found.largest, nulls.max(axis=1), atol=atol)
    for t, own in enumerate(statistic):
        assert found.p[t] == (1 + sum(null >= own for null in nulls[:, t])) / (1 + len(nulls))
        above = sum(null >= own for null in nulls.max(axis=1))
        assert found.p_max[t] == (1 + above) / (1 + len(nulls))


def test_responses_in_every_order_are_columns(rng):
    y = rng.normal(size=(N, 3))
    drawn = orders.row_orders(RUN, num=4, rng=rng)
    permuted = permutation.Permuted(y, drawn)
    assert permuted.shape == (N, 15)
    expected = np.stack([y[:, t][o] for t in range(3) for o in [np.arange(N), *drawn]], axis=1)
    np.testing.assert_array_equal(permuted[:, 0:15], expected)
    np.testing.assert_array_equal(permuted[:, 3:11], expected[:, 3:11])
    assert permuted[:, 15:15].shape == (N, 0)
    stored = tensorstore.array(np.float32(y))
    found = permutation.Permuted(stored, drawn)[:, 4:9]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(expected)[:, 4:9])
    with pytest.raises(ValueError, match="All rows are read at a time"):
        permuted[2:4, 0:3]


SLOW = pytest.mark.slow


@pytest.fixture(
    params=["grid", pytest.param("loo", marks=SLOW), pytest.param("correlation", marks=SLOW)]
)
def method(request):
    return {
        "grid": METHOD,
        "loo": METHOD._replace(scheme="loo"),
        "correlation": PLAIN._replace(criterion="correlation"),
    }[request.param]


@pytest.mark.slow
def test_fitted_nulls_are_what_nested_makes_of_each_order(rng, method):
    X, Y = make_problem(rng, v=2)
    drawn = orders.block_orders(RUN, 3, num=12, rng=rng)
    found = permutation.permuted_fit(X, Y, OUTER, drawn, method, execution=IN_TILES)
    scores = [
        cv.nested(X, Y[order], OUTER, method).r.mean(axis=0) for order in [np.arange(N), *drawn]
    ]
    assert_agrees(found, scores[0], np.stack(scores[1:]), atol=2e-6)


@pytest.mark.slow
def test_fitted_nulls_match_float64(rng):
    """Every order is solved anew by NumPy, with the penalty that it chooses itself."""
    X, Y = make_problem(rng, v=1)
    drawn = orders.shift_orders(RUN, orders.draw_shifts(RUN, num=10, rng=rng))
    found = permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)

    def score(y):
        parts = []
        for fold in OUTER:
            costs = ridge_oracle.costs(X, y, fold.inner, ALPHAS, standardize=True)
            best = ALPHAS[costs["squared_error"][0].argmin(axis=0)]
            parts.append(ridge_oracle.scores(X, y, fold.outer, best, standardize=True)[0])
        return np.mean(parts, axis=0)

    nulls = np.stack([score(Y[order]) for order in drawn])
    assert_agrees(found, score(Y), nulls, atol=1e-5)


@SLOW
def test_devices_share_fitted_nulls(rng, mesh):
    X, Y = make_problem(rng)
    drawn = orders.row_orders([0] * N, num=40, rng=rng)
    one = permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)
    four = permutation.permuted_fit(
        X, Y, OUTER, drawn, METHOD, execution=IN_TILES._replace(mesh=mesh)
    )
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.slow
def test_constant_targets_are_undefined_in_fits_too(rng):
    X, Y = make_problem(rng)
    Y[:, 1] = 4.0
    drawn = orders.row_orders([0] * N, num=20, rng=rng)
    found = permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)
    alone = permutation.permuted_fit(X, Y[:, [0, 2]], OUTER, drawn, METHOD, execution=IN_TILES)
    assert np.isnan([x[1] for x in found[:5]]).all()
    np.testing.assert_allclose(found.p_max[[0, 2]], alone.p_max)
    np.testing.assert_allclose(found.largest, alone.largest, atol=2e-6)


def test_a_planted_signal_is_found_and_noise_is_not(rng):
    X, Y = make_problem(rng, v=4)
    Y[:, :2] = X @ rng.normal(size=(6, 2)) + 0.5 * rng.normal(size=(N, 2))
    Y[:, 2:] = rng.normal(size=(N, 2))
    drawn = orders.row_orders([0] * N, num=99, rng=rng)
    found = permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)
    assert (found.p_max[:2] == 1 / 100).all()
    assert (found.p_max[2:] > 1 / 100).all()


def test_what_is_no_permutation_is_refused(rng):
    X, Y = make_problem(rng)
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    with pytest.raises(ValueError, match=r"permutations of 40 samples, got \(0, 40\)"):
        permutation.permuted_fit(X, Y, OUTER, drawn[:0], METHOD)
    with pytest.raises(ValueError, match=r"permutations of 40 samples, got \(3, 39\)"):
        permutation.permuted_fit(X, Y, OUTER, drawn[:, 1:], METHOD)
    drawn[1, 0] = drawn[1, 1]
    with pytest.raises(ValueError, match=r"permutations of 0\.\.39: order 1 is none"):
        permutation.permuted_fit(X, Y, OUTER, drawn, METHOD)


def test_inputs_are_not_changed(rng):
    X, Y = make_problem(rng)
    before = X.copy(), Y.copy()
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(Y, before[1])


def test_compare_by_hand():
    statistic = np.array([0.5, 0.1, np.nan])
    nulls = np.array([[0.6, -0.2, 0.9], [0.1, 0.1, 0.9], [0.2, -0.3, 0.9], [-0.55, np.nan, 0.9]])
    found = stats_lib.compare(statistic, nulls)
    np.testing.assert_array_equal(found.p, [2 / 5, 3 / 5, np.nan])
    np.testing.assert_array_equal(found.largest, [0.6, 0.1, 0.2, -0.55])
    np.testing.assert_array_equal(found.p_max, [2 / 5, 4 / 5, np.nan])
    assert found.num_undefined.tolist() == [0, 1, 0]
    assert found.null_mean[1] == pytest.approx((-0.2 + 0.1 - 0.3) / 3)
    both = stats_lib.compare(statistic, nulls, alternative="two-sided")
    np.testing.assert_array_equal(both.p, [3 / 5, 1.0, np.nan])
    np.testing.assert_array_equal(both.largest, [0.6, 0.1, 0.3, 0.55])
    np.testing.assert_array_equal(both.p_max, [3 / 5, 1.0, np.nan])


def test_ties_within_rounding_count_against_a_target():
    nulls = np.array([[0.5 - 1e-7], [0.1]])
    assert stats_lib.compare(np.array([0.5]), nulls).p == [1 / 3]
    assert stats_lib.compare(np.array([0.5]), nulls, rounding=1e-6).p == [2 / 3]


def test_all_orders_give_every_rank_once(rng):
    """A response among all of its own orders: p is uniform, whatever the response is."""
    p, y = rng.normal(size=(2, 5))
    r = np.array(
        [np.corrcoef(p, y[list(order)])[0, 1] for order in itertools.permutations(range(5))]
    )
    found = [stats_lib.compare(r[[i]], np.delete(r, i)[:, None]).p[0] for i in range(len(r))]
    np.testing.assert_allclose(np.sort(found), np.arange(1, 121) / 120)


def test_no_targets_have_no_p():
    found = stats_lib.compare(np.empty(0), np.empty((3, 0)))
    assert found.p.shape == found.p_max.shape == (0,)


def test_fits_of_no_targets_are_refused(rng):
    X, Y = make_problem(rng)
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    with pytest.raises(ValueError, match="Y must have at least one target, got none"):
        permutation.permuted_fit(X, Y[:, :0], OUTER, drawn, METHOD)


def test_without_nulls_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="nulls must hold at least one per target, got none"):
        stats_lib.compare(np.zeros(3), np.zeros((0, 3)))
