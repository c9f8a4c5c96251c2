import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score

from jaxalign.core import folds
from jaxalign.core.solver import banded, cv, partition
from jaxalign.core.solver.banded import Budget, Features
from jaxalign.core.solver.method import Execution, Method

N, V = 60, 8
SIZES = (3, 5, 4)
BANDS = np.repeat(np.arange(3), SIZES)
ALPHAS = 10.0 ** np.arange(-1, 5)
PLAIN = Method(ALPHAS, standardize=False)
SCALED = Method(ALPHAS, standardize=True)
FIXED = Budget(0, num_draws=0, rounds=0)
SMALL = Budget(0, num_draws=4, rounds=2, groups=2)
FOLDS = folds.nest(3, 3, N)
SPLITS = folds.splits(3, N)


def make_problem(rng, sizes=SIZES, v=V):
    """Targets that follow bands to different degrees, in units and baselines of their own."""
    X = rng.normal(size=(N, sum(sizes))) * np.repeat([0.5, 2.0, 1.0], sizes) + 3
    bands = np.repeat(np.arange(3), sizes)
    share = rng.dirichlet(np.full(3, 0.5), size=v)
    Y = rng.normal(size=(N, v))
    for b in range(3):
        own = X[:, bands == b] - 3
        Y += np.sqrt(share[:, b] / own.var(axis=0).sum()) * (own @ rng.normal(size=(sizes[b], v)))
    return X, Y * np.logspace(-3, 3, v) + np.linspace(0, 100, v), bands


def candidates(num_bands):
    return [np.full(num_bands, 1 / num_bands), *np.eye(num_bands)]


def solve(X, Y, bands, weights, alphas):
    """Coefficients by the normal equations, each with its own penalty; float64."""
    coef = np.zeros((X.shape[1], Y.shape[1]))
    for j in range(Y.shape[1]):
        gamma = weights[bands, j]
        live = gamma > 0
        A = np.c_[X[:, live] - X[:, live].mean(axis=0), np.ones(len(X))]
        penalty = np.diag(np.r_[alphas[j] / gamma[live], 0])
        coef[live, j] = np.linalg.solve(A.T @ A + penalty, A.T @ Y[:, j])[:-1]
    return coef, Y.mean(axis=0) - X.mean(axis=0) @ coef


def predict(X, Y, split, alpha):
    """Slopes times features of the test samples, and the mean of training; one penalty, float64."""
    Z = X - X[split.train].mean(axis=0)
    R = Z[split.train]
    mean = Y[split.train].mean(axis=0)
    W = np.linalg.solve(R.T @ R + alpha * np.eye(R.shape[1]), R.T @ (Y[split.train] - mean))
    return Z[split.test] @ W, mean


def assert_same(a, b, names=("weights", "alphas", "cost", "score")):
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# One band is plain ridge.


@pytest.mark.slow
def test_one_band_chooses_as_plain_ridge(rng):
    X, Y, _ = make_problem(rng)
    found = banded.search(Features(X, np.zeros(12, int)), Y, SPLITS, PLAIN, Budget(0))
    plain = cv.select(X, Y, SPLITS, PLAIN)
    assert found.num_tried == 1
    np.testing.assert_array_equal(found.weights, 1)
    np.testing.assert_array_equal(found.alphas, plain.alphas)
    np.testing.assert_array_equal(found.penalties[0], plain.alphas)
    np.testing.assert_allclose(found.cost, plain.cost, rtol=1e-4)
    np.testing.assert_allclose(found.score, plain.score, atol=1e-5)


@pytest.mark.slow
def test_one_band_scores_as_plain_ridge(rng):
    X, Y, _ = make_problem(rng)
    ours = banded.nested(Features(X, np.zeros(12, int)), Y, FOLDS, PLAIN, Budget(0))
    plain = cv.nested(X, Y, FOLDS, PLAIN)
    np.testing.assert_array_equal(ours.alphas, plain.alphas)
    np.testing.assert_allclose(ours.r, plain.r, atol=1e-4)
    np.testing.assert_allclose(ours.r2, plain.r2, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.inner_score, plain.inner_score, atol=1e-4)
    fitted = banded.refit(
        Features(X, np.zeros(12, int)), Y, np.ones((1, V)), plain.alphas[0], PLAIN
    )
    expected = cv.refit(X, Y, plain.alphas[0], PLAIN)
    scale = np.abs(expected.coef).max(axis=0)
    np.testing.assert_allclose(fitted.coef / scale, expected.coef / scale, atol=1e-5)


