"""Scores and penalties of the solver against float64, scikit-learn and each other."""

import functools
import itertools

import numpy as np
import pytest
import ridge_oracle
from scipy import stats
from sklearn import model_selection
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from solver_problems import (
    ALPHAS,
    COLUMNS,
    DISTINCT_ALPHAS,
    GROUPS,
    SLOW,
    N,
    assert_bar,
    assert_scores,
    costs_of_folds,
    equal_folds,
    gapped_folds,
    make_problem,
    many_targets,
    nested,
)

from jaxalign.core import folds as folds_lib
from jaxalign.core.folds import Fold, Split

SLOW_FORMS = [pytest.param(form, marks=SLOW) for form in ("dual", "sums")]


def grouped_folds():
    return folds_lib.contiguous_folds(["a"] * N, 4, gap=1, groups=GROUPS)


def group_k_folds():
    splitters = model_selection.GroupKFold(4), model_selection.GroupKFold(3)
    return folds_lib.nest(*splitters, N, groups=GROUPS)


def shuffle_split_folds():
    return folds_lib.nest(4, ShuffleSplit(6, test_size=0.3, random_state=0), N)


def leave_one_run_out():
    runs = np.array(["x"] * 11 + ["y"] * 19 + ["z"] * 14 + ["w"] * 16)
    leave_out = model_selection.LeaveOneGroupOut()
    return folds_lib.cross(folds_lib.splits(leave_out, len(runs), groups=runs))


def fixed_folds():
    """One test set; samples that are never used, and samples that are tested twice."""
    train, test = np.r_[0:20, 25:45], np.r_[46:60]
    inner = (
        Split(train[10:], train[:10]),
        Split(train[:25], train[30:]),
        Split(train[5:], train[:5]),
    )
    return (Fold(Split(train, test), inner),)


FOLDS = [
    equal_folds,
    grouped_folds,
    group_k_folds,
    shuffle_split_folds,
    leave_one_run_out,
    fixed_folds,
]


@functools.cache
def oracle_costs(columns, p, make_folds, standardize):
    """Return costs [k a v] and those of the training mean [k v], by criterion."""
    X, Y, dead = many_targets(columns, p)
    return costs_of_folds(np.delete(X, dead, axis=1), Y, make_folds(), ALPHAS, standardize)


def assert_matches_oracle(
    columns, p, make_folds, *, standardize=True, criterion="squared_error", **method
):
    X, Y, dead = many_targets(columns, p)
    folds = make_folds()
    costs, null = oracle_costs(columns, p, make_folds, standardize)[criterion]
    result = nested(X, Y, folds, ALPHAS, standardize=standardize, criterion=criterion, **method)
    assert_bar(result.alphas[:, 1:], costs[..., 1:], ALPHAS, criterion)
    live = np.delete(X, dead, axis=1)
    assert_scores(result, live, Y, folds, standardize=standardize)
    np.testing.assert_array_equal(result.num_constant, len(dead))
    # Of a penalty that is as good as the best, or all but so.
    inner_score = -costs.min(axis=1)
    if criterion == "squared_error":
        inner_score = 1 + inner_score / np.where(null > 0, null, np.nan)
    error = np.abs(result.inner_score - inner_score)[:, 1:]
    assert (error < 1e-4).mean() > 0.999


# Every pair of settings occurs; all of them together are slow.
METHODS = [
    ("primal", "grid", "squared_error", True),
    ("dual", "adaptive", "squared_error", False),
    ("sums", "adaptive", "squared_error", True),
    ("sums", "grid", "correlation", False),
    ("dual", "grid", "correlation", True),
    ("primal", "adaptive", "correlation", False),
]


def is_short(method, columns, p):
    """Every method once, for many samples or for few, and one for every kind of column."""
    if method not in METHODS:
        return False
    place = METHODS.index(method)
    return p == (10, 90)[place % 2] and (columns == "plain" or place == 0)


@pytest.mark.parametrize(
    "columns, p, form, search, criterion, standardize",
    [
        pytest.param(columns, p, *method, marks=() if is_short(method, columns, p) else SLOW)
        for columns in COLUMNS
        for p in (10, 90)
        for method in itertools.product(
            ("primal", "dual", "sums"),
            ("grid", "adaptive"),
            ("squared_error", "correlation"),
            (True, False),
        )
    ],
)
def test_any_method_matches_the_oracle_for_any_columns(
    p, form, search, criterion, standardize, columns
):
    assert_matches_oracle(
        columns,
        p,
        gapped_folds,
        form=form,
        search=search,
        criterion=criterion,
        standardize=standardize,
    )


