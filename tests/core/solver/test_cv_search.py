"""The adaptive search finds what the grid finds."""

import functools

import numpy as np
import pytest
from solver_problems import (
    ALPHAS,
    DISTINCT_ALPHAS,
    assert_bar,
    assert_same,
    costs_of_folds,
    gapped_folds,
    many_targets,
    nested,
)

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import outline

DENSE_ALPHAS = np.logspace(-3, 5, 60)


def autoregressive(rng, shape, phi=0.9):
    """Series of unit variance along the first axis."""
    x = rng.normal(size=shape)
    for t in range(1, len(x)):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x


def white(rng, shape):
    return rng.normal(size=shape)


@functools.cache
def hard_problem(kind, p, n=200, num_targets=800):
    """Half of the targets are noise; of the others, half depend on two features alone."""
    rng = np.random.default_rng(2)
    draw = white if kind == "white" else autoregressive
    X = draw(rng, (n, p)) / np.sqrt(np.arange(1, p + 1))
    weights = rng.normal(size=(p, num_targets))
    weights[2:, ::2] = 0
    # A strong direction, and a weak one that only a small penalty reaches: two minima.
    weights[-1, ::4] = np.sqrt(p) * 3
    signal = X @ weights
    gain = rng.choice([0.0, 0.0, 0.5, 2.0], size=num_targets)
    Y = gain * signal / signal.std(axis=0) + draw(rng, (n, num_targets))
    folds = folds_lib.nest(5, 4, n)
    return X, Y, folds


@functools.cache
def hard_costs(kind, p, alphas):
    X, Y, folds = hard_problem(kind, p)
    return costs_of_folds(X, Y, folds, np.array(alphas), False)


def count_minima(costs):
    """Count the local minima of curves [.. a v]."""
    edge = np.full((*costs.shape[:-2], 1, costs.shape[-1]), np.inf)
    padded = np.concatenate([edge, costs, edge], axis=-2)
    inside = padded[..., 1:-1, :]
    return ((inside < padded[..., :-2, :]) & (inside < padded[..., 2:, :])).sum(axis=-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "criterion,search",
    [("squared_error", "bound"), ("squared_error", "adaptive"), ("correlation", "adaptive")],
)
@pytest.mark.parametrize(
    "p, kind, alphas",
    [
        # Too few directions: the grid.
        (50, "white", ALPHAS),
        (120, "white", ALPHAS),
        (120, "autoregressive", DENSE_ALPHAS),
        (50, "white", DENSE_ALPHAS),
        (50, "autoregressive", ALPHAS),
        (260, "white", DENSE_ALPHAS),
        (260, "autoregressive", DENSE_ALPHAS),
    ],
    ids=lambda x: str(len(x)) if isinstance(x, np.ndarray) else str(x),
)
def test_the_search_finds_the_best_penalty(p, kind, alphas, criterion, search):
    X, Y, folds = hard_problem(kind, p)
    costs, _ = hard_costs(kind, p, tuple(alphas))[criterion]
    assert (count_minima(costs) > 1).mean() > 2e-3
    result = nested(X, Y, folds, alphas, standardize=False, criterion=criterion, search=search)
    assert_bar(result.alphas, costs, alphas, criterion)
    # Where it finds another, that one must be nearly as good.
    place = np.searchsorted(alphas, result.alphas)[:, None]
    lost = np.take_along_axis(costs, place, axis=1)[:, 0] - costs.min(axis=1)
    scale = costs.min(axis=1) if criterion == "squared_error" else 1.0
    assert (lost / scale).max() < 0.05
    by_bound = search == "bound" and p >= outline.MIN_DIRECTIONS
    assert (result.num_computed.mean() < len(alphas) / 2) == by_bound


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "dual", "sums"])
def test_the_search_by_bound_finds_what_the_grid_finds(form):
    X, Y, folds = hard_problem("white", 120)
    grid, by_bound = (
        nested(X, Y, folds, ALPHAS, standardize=False, search=search, form=form)
        for search in ("grid", "bound")
    )
    same = grid.alphas == by_bound.alphas
    assert same.mean() > 0.998
    np.testing.assert_array_equal(grid.r[same], by_bound.r[same])
    np.testing.assert_array_equal(grid.num_computed, len(ALPHAS))
    np.testing.assert_allclose(by_bound.inner_score[same], grid.inner_score[same], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
def test_a_target_alone_is_searched_as_among_others(criterion):
    X, Y, _ = many_targets("plain", 10)
    options = {"search": "adaptive", "criterion": criterion}
    together = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    for columns in ([3], [17], list(range(100, 112))):
        few = nested(X, Y[:, columns], gapped_folds(), DISTINCT_ALPHAS, **options)
        assert_same(few, together, columns)
        np.testing.assert_array_equal(few.num_computed, together.num_computed[:, columns])
