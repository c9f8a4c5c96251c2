import functools
import itertools

import numpy as np
import pytest
import ridge_oracle
import tensorstore
from scipy import stats as scipy_stats

from jaxalign.core import folds
from jaxalign.core.inference import orders, permutation
from jaxalign.core.inference import stats as stats_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method

RUN = np.repeat(["a", "b"], [17, 23])
N = len(RUN)
BLOCKS = np.array_split(np.arange(N), 4)  # the second has samples of both runs
ALPHAS = np.logspace(-1, 3, 5)
METHOD, PLAIN = Method(ALPHAS), Method(ALPHAS, standardize=False)
OUTER = folds.contiguous_folds(RUN, 4, gap=1)
# One width of tiles for all fits, for one compilation.
TILE = 16
IN_TILES = Execution(tile=TILE)


def make_pair(rng, v=3):
    """Return predictions and responses that agree ever more."""
    y = rng.normal(size=(N, v))
    return rng.normal(size=(N, v)) + np.linspace(0, 1, v) * y, y


def make_problem(rng, v=3):
    X = rng.normal(size=(N, 6))
    Y = X @ rng.normal(size=(6, v)) * np.linspace(0, 0.6, v) + rng.normal(size=(N, v))
    return X, Y


def mean_r(p, y, blocks):
    """Pearson r within each block, averaged, by NumPy."""
    return np.array(
        [np.mean([np.corrcoef(p[b, t], y[b, t])[0, 1] for b in blocks]) for t in range(p.shape[1])]
    )


def by_hand(p, y, blocks, orders_):
    statistic = mean_r(p, y, blocks)
    nulls = np.stack([mean_r(p, y[order], blocks) for order in orders_])
    return statistic, nulls


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


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_all_permutations_give_the_exact_test_of_scipy(rng, alternative):
    p, y = rng.normal(size=(2, 6, 2))
    y[:, 1] = [0, 1, 1, 2, 2, 2]  # many orders tie
    every = np.array(list(itertools.permutations(range(6))))[1:]
    found = permutation.permuted_correlation(p, y, [np.arange(6)], every, alternative=alternative)

    def statistic(a, b):
        r = np.corrcoef(a, b)[0, 1]
        return abs(r) if alternative == "two-sided" else r

    for t in range(2):
        exact = scipy_stats.permutation_test(
            (y[:, t],),
            functools.partial(statistic, p[:, t]),
            permutation_type="pairings",
            n_resamples=np.inf,
            alternative="greater",
        )
        assert found.p[t] == pytest.approx(exact.pvalue, abs=1e-12)


def test_permutations_match_numpy(rng):
    p, y = make_pair(rng)
    drawn = orders.row_orders(RUN, num=30, rng=rng)
    found = permutation.permuted_correlation(p, y, BLOCKS, drawn)
    assert_agrees(found, *by_hand(p, y, BLOCKS, drawn))
    assert found.num_undefined.tolist() == [0, 0, 0]


def test_shifts_match_numpy(rng):
    p, y = make_pair(rng)
    shifts = orders.draw_shifts(RUN, least=3, num=30, rng=rng)
    found = permutation.shifted_correlation(p, y, BLOCKS, RUN, shifts)
    rolled = [
        np.concatenate([np.roll(np.arange(17), a), 17 + np.roll(np.arange(23), b)])
        for a, b in shifts
    ]
    assert_agrees(found, *by_hand(p, y, BLOCKS, rolled))


def test_every_shift_of_a_single_run(rng):
    p, y = make_pair(rng, v=1)
    shifts = orders.draw_shifts([0] * N, num=N, rng=rng)
    assert len(shifts) == N - 1
    found = permutation.shifted_correlation(p, y, [np.arange(N)], [0] * N, shifts)
    r = [np.corrcoef(p[:, 0], np.roll(y[:, 0], s))[0, 1] for s in range(N)]
    assert found.p[0] == np.mean(np.array(r) >= r[0] - 1e-12)