# Against float64.


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize("standardize", [True, False])
def test_choices_match_the_oracle(rng, standardize, criterion):
    X, Y, bands = make_problem(rng)
    method = Method(ALPHAS, standardize=standardize, criterion=criterion)
    found = banded.search(Features(X, bands), Y, SPLITS, method, FIXED)
    Z = (X - X.mean(axis=0)) / X.std(axis=0) if standardize else X
    costs = []
    for gamma in candidates(3):
        each = np.zeros((len(SPLITS), len(ALPHAS), V))
        for i, a in np.ndindex(each.shape[:2]):
            slopes, mean = predict(Z * np.sqrt(gamma)[bands], Y, SPLITS[i], ALPHAS[a])
            y = Y[SPLITS[i].test]
            if criterion == "squared_error":
                each[i, a] = ((y - mean - slopes) ** 2).mean(axis=0)
            else:
                each[i, a] = [-np.corrcoef(*x)[0, 1] for x in zip(slopes.T, y.T, strict=True)]
        costs.append(np.mean(each, axis=0))
    costs = np.stack(costs)  # [c a v]
    flat = costs.reshape(-1, V)
    best, second = np.sort(flat, axis=0)[:2]
    np.testing.assert_allclose(found.cost, best, rtol=2e-4)
    decided = second > best + 1e-3 * np.abs(best)
    assert decided.sum() >= V / 2
    which, alpha = np.divmod(flat.argmin(axis=0), len(ALPHAS))
    weights = np.stack(candidates(3), axis=1)[:, which]
    np.testing.assert_array_equal(found.weights[:, decided], weights[:, decided])
    np.testing.assert_array_equal(found.alphas[decided], ALPHAS[alpha][decided])


