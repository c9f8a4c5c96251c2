"""One penalty for many targets."""

import numpy as np
import pytest
import ridge_oracle
from solver_problems import (
    ALPHAS,
    DISTINCT_ALPHAS,
    MANY,
    TILE,
    assert_scores,
    curves,
    gapped_folds,
    make_many,
    make_problem,
    many_targets,
    nested,
    select,
)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize(
    "form, num_groups, tile", [("primal", 1, None), ("primal", 7, TILE), ("sums", 7, None)]
)
def test_pooled_penalties_match_the_oracle(num_groups, form, criterion, tile):
    X, Y, _ = many_targets("plain", 10)
    Y = Y / np.maximum(Y.std(axis=0), 1e-9)
    pool = np.random.default_rng(0).integers(num_groups, size=MANY)
    folds = gapped_folds()
    result = nested(X, Y, folds, ALPHAS, pool=pool, form=form, criterion=criterion, tile=tile)
    for i, fold in enumerate(folds):
        every = ridge_oracle.costs(X, Y, fold.inner, ALPHAS, standardize=True)
        costs, null = every[criterion]
        for group in range(num_groups):
            own = pool == group
            curve = costs[:, own].mean(axis=1)
            assert set(result.alphas[i, own]) == {ALPHAS[curve.argmin()]}
            score = -curve.min()
            if criterion == "squared_error":
                score = 1 + score / null[own].mean()
            np.testing.assert_allclose(result.inner_score[i, own], score, atol=1e-5)
    assert_scores(result, X, Y, folds, standardize=True)


def test_pooled_errors_are_in_the_units_of_the_targets(rng):
    X, Y = make_problem(rng)
    Y = Y[:, [0, 7]] / Y[:, [0, 7]].std(axis=0)
    pool = np.zeros(2, int)
    alone = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS)
    assert (alone.alphas[:, 0] != alone.alphas[:, 1]).all()
    for j in range(2):
        # The louder target has its way.
        louder = nested(
            X, Y * 1e4 ** (np.arange(2) == j), gapped_folds(), DISTINCT_ALPHAS, pool=pool
        )
        np.testing.assert_array_equal(louder.alphas, alone.alphas[:, [j, j]])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["loo", "gcv"])
def test_pools_go_with_any_scheme(scheme):
    X, Y = make_many(10)
    pool = np.arange(200) % 3
    apart = curves(X, Y, (), ALPHAS, scheme=scheme)
    pooled = select(X, Y, (), ALPHAS, scheme=scheme, pool=pool)
    for group in range(3):
        curve = apart[:, pool == group].mean(axis=1)
        assert set(pooled.alphas[pool == group]) == {ALPHAS[curve.argmin()]}


def test_pools_name_every_target(rng, unchecked):
    with pytest.raises(ValueError, match=r"for each of 10 targets, got \(9,\)"):
        nested(*make_problem(rng), gapped_folds(), ALPHAS, pool=np.zeros(9, int))