def test_shifts_and_orders_are_the_same_on_interleaved_runs_and_partial_blocks(rng):
    p, y = make_pair(rng)
    run = rng.permutation(RUN)
    blocks = [np.array([1, 5, 9, 20]), np.arange(25, 39, 2)]
    p[[0, 2]] = np.nan  # never tested, never predicted
    shifts = orders.draw_shifts(run, num=40, rng=rng)
    one = permutation.shifted_correlation(p, y, blocks, run, shifts)
    other = permutation.permuted_correlation(p, y, blocks, orders.shift_orders(run, shifts))
    assert_agrees(one, *by_hand(p, y, blocks, orders.shift_orders(run, shifts)))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_large_baselines_and_small_units_change_nothing(rng):
    p, y = make_pair(rng)
    shifts = orders.draw_shifts(RUN, num=40, rng=rng)
    plain = permutation.shifted_correlation(p, y, BLOCKS, RUN, shifts)
    changed = permutation.shifted_correlation(1e-8 * p + 3, 1e4 + 1e-1 * y, BLOCKS, RUN, shifts)
    np.testing.assert_allclose(changed.statistic, plain.statistic, atol=1e-6)
    np.testing.assert_allclose(changed.largest, plain.largest, atol=1e-6)


@pytest.mark.parametrize("shifted", [False, True])
def test_predictions_that_barely_vary_beside_their_mean_have_a_correlation(rng, shifted):
    """As those of the largest penalties do, of responses with a large baseline."""
    p, y = make_pair(rng)
    shifts = orders.draw_shifts(RUN, num=40, rng=rng)
    small = 1e3 + 1e-6 * p

    def run(p):
        if shifted:
            return permutation.shifted_correlation(p, y, BLOCKS, RUN, shifts)
        return permutation.permuted_correlation(p, y, BLOCKS, orders.shift_orders(RUN, shifts))

    np.testing.assert_allclose(run(small).statistic, run(p).statistic, atol=1e-6)
    assert np.isnan(run(np.float32(small)).statistic).all()


def undefined_pair(rng):
    """Return a pair whose target 1 is constant, 2 unpredicted in a block, 3 NaN, 4 rarely moves."""
    p, y = make_pair(rng, v=5)
    y[:, 1] = 7.0
    p[BLOCKS[2], 2] = 0.5
    y[3, 3] = np.nan
    y[:, 4] = 0.0
    y[[2, 12, 21, 33], 4] = 1.0
    return p, y


@pytest.mark.parametrize("shifted", [False, True])
def test_undefined_targets_stay_undefined_and_do_not_count(rng, shifted):
    p, y = undefined_pair(rng)
    shifts = orders.draw_shifts(RUN, least=2, num=50, rng=rng)
    drawn = orders.shift_orders(RUN, shifts)

    def run(own):
        if shifted:
            return permutation.shifted_correlation(p[:, own], y[:, own], BLOCKS, RUN, shifts)
        return permutation.permuted_correlation(p[:, own], y[:, own], BLOCKS, drawn)

    found, alone = run([0, 1, 2, 3, 4]), run([0, 4])
    for x in found[:5]:
        assert np.isnan(x[1:4]).all()
        assert np.isfinite(x[[0, 4]]).all()
    for a, b in zip(found[:5], alone[:5], strict=True):
        np.testing.assert_array_equal(a[[0, 4]], b)
    np.testing.assert_array_equal(found.largest, alone.largest)
    # Orders that leave a block without the rare event have no score, and count against it.
    without = [any(np.ptp(y[order][b, 4]) == 0 for b in BLOCKS) for order in drawn]
    assert 0 < sum(without) < 50
    assert found.num_undefined[4] == sum(without)
    assert found.p[4] >= (1 + sum(without)) / 51
    assert found.p_max[4] >= found.p[4]


def test_targets_do_not_depend_on_their_tile(rng, monkeypatch):
    p, y = make_pair(rng, v=6)
    shifts = orders.draw_shifts(RUN, num=30, rng=rng)
    whole = permutation.shifted_correlation(p, y, BLOCKS, RUN, shifts)
    # Three at a time: sums of 4 blocks and 31 orders, the shift by nothing included.
    monkeypatch.setattr(permutation, "MAX_SUMS", 3 * 4 * 31)
    seen = []
    parts = permutation.shifted_correlation(
        p, y, BLOCKS, RUN, shifts, progress=lambda tiles: (seen.append(tiles), tiles)[1]
    )
    assert seen == [[range(3), range(3, 6)]]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


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