@pytest.mark.parametrize("sizes", [SIZES, (3, 90, 4), (70, 90, 2)])
@pytest.mark.parametrize("standardize", [True, False])
def test_coefficients_match_the_oracle(rng, sizes, standardize):
    X, Y, bands = make_problem(rng, sizes)
    weights = rng.dirichlet([0.3, 0.3, 0.3], size=4).T[:, np.arange(V) % 4]
    weights[:, 2] = [0, 1, 0]
    alphas = rng.choice(ALPHAS, size=V)
    fitted = banded.refit(
        Features(X, bands), Y, weights, alphas, PLAIN._replace(standardize=standardize)
    )
    sd = X.std(axis=0) if standardize else np.ones(X.shape[1])
    coef, intercept = solve(X / sd, Y, bands, weights, alphas)
    coef = coef / sd[:, None]
    unit = Y.std(axis=0)
    np.testing.assert_allclose(fitted.coef / unit, coef / unit, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(fitted.intercept / unit, intercept / unit, rtol=1e-4, atol=1e-3)
    predicted = banded.predict_bands(Features(X, bands), fitted.coef).sum(axis=0) + fitted.intercept
    np.testing.assert_allclose(predicted / unit, (X @ coef + intercept) / unit, rtol=0, atol=1e-4)
    assert (fitted.coef[bands != 1][:, 2] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("sizes", [SIZES, (3, 90, 4)])
def test_held_out_scores_match_the_oracle(rng, sizes, standardize):
    X, Y, bands = make_problem(rng, sizes)
    method = Method(ALPHAS, standardize=standardize)
    result = banded.nested(Features(X, bands), Y, FOLDS, method, FIXED)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1)
    for i, fold in enumerate(FOLDS):
        sd = X[fold.outer.train].std(axis=0) if standardize else 1.0
        for j in range(V):
            scaled = X / sd * np.sqrt(result.weights[i, bands, j])
            slopes, mean = predict(scaled, Y[:, j], fold.outer, result.alphas[i, j])
            y = Y[fold.outer.test, j]
            r = np.corrcoef(slopes, y)[0, 1]
            assert result.r[i, j] == pytest.approx(r, abs=1e-4)
            assert result.r2[i, j] == pytest.approx(r2_score(y, slopes + mean), abs=1e-4, rel=1e-4)
    total = result.product_measure.sum(axis=1) + result.offset
    np.testing.assert_allclose(total, result.r2, atol=1e-10)
    assert (result.offset <= 0).all()


def test_matches_himalaya(rng):
    pytest.importorskip("himalaya")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from himalaya.ridge import solve_group_ridge_random_search
        from himalaya.scoring import correlation_score_split, r2_score_split

        X, Y, bands = make_problem(rng)
        Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
        gammas = np.array(candidates(3))
        options: Any = {
            "n_iter": np.maximum(gammas, 1e-9),  # it divides by them
            "alphas": ALPHAS,
            "fit_intercept": True,
            "cv": [tuple(split) for split in SPLITS],
            "return_weights": True,
            "progress_bar": False,
            "warn": False,
        }
        deltas, coef, scores, _ = solve_group_ridge_random_search(
            [X[:, bands == b] for b in range(3)],
            Y,
            **options,
        )
        budget = FIXED
        found = banded.search(Features(X, bands), Y, SPLITS, PLAIN, budget)
        np.testing.assert_allclose(found.cost, -np.asarray(scores).max(axis=0), rtol=1e-4)
        penalties = np.where(np.exp(-deltas) > 1e8, np.inf, np.exp(-deltas))
        np.testing.assert_allclose(found.penalties, penalties, rtol=1e-5)
        fitted = banded.refit(Features(X, bands), Y, found.weights, found.alphas, PLAIN)
        np.testing.assert_allclose(fitted.coef, coef, atol=1e-4)

        parts = banded.predict_bands(Features(X, bands), fitted.coef)
        parts = parts - parts.mean(axis=1, keepdims=True)
        ours, theirs = partition.product_measure(parts, Y), r2_score_split(Y, parts)
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
        ours, theirs = partition.correlation_split(parts, Y), correlation_score_split(Y, parts)
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


# Laws of the search.


@pytest.mark.slow
def test_penalties_are_those_of_weights_and_alphas(rng):
    X, Y, bands = make_problem(rng)
    found = banded.search(Features(X, bands), Y, SPLITS, PLAIN, SMALL)
    np.testing.assert_allclose(found.weights.sum(axis=0), 1)
    held = found.weights > 0
    expected = np.broadcast_to(found.alphas, held.shape)[held]
    np.testing.assert_allclose(found.weights[held] * found.penalties[held], expected)
    assert np.isinf(found.penalties[~held]).all()


@pytest.mark.slow
def test_the_cost_is_that_of_the_chosen_weights(rng):
    X, Y, bands = make_problem(rng)
    found = banded.search(Features(X, bands), Y, SPLITS, PLAIN, SMALL)
    for j in (0, 3):
        scaled = X * np.sqrt(found.weights[bands, j])
        again = cv.select(
            scaled, Y[:, j : j + 1], SPLITS, PLAIN._replace(alphas=found.alphas[j : j + 1])
        )
        assert found.cost[j] == pytest.approx(again.cost[0], rel=1e-4)
        assert found.score[j] == pytest.approx(again.score[0], abs=1e-4)


@pytest.mark.slow
def test_refinement_never_raises_the_cost(rng):
    X, Y, bands = make_problem(rng)
    costs, tried = [], []
    for rounds in (0, 1, 3):
        budget = Budget(1, num_draws=2, rounds=rounds, groups=2)
        found = banded.search(Features(X, bands), Y, SPLITS, PLAIN, budget)
        costs.append(found.cost)
        tried.append(found.num_tried)
    assert tried[0] == 6 < tried[1] <= 6 + 12 < tried[2] <= 6 + 36
    assert (costs[1] <= costs[0]).all() and (costs[2] <= costs[1]).all()
    assert (costs[2] < costs[0]).any()


def test_adaptive_search_costs_as_the_grid(rng):
    X, Y, bands = make_problem(rng)
    grid, adaptive = (
        banded.search(Features(X, bands), Y, SPLITS, PLAIN, FIXED, execution=Execution(search))
        for search in ("grid", "adaptive")
    )
    np.testing.assert_allclose(adaptive.cost, grid.cost, rtol=1e-4)


@pytest.mark.slow
def test_the_seed_decides(rng):
    X, Y, bands = make_problem(rng)
    first, again, other = (
        banded.search(Features(X, bands), Y, SPLITS, PLAIN, Budget(seed, 6, rounds=1, groups=1))
        for seed in (3, 3, 4)
    )
    assert_same(first, again)
    assert (first.weights != other.weights).any()


@pytest.mark.slow
def test_targets_do_not_interact_but_by_what_the_refinement_tries(rng):
    X, Y, bands = make_problem(rng)
    draws = Budget(0, num_draws=5, rounds=0)
    before = banded.search(Features(X, bands), Y, SPLITS, PLAIN, draws)
    changed = Y.copy()
    changed[:, 0] = 1e6 * rng.normal(size=N)
    changed[:, 1] = 0.3
    after = banded.search(Features(X, bands), changed, SPLITS, PLAIN, draws)
    for name in ("weights", "alphas", "cost", "score"):
        np.testing.assert_array_equal(
            getattr(after, name)[..., 2:], getattr(before, name)[..., 2:], err_msg=name
        )
    more = draws._replace(rounds=2)
    refined = banded.search(Features(X, bands), changed, SPLITS, PLAIN, more)
    assert (refined.cost[2:] <= before.cost[2:]).all()


@pytest.mark.slow
def test_permuting_targets_permutes_choices(rng):
    X, Y, bands = make_problem(rng)
    order = rng.permutation(V)
    plain = banded.search(Features(X, bands), Y, SPLITS, PLAIN, SMALL)
    permuted = banded.search(Features(X, bands), Y[:, order], SPLITS, PLAIN, SMALL)
    np.testing.assert_array_equal(permuted.weights, plain.weights[:, order])
    np.testing.assert_array_equal(permuted.alphas, plain.alphas[order])
    np.testing.assert_allclose(permuted.cost, plain.cost[order], rtol=1e-5)


@pytest.mark.slow
def test_columns_of_bands_may_be_in_any_order(rng):
    X, Y, bands = make_problem(rng)
    order = rng.permutation(len(bands))
    plain = banded.search(Features(X, bands), Y, SPLITS, SCALED, SMALL)
    mixed = banded.search(Features(X[:, order], bands[order]), Y, SPLITS, SCALED, SMALL)
    np.testing.assert_allclose(mixed.weights, plain.weights)
    fitted, other = (
        banded.refit(Features(x, b), Y, plain.weights, plain.alphas, SCALED)
        for x, b in ((X, bands), (X[:, order], bands[order]))
    )
    unit = Y.std(axis=0)
    np.testing.assert_allclose(other.coef / unit, fitted.coef[order] / unit, atol=1e-5)


def test_a_band_rotated_within_itself_is_the_same_band(rng):
    X, Y, bands = make_problem(rng)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    turned = X.copy()
    turned[:, bands == 1] = X[:, bands == 1] @ rotation
    plain = banded.search(Features(X, bands), Y, SPLITS, PLAIN, FIXED)
    other = banded.search(Features(turned, bands), Y, SPLITS, PLAIN, FIXED)
    np.testing.assert_allclose(other.cost, plain.cost, rtol=1e-5)


@pytest.mark.slow
def test_a_constant_target_has_no_score_and_equal_weights(rng):
    X, Y, bands = make_problem(rng)
    Y[:, 3] = 0.1
    found = banded.search(Features(X, bands), Y, SPLITS, PLAIN, SMALL)
    assert found.cost[3] == 0 and np.isnan(found.score[3])
    np.testing.assert_allclose(found.weights[:, 3], 1 / 3)
    Y[FOLDS[1].outer.test, 2] = 5.0
    result = banded.nested(Features(X, bands), Y, FOLDS, PLAIN, FIXED)
    expected = np.zeros((3, V), bool)
    expected[:, 3] = expected[1, 2] = True
    for scores in (result.r, result.r2, result.offset, *np.moveaxis(result.product_measure, 1, 0)):
        np.testing.assert_array_equal(np.isnan(scores), expected)


def test_a_constant_feature_counts_for_nothing(rng):
    X, Y, bands = make_problem(rng)
    X[:, 4] = 0.1
    weights, alphas = np.full((3, V), 1 / 3), np.full(V, 10.0)
    fitted = banded.refit(Features(X, bands), Y, weights, alphas, SCALED)
    assert (fitted.coef[4] == 0).all()
    live = np.arange(12) != 4
    other = banded.refit(Features(X[:, live], bands[live]), Y, weights, alphas, SCALED)
    unit = Y.std(axis=0)
    np.testing.assert_allclose(fitted.coef[live] / unit, other.coef / unit, atol=1e-6)


@pytest.mark.slow
def test_left_out_single_samples_choose_too(rng):
    X, Y, bands = make_problem(rng)
    method = Method(ALPHAS, standardize=False, scheme="loo")
    found = banded.search(Features(X, bands), Y, (), method, FIXED)
    equal = cv.select(X / np.sqrt(3), Y, (), method)
    assert (found.cost <= equal.cost * (1 + 1e-5)).all()
    train = FOLDS[1].outer.train
    within = banded.search(Features(X[train], bands), Y[train], (), method, FIXED)
    result = banded.nested(Features(X, bands), Y, FOLDS, method, FIXED)
    np.testing.assert_array_equal(result.weights[1], within.weights)
    np.testing.assert_array_equal(result.alphas[1], within.alphas)


@pytest.mark.slow
def test_held_out_responses_and_features_do_not_choose(rng):
    X, Y, bands = make_problem(rng)
    before = banded.nested(Features(X, bands), Y, FOLDS, SCALED, FIXED)
    test = FOLDS[2].outer.test
    X[test], Y[test] = 7 * X[test], rng.permutation(Y[test])
    after = banded.nested(Features(X, bands), Y, FOLDS, SCALED, FIXED)
    np.testing.assert_array_equal(after.weights[2], before.weights[2])
    np.testing.assert_array_equal(after.alphas[2], before.alphas[2])
    assert (after.weights[0] != before.weights[0]).any() or (
        after.alphas[0] != before.alphas[0]
    ).any()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_not_changed(rng, dtype):
    X, Y, bands = make_problem(rng)
    X, Y = X.astype(dtype), Y.astype(dtype)
    before = X.copy(), Y.copy(), bands.copy()
    banded.nested(Features(X, bands), Y, FOLDS, SCALED, FIXED)
    for array, old in zip((X, Y, bands), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.slow
def test_progress_sees_every_weight(rng):
    X, Y, bands = make_problem(rng)
    seen = []

    def progress(items):
        seen.append(len(items))
        return items

    found = banded.search(
        Features(X, bands), Y, SPLITS, PLAIN, SMALL, execution=Execution(progress=progress)
    )
    assert len(seen) == 3 and sum(seen) == found.num_tried


# Planted answers.


@pytest.mark.slow
def test_planted_bands_are_found_and_banded_beats_plain(rng):
    sizes, n, v = (6, 80), 120, 16
    bands = np.repeat([0, 1], sizes)
    X = rng.normal(size=(n, 86))
    Y = rng.normal(size=(n, v))
    own = np.arange(v) < v // 2
    for b, drives in ((0, own), (1, ~own)):
        signal = X[:, bands == b] @ rng.normal(size=(sizes[b], v)) / np.sqrt(sizes[b])
        Y[:, drives] += 1.5 * signal[:, drives]
    outer = folds.nest(3, 3, n)
    method = Method(10.0 ** np.arange(-1, 6), standardize=False)
    budget = Budget(0, num_draws=4, rounds=0)
    ours = banded.nested(Features(X, bands), Y, outer, method, budget)
    plain = cv.nested(X, Y, outer, method)
    weight = ours.weights.mean(axis=0)
    assert (weight[0] > weight[1])[own].mean() > 0.95
    assert (weight[1] > weight[0])[~own].mean() > 0.9
    assert ours.r2[:, own].mean() > plain.r2[:, own].mean() + 0.1
    assert ours.r2.mean() > plain.r2.mean() + 0.05
    part = ours.product_measure.mean(axis=0)
    assert part[0, own].mean() > 10 * abs(part[1, own].mean())
    assert part[1, ~own].mean() > 5 * abs(part[0, ~own].mean())


# Splits of the score.


def test_product_measure_adds_up_to_r2(rng):
    Y = rng.normal(size=(30, 5)) + 10
    parts = rng.normal(size=(3, 30, 5)) + rng.normal(size=(3, 1, 5))
    parts[0] += Y / 2
    split = partition.product_measure(parts, Y)
    total = parts.sum(axis=0)
    total += Y.mean(axis=0) - total.mean(axis=0)
    for j in range(5):
        assert split[:, j].sum() == pytest.approx(r2_score(Y[:, j], total[:, j]), abs=1e-12)
    shifted = partition.product_measure(parts + 7, Y - 3)
    np.testing.assert_allclose(shifted, split, atol=1e-10)


def test_product_measure_of_orthogonal_contributions_is_their_own_r2(rng):
    Q, _ = np.linalg.qr(np.c_[np.ones(20), rng.normal(size=(20, 3))])
    parts = np.stack([2 * Q[:, 1:2], 3 * Q[:, 2:3]])
    Y = parts.sum(axis=0) + Q[:, 3:4]
    np.testing.assert_allclose(partition.product_measure(parts, Y)[:, 0], [4 / 14, 9 / 14])


def test_correlation_split_adds_up_to_r(rng):
    Y = rng.normal(size=(30, 5)) + 10
    parts = rng.normal(size=(3, 30, 5)) + rng.normal(size=(3, 1, 5))
    split = partition.correlation_split(parts, Y)
    total = parts.sum(axis=0)
    for j in range(5):
        assert split[:, j].sum() == pytest.approx(np.corrcoef(total[:, j], Y[:, j])[0, 1])


def test_splits_of_what_is_constant_are_undefined(rng):
    Y, parts = rng.normal(size=(20, 3)), rng.normal(size=(2, 20, 3))
    Y[:, 0] = 0.1
    parts[:, :, 1] = 2.0
    assert np.isnan(partition.product_measure(parts, Y)[:, 0]).all()
    np.testing.assert_allclose(partition.product_measure(parts, Y)[:, 1], 0, atol=1e-12)
    undefined = np.isnan(partition.correlation_split(parts, Y))
    np.testing.assert_array_equal(undefined, [[True, True, False]] * 2)


# Variance partitioning.


def test_parts_of_two_bands_are_as_in_the_textbook(rng):
    a, b = frozenset("a"), frozenset("b")
    scores = {a: rng.normal(size=4), b: rng.normal(size=4), a | b: rng.normal(size=4)}
    parts = partition.variance_partition(scores)
    np.testing.assert_allclose(parts[a], scores[a | b] - scores[b])
    np.testing.assert_allclose(parts[b], scores[a | b] - scores[a])
    np.testing.assert_allclose(parts[a | b], scores[a] + scores[b] - scores[a | b])


@pytest.mark.parametrize("num_bands", [1, 2, 3, 4])
def test_parts_recover_an_additive_measure(rng, num_bands):
    """R2 of a set of bands is the sum of all parts in which any of them takes part."""
    subsets = [
        frozenset(s)
        for size in range(1, num_bands + 1)
        for s in itertools.combinations(range(num_bands), size)
    ]
    planted = {s: rng.normal(size=(2, 3)) for s in subsets}
    scores = {s: np.sum([planted[t] for t in subsets if t & s], axis=0) for s in subsets}
    parts = partition.variance_partition(scores)
    assert set(parts) == set(subsets) and len(parts) == 2**num_bands - 1
    for s in subsets:
        np.testing.assert_allclose(parts[s], planted[s], atol=1e-12)
    full = scores[frozenset(range(num_bands))]
    np.testing.assert_allclose(sum(parts.values()), full, atol=1e-12)


def test_parts_of_an_undefined_score_are_undefined():
    scores = {frozenset(s): np.array([0.1, np.nan]) for s in ("a", "b", "ab")}
    for part in partition.variance_partition(scores).values():
        np.testing.assert_array_equal(np.isnan(part), [False, True])


@pytest.mark.slow
def test_planted_unique_and_shared_parts_are_recovered(rng):
    n = 240
    common, a, b = (rng.normal(size=(n, 2)) for _ in range(3))
    # Both bands hold what is common.
    X, bands = np.hstack([common, a, common, b]), np.repeat([0, 1], 4)
    noise = rng.normal(size=n)
    Y = np.c_[common.sum(axis=1), a.sum(axis=1), (common + a + b).sum(axis=1), 0 * noise]
    Y = Y + noise[:, None]
    method, outer = Method(np.array([0.1, 1.0, 10.0]), standardize=False), folds.nest(3, 3, n)
    scores = {
        frozenset(s): cv.nested(X * np.isin(bands, s), Y, outer, method).r2
        for s in ((0,), (1,), (0, 1))
    }
    parts = partition.variance_partition(scores)
    found = np.stack([parts[frozenset(s)].mean(axis=0) for s in ((0,), (1,), (0, 1))])
    expected = [[0, 2 / 3, 2 / 7, 0], [0, 0, 2 / 7, 0], [2 / 3, 0, 2 / 7, 0]]
    np.testing.assert_allclose(found, expected, atol=0.1)
    np.testing.assert_allclose(sum(parts.values()), scores[frozenset((0, 1))], atol=1e-12)


# Refusals.


def edited(array, at, value):
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    "change, message",
    [
        ({"Y": lambda x: x[:-1]}, "Y must have one row per sample"),
        ({"Y": lambda x: x[:, :0]}, "Y must have at least one target"),
        ({"X": lambda x: edited(x, (0, 0), np.nan)}, "X must be finite"),
        ({"Y": lambda x: edited(x, (0, 0), np.inf)}, "Y must be finite"),
        ({"bands": lambda x: x + (x == 1) * 5}, r"each on at least one column; \[1, 3, 4, 5\]"),
        ({"bands": lambda x: x - 1}, "bands must be labelled 0, 1, ..., got -1"),
        ({"alphas": lambda x: edited(x, 0, 0.0)}, "alphas must be positive"),
        ({"alphas": lambda x: x[:0]}, "alphas must be positive"),
        ({"splits": lambda x: ()}, "splits must hold at least one split"),
    ],
)
def test_unfit_data_are_refused(rng, change, message):
    X, Y, bands = make_problem(rng)
    given = {"X": X, "Y": Y, "bands": bands, "splits": SPLITS, "alphas": ALPHAS}
    given |= {name: function(given[name]) for name, function in change.items()}
    with pytest.raises(ValueError, match=message):
        banded.search(
            Features(given["X"], given["bands"]),
            given["Y"],
            given["splits"],
            PLAIN._replace(alphas=given["alphas"]),
            FIXED,
        )


def test_labels_of_other_columns_are_refused(rng, unchecked):
    X, Y, bands = make_problem(rng)
    with pytest.raises(ValueError, match="a label for each column of X: X has 12, bands"):
        banded.search(Features(X, bands[:-1]), Y, SPLITS, PLAIN, Budget(0))
    with pytest.raises(ValueError, match="X must have at least one column"):
        banded.search(Features(X[:, :0], bands[:0]), Y, SPLITS, PLAIN, Budget(0))
    with pytest.raises(ValueError, match="bands must be integers"):
        banded.search(Features(X, bands + 0.5), Y, SPLITS, PLAIN, Budget(0))
    with pytest.raises(ValueError, match=r"of 3 bands and 8 targets, got \(2, 8\)"):
        banded.refit(Features(X, bands), Y, np.ones((2, V)), np.ones(V), PLAIN)


@pytest.mark.parametrize(
    "budget, message",
    [
        (Budget(0, num_draws=-1), "budget must not be negative"),
        (Budget(0, rounds=-1), "budget must not be negative"),
        (Budget(0, concentrations=()), "concentrations must be positive"),
        (Budget(0, concentrations=(1.0, 0.0)), "concentrations must be positive"),
        (Budget(0, concentrations=(np.nan,)), "concentrations must be positive"),
    ],
)
def test_a_senseless_budget_is_refused(rng, budget, message):
    X, Y, bands = make_problem(rng)
    with pytest.raises(ValueError, match=message):
        banded.search(Features(X, bands), Y, SPLITS, PLAIN, budget)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_negative_weights_are_refused(rng, value):
    X, Y, bands = make_problem(rng)
    weights = edited(np.ones((3, V)), (0, 0), value)
    with pytest.raises(ValueError, match="weights must be >= 0 and finite"):
        banded.refit(Features(X, bands), Y, weights, np.ones(V), PLAIN)


def test_folds_without_inner_splits_are_refused(rng):
    X, Y, bands = make_problem(rng)
    with pytest.raises(ValueError, match="folds must hold at least one fold"):
        banded.nested(Features(X, bands), Y, (), PLAIN, Budget(0))
    bare = [fold._replace(inner=()) for fold in FOLDS]
    with pytest.raises(ValueError, match="Every outer fold must have inner splits"):
        banded.nested(Features(X, bands), Y, bare, PLAIN, Budget(0))


def test_an_incomplete_partition_is_refused():
    one = np.zeros(2)
    with pytest.raises(ValueError, match=r"1 are missing, the first is \['b'\]"):
        partition.variance_partition({frozenset("a"): one, frozenset("ab"): one})
    with pytest.raises(ValueError, match="at least one band"):
        partition.variance_partition({})