@pytest.mark.parametrize(
    "make_folds, form, search, p",
    [
        (equal_folds, "dual", "grid", 90),
        (grouped_folds, "primal", "grid", 10),
        (group_k_folds, "sums", "adaptive", 10),
        (shuffle_split_folds, "primal", "grid", 10),
        (leave_one_run_out, "sums", "grid", 10),
        (fixed_folds, "dual", "grid", 10),
        *(
            pytest.param(make_folds, form, search, p, marks=pytest.mark.slow)
            for make_folds in FOLDS
            for form, search, p in [
                ("primal", "grid", 10),
                ("primal", "adaptive", 10),
                ("sums", "grid", 10),
                ("sums", "adaptive", 10),
                ("dual", "grid", 90),
                ("dual", "adaptive", 90),
            ]
        ),
    ],
)
def test_any_folds_match_the_oracle(make_folds, form, search, p):
    assert_matches_oracle("plain", p, make_folds, form=form, search=search)


@pytest.mark.slow
@pytest.mark.parametrize(
    "p, standardize, form", [(47, False, "primal"), (48, True, "dual"), (47, False, "sums")]
)
def test_scores_match_the_oracle_where_samples_equal_features(p, standardize, form):
    assert {len(fold.outer.train) for fold in equal_folds()} == {48}
    assert_matches_oracle("plain", p, equal_folds, standardize=standardize, form=form)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", *SLOW_FORMS])
def test_one_feature_matches_the_oracle(form):
    assert_matches_oracle("plain", 1, gapped_folds, form=form)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["grid", "adaptive"])
def test_one_target_matches_the_oracle(rng, search):
    X, Y = make_problem(rng)
    for j in (2, 6):
        result = nested(X, Y[:, [j]], gapped_folds(), ALPHAS, search=search)
        for i, fold in enumerate(gapped_folds()):
            every = ridge_oracle.costs(X, Y[:, [j]], fold.inner, ALPHAS, standardize=True)
            costs, _ = every["squared_error"]
            np.testing.assert_array_equal(result.alphas[i], ALPHAS[costs.argmin(axis=0)])
        assert_scores(result, X, Y[:, [j]], gapped_folds(), standardize=True)


@pytest.mark.parametrize("form, p", [("primal", 10), ("dual", 90), ("sums", 10)])
@pytest.mark.parametrize("standardize", [True, False])
def test_least_squares_matches_the_oracle(rng, form, p, standardize):
    X, Y = make_problem(rng, p)
    X[:, 4] = X[:, 1] - 2 * X[:, 0]
    folds = gapped_folds()
    result = nested(X, Y, folds, np.zeros(1), standardize=standardize, form=form)
    np.testing.assert_array_equal(result.alphas, 0)
    assert_scores(result, X, Y, folds, standardize=standardize)
    for i, fold in enumerate(folds):
        # scikit-learn too takes the solution of minimum norm.
        Z = ridge_oracle.scaled(X, fold.outer.train, standardize=standardize)
        model = LinearRegression(tol=1e-6).fit(Z[fold.outer.train], Y[fold.outer.train])
        y, predicted = Y[fold.outer.test], model.predict(Z[fold.outer.test])
        r = [stats.pearsonr(a, b).statistic for a, b in zip(predicted.T, y.T, strict=True)]
        np.testing.assert_allclose(result.r[i], r, rtol=0, atol=1e-4)
        assert result.rank[i] == min(p - 1, len(fold.outer.train) - 1)


@pytest.mark.parametrize("alpha", [1e-3, 1e3, 1e9])
@pytest.mark.parametrize(
    "p, form, make_folds",
    [
        (10, "primal", gapped_folds),
        (10, "sums", gapped_folds),
        (48, "dual", equal_folds),
        (90, "dual", gapped_folds),
    ],
)
def test_scores_at_a_given_penalty_match_the_oracle(rng, p, form, make_folds, alpha):
    X, Y = make_problem(rng, p)
    folds = make_folds()
    result = nested(X, Y, folds, np.array([alpha]), form=form)
    assert_scores(result, X, Y, folds, standardize=True)