def test_fitted_nulls_match_float64(rng):
    """Every order is solved anew by NumPy, with the penalty that it chooses itself."""
    X, Y = make_problem(rng, v=1)
    drawn = orders.shift_orders(RUN, orders.draw_shifts(RUN, least=2, num=10, rng=rng))
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
    fitted = cv.nested(X, Y, OUTER, METHOD)
    predicted = cv.held_out(X, Y, OUTER, fitted.alphas, METHOD)
    blocks = [fold.outer.test for fold in OUTER]
    drawn = orders.row_orders([0] * N, num=99, rng=rng)
    given = permutation.permuted_correlation(predicted, Y, blocks, drawn)
    np.testing.assert_allclose(given.statistic, fitted.r.mean(axis=0), atol=1e-5)
    refitted = permutation.permuted_fit(X, Y, OUTER, drawn, METHOD, execution=IN_TILES)
    for found in (given, refitted):
        assert (found.p_max[:2] == 1 / 100).all()
        assert (found.p_max[2:] > 1 / 100).all()


def test_the_test_of_permuted_responses_is_exact(rng):
    """A response among all of its own orders has every rank once: p is uniform, whatever it is."""
    p, y = rng.normal(size=(2, 5, 1))
    every = np.array(list(itertools.permutations(range(5))))
    found = [
        permutation.permuted_correlation(p, y[order], [np.arange(5)], every[1:]).p[0]
        for order in every
    ]
    np.testing.assert_allclose(np.sort(found), np.arange(1, 121) / 120)


def test_what_does_not_fit_together_is_refused(rng):
    p, y = make_pair(rng)
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    shifts = orders.draw_shifts(RUN, num=3, rng=rng)
    with pytest.raises(ValueError, match="one column for each of 2 runs, got 1"):
        permutation.shifted_correlation(p, y, BLOCKS, RUN, shifts[:, :1])
    with pytest.raises(ValueError, match="label all 40 samples, got 39 labels"):
        permutation.shifted_correlation(p, y, BLOCKS, RUN[:-1], shifts)
    with pytest.raises(ValueError, match=r"permutations of 40 samples, got \(0, 40\)"):
        permutation.permuted_correlation(p, y, BLOCKS, drawn[:0])
    twice = drawn.copy()
    twice[1, 0] = twice[1, 1]
    with pytest.raises(ValueError, match=r"permutations of 0\.\.39: order 1 is none"):
        permutation.permuted_correlation(p, y, BLOCKS, twice)
    with pytest.raises(ValueError, match="order 1 is none"):
        permutation.permuted_fit(p, y, OUTER, twice, METHOD)
    with pytest.raises(ValueError, match="blocks must hold at least one, got none"):
        permutation.permuted_correlation(p, y, [], drawn)
    with pytest.raises(ValueError, match="at least 2 samples, 1 has 1"):
        permutation.permuted_correlation(p, y, [BLOCKS[0], BLOCKS[1][:1]], drawn)
    with pytest.raises(ValueError, match="each sample once: 1 repeats one"):
        permutation.permuted_correlation(p, y, [np.arange(20), np.arange(19, N)], drawn)
    with pytest.raises(ValueError, match="each sample once: 0 repeats one"):
        permutation.permuted_correlation(p, y, [np.array([0, 0, 1])], drawn)


def test_other_targets_and_samples_are_refused(rng, unchecked):
    p, y = make_pair(rng)
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    with pytest.raises(ValueError, match=r"one shape, got \(40, 3\) and \(40, 2\)"):
        permutation.permuted_correlation(p, y[:, :2], BLOCKS, drawn)
    with pytest.raises(ValueError, match=r"permutations of 40 samples, got \(3, 39\)"):
        permutation.permuted_correlation(p, y, BLOCKS, drawn[:, 1:])


def test_inputs_are_not_changed(rng):
    p, y = make_pair(rng)
    X = rng.normal(size=(N, 6))
    before = p.copy(), y.copy(), X.copy()
    drawn = orders.row_orders(RUN, num=3, rng=rng)
    permutation.permuted_correlation(p, y, BLOCKS, drawn)
    permutation.permuted_fit(X, y, OUTER, drawn, METHOD, execution=IN_TILES)
    np.testing.assert_array_equal(p, before[0])
    np.testing.assert_array_equal(y, before[1])
    np.testing.assert_array_equal(X, before[2])


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


def test_without_nulls_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="nulls must hold at least one per target, got none"):
        stats_lib.compare(np.zeros(3), np.zeros((0, 3)))
