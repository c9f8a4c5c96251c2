"""What the solver refuses."""

import numpy as np
import pytest
from solver_problems import (
    ALPHAS,
    TILE,
    equal_folds,
    gapped_folds,
    make_problem,
    many_targets,
    nested,
    refit,
    select,
)


def test_rows_must_agree(rng, unchecked):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match="one row per sample of X: X has 60, Y has 59"):
        nested(X, Y[1:], gapped_folds(), ALPHAS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["X", "Y"])
def test_features_and_targets_must_be_finite(rng, which, value):
    X, Y = make_problem(rng)
    {"X": X, "Y": Y}[which][7, 3] = value
    for run in (
        lambda: nested(X, Y, gapped_folds(), ALPHAS),
        lambda: select(X, Y, equal_folds()[0].inner, ALPHAS),
        lambda: refit(X, Y, np.ones(10)),
    ):
        with pytest.raises(ValueError, match=f"{which} must be finite: it holds NaN or infinity"):
            run()


def test_no_targets_are_refused(rng):
    X, Y = make_problem(rng)
    for run in (
        lambda: nested(X, Y[:, :0], gapped_folds(), ALPHAS),
        lambda: select(X, Y[:, :0], equal_folds()[0].inner, ALPHAS),
        lambda: refit(X, Y[:, :0], np.ones(0)),
    ):
        with pytest.raises(ValueError, match="Y must have at least one target, got none"):
            run()


@pytest.mark.slow
def test_the_tile_with_a_missing_value_is_named():
    X, Y, _ = many_targets("plain", 10)
    Y = Y.copy()
    Y[3, 250] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in columns 240\.\.319"):
        nested(X, Y, gapped_folds(), ALPHAS, tile=TILE)


@pytest.mark.parametrize(
    "alphas", [[], [0.0, 1.0], [0.0, 0.0], [1.0, -1.0], [-1.0], [1.0, np.nan], [1.0, np.inf]]
)
def test_penalties_must_be_positive(rng, alphas):
    for run in (nested, lambda *args: select(*args[:2], args[2][0].inner, args[3])):
        with pytest.raises(ValueError, match=r"alphas must be positive \(or 0 alone\)"):
            run(*make_problem(rng), gapped_folds(), np.array(alphas, float))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scheme": "gcv", "criterion": "correlation"}, "'gcv' is defined for squared errors"),
        (
            {"scheme": "loo", "criterion": "relative_error"},
            "'relative_error' is of a test set's variance, so it goes with scheme 'folds'",
        ),
        ({"scheme": "loo", "form": "sums"}, "form 'sums' goes with scheme 'folds'.*got 'loo'"),
        ({"scheme": "gcv", "form": "sums"}, "form 'sums' goes with scheme 'folds'.*got 'gcv'"),
        ({"intercept": False, "form": "sums"}, "'folds' and an intercept, got 'folds' and False"),
        ({"tile": 0}, "tile must be >= 1, got 0"),
        ({"pool": -np.ones(10, int)}, "pool must hold a group >= 0 for each of 10 targets"),
    ],
)
def test_options_that_do_not_go_together_are_refused(rng, options, message):
    with pytest.raises(ValueError, match=message):
        nested(*make_problem(rng), gapped_folds(), ALPHAS, **options)


def test_folds_without_inner_splits_are_refused(rng):
    folds = [gapped_folds()[0], gapped_folds()[1]._replace(inner=())]
    with pytest.raises(ValueError, match="Outer fold 1 must have inner splits, got none"):
        nested(*make_problem(rng), folds, ALPHAS)
    with pytest.raises(ValueError, match="must have inner splits, got none"):
        select(*make_problem(rng), (), ALPHAS)


@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("level", ["outer", "inner"])
@pytest.mark.parametrize("form", ["primal", "sums"])
def test_empty_sides_are_refused(rng, side, level, form):
    first, *others = gapped_folds()
    nothing = {side: np.zeros(0, int)}
    if level == "outer":
        first = first._replace(outer=first.outer._replace(**nothing))
    else:
        first = first._replace(inner=(first.inner[0]._replace(**nothing), *first.inner[1:]))
    with pytest.raises(ValueError, match="must have samples to|must train on at least"):
        nested(*make_problem(rng), [first, *others], ALPHAS, form=form)


def test_no_folds_are_refused(rng):
    with pytest.raises(ValueError, match="folds"):
        nested(*make_problem(rng), [], ALPHAS)


@pytest.mark.parametrize("name", ["search", "form"])
def test_unknown_ways_of_computing_are_refused(rng, unchecked, name):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got 'guess'"):
        nested(X, Y, gapped_folds(), ALPHAS, **{name: "guess"})