@pytest.mark.slow
@pytest.mark.parametrize("p", [10, 90])
def test_scores_match_a_grid_search_of_sklearn(rng, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    result = nested(X, Y, folds, ALPHAS)
    fold = folds[1]
    for j in range(2):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": ALPHAS},
            scoring="neg_mean_squared_error",
            cv=[tuple(split) for split in fold.inner],
            refit=False,
        ).fit(X, Y[:, j])
        alpha = search.best_params_["ridge__alpha"]
        assert result.alphas[1, j] == alpha
        model = make_pipeline(StandardScaler(), Ridge(alpha))
        model.fit(X[fold.outer.train], Y[fold.outer.train, j])
        predicted, y = model.predict(X[fold.outer.test]), Y[fold.outer.test, j]
        assert result.r[1, j] == pytest.approx(stats.pearsonr(predicted, y)[0], abs=1e-4)
        assert result.r2[1, j] == pytest.approx(model.score(X[fold.outer.test], y), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form, p", [("primal", 10), ("dual", 90)])
@pytest.mark.parametrize("standardize", [True, False])
def test_without_an_intercept_scores_match_sklearn(rng, form, p, standardize):
    X, Y = make_problem(rng, p)
    X, Y, alphas = X + 1, Y[:, :8] + 0.5, DISTINCT_ALPHAS
    folds = gapped_folds()
    result = nested(X, Y, folds, alphas, standardize=standardize, form=form, intercept=False)
    for i, fold in enumerate(folds):

        def predict(split, alpha, y=Y):
            Z = X / X[split.train].std(axis=0) if standardize else X
            model = Ridge(alpha, fit_intercept=False, solver="svd")
            return model.fit(Z[split.train], y[split.train]).predict(Z[split.test])

        costs = [
            np.mean([((Y[s.test] - predict(s, a)) ** 2).mean(axis=0) for s in fold.inner], axis=0)
            for a in alphas
        ]
        np.testing.assert_array_equal(result.alphas[i], alphas[np.argmin(costs, axis=0)])
        predicted = predict(fold.outer, result.alphas[i])
        y = Y[fold.outer.test]
        r = ridge_oracle.pearson_r(predicted, y)
        np.testing.assert_allclose(result.r[i], r, rtol=0, atol=1e-4)
        r2 = 1 - ((y - predicted) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(result.r2[i], r2, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_form_that_is_chosen_does_not_matter():
    X, Y, _ = many_targets("plain", 10)
    results = [
        nested(X, Y, gapped_folds(), ALPHAS, form=form)
        for form in ("auto", "primal", "dual", "sums")
    ]
    for result in results[1:]:
        same = result.alphas == results[0].alphas
        assert same.mean() > 0.99
        np.testing.assert_allclose(result.r[same], results[0].r[same], atol=1e-5)
        np.testing.assert_array_equal(result.rank, results[0].rank)
        np.testing.assert_allclose(result.condition, results[0].condition, rtol=1e-3)


@pytest.mark.slow
def test_an_undefined_inner_correlation_counts_as_none(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    Y[folds[0].inner[2].test, 3] = 0.1
    for search in ("grid", "adaptive"):
        result = nested(X, Y, folds, DISTINCT_ALPHAS, criterion="correlation", search=search)
        every = ridge_oracle.costs(X, Y[:, [3]], folds[0].inner, DISTINCT_ALPHAS, standardize=True)
        costs, _ = every["correlation"]
        assert result.alphas[0, 3] == DISTINCT_ALPHAS[costs.argmin()]
        assert result.inner_score[0, 3] == pytest.approx(-costs.min(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "dual", "sums"])
def test_relative_errors_choose_penalties(rng, form):
    """Errors of each inner test set count in units of the target's variance in it."""
    X, Y = make_problem(rng)
    Y[:15, :8] *= 20  # one inner test set that would decide alone
    Y[48:, 2] = Y[48, 2]  # and one that says nothing of a target
    folds = equal_folds()
    found = nested(
        X, Y, folds, DISTINCT_ALPHAS, standardize=False, criterion="relative_error", form=form
    )
    plain = nested(X, Y, folds, DISTINCT_ALPHAS, standardize=False, form=form)
    assert (found.alphas != plain.alphas).any()
    for i, fold in enumerate(folds):
        total = np.zeros((len(DISTINCT_ALPHAS), Y.shape[1]))
        for split in fold.inner:
            deviations, mean = ridge_oracle.predict(X, Y, split, DISTINCT_ALPHAS)
            y = Y[split.test]
            varies = np.ptp(y, axis=0) > 0
            share = np.where(varies, 1 / np.where(varies, y.var(axis=0), 1), 0)
            total += ((y - mean - deviations) ** 2).mean(axis=1) * share / len(fold.inner)
        np.testing.assert_allclose(found.alphas[i], DISTINCT_ALPHAS[total.argmin(axis=0)])
        np.testing.assert_allclose(found.inner_score[i], 1 - total.min(axis=0), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "sums"])
def test_norms_are_in_the_units_of_targets(rng, form):
    X, Y = make_problem(rng)
    folds = equal_folds()
    found = nested(X, Y, folds, np.array([2.0]), standardize=False, form=form)
    for i, fold in enumerate(folds):
        train, test = fold.outer
        predicted = Ridge(alpha=2.0).fit(X[train], Y[train]).predict(X[test])
        norm = lambda x: np.linalg.norm(x - x.mean(axis=0), axis=0)
        np.testing.assert_allclose(found.predicted_norm[i], norm(predicted), rtol=1e-4)
        # The baseline of 1e4 has taken digits.
        np.testing.assert_allclose(found.recorded_norm[i], norm(Y[test]), rtol=1e-4)
