import functools
import itertools

import numpy as np
import pytest
import ridge_oracle
import tensorstore
from scipy import stats
from sklearn import model_selection
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import cv, problem

N = 60
ALPHAS = 10.0 ** np.arange(-3, 10)
# Beyond 1e4 the errors of neighbouring penalties are equal in float32; as many as in ALPHAS, for
# both to share their compilations.
DISTINCT_ALPHAS = np.logspace(-3, 4, len(ALPHAS))
GROUP_SIZES = (3, 9, 5, 1, 14, 6, 2, 8, 7, 5)
GROUPS = np.repeat(np.arange(len(GROUP_SIZES)), GROUP_SIZES)
# Enough that one in a thousand could be missed; all in one tile.
MANY = 400
TILE = 80
SLOW = pytest.mark.slow
SLOW_FORMS = [pytest.param(form, marks=SLOW) for form in ("dual", "sums")]


def equal_folds():
    return folds_lib.contiguous_folds(["a"] * N, 5, gap=0)


def gapped_folds():
    return folds_lib.contiguous_folds(["a"] * 23 + ["b"] * 37, 5, gap=3)


def grouped_folds():
    return folds_lib.contiguous_folds(["a"] * N, 4, gap=1, groups=GROUPS)


def group_k_folds():
    splitters = model_selection.GroupKFold(4), model_selection.GroupKFold(3)
    return folds_lib.nest(*splitters, N, groups=GROUPS)


def shuffle_split_folds():
    return folds_lib.nest(4, ShuffleSplit(6, test_size=0.3, random_state=0), N)


def leave_one_run_out():
    return folds_lib.leave_one_run_out(["x"] * 11 + ["y"] * 19 + ["z"] * 14 + ["w"] * 16)


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


def make_targets(rng, X):
    """Targets of falling signal, two of pure noise, one with a large baseline, one small."""
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    signal = X @ rng.normal(size=(X.shape[1], 10)) / np.sqrt(X.shape[1])
    gain = np.array([10.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.0, 0.0, 2.0, 2.0])
    Y = gain * signal + rng.normal(size=signal.shape)
    Y[:, 8] = 1e4 + Y[:, 8] / Y[:, 8].std()
    Y[:, 9] *= 1e-5
    return Y


def make_features(rng, p):
    """Features whose variance falls off, as that of activations does."""
    rotation, _ = np.linalg.qr(rng.normal(size=(p, p)))
    return rng.normal(size=(N, p)) / np.arange(1, p + 1) @ rotation * np.sqrt(p)


def make_problem(rng, p=10):
    X = make_features(rng, p)
    return X, make_targets(rng, X)


def duplicated(X, rng):
    X[:, 1] = X[:, 4] = X[:, 0]


def nearly_duplicated(X, rng):
    X[:, 1] = X[:, 0] + 1e-7 * rng.normal(size=len(X))


def low_rank(X, rng):
    X[:] = rng.normal(size=(len(X), 3)) @ rng.normal(size=(3, X.shape[1]))


def of_unequal_scale(X, rng):
    X *= np.logspace(-1, 2, X.shape[1])


def of_unequal_units(X, rng):
    X *= np.logspace(-3, 3, X.shape[1])[rng.permutation(X.shape[1])]


def ill_conditioned(X, rng):
    """Set eigenvalues that fall by a power law, over eight decades."""
    U, _, W = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    r = min(len(X) - 1, X.shape[1])
    power = 8 / np.log10(r)
    X[:] = 10 * U[:, :r] * np.arange(1, r + 1) ** (-power / 2) @ W[:r]


def off_centre(X, rng):
    X += 1e3


def constant(X, rng):
    X[:, 2], X[:, 5] = 0.1, 0.0
    return [2, 5]


def tiny(X, rng):
    X[:, [2, 5]] = 1e-33 * rng.normal(size=(len(X), 2))
    return [2, 5]


def plain(X, rng):
    pass


COLUMNS = {
    function.__name__: function
    for function in (
        plain,
        duplicated,
        nearly_duplicated,
        low_rank,
        of_unequal_scale,
        of_unequal_units,
        ill_conditioned,
        off_centre,
        constant,
        tiny,
    )
}


@functools.cache
def many_targets(columns, p, num_targets=MANY):
    """Features of a kind, which of them count for nothing, and targets of any signal and unit."""
    rng = np.random.default_rng(0)
    X = make_features(rng, p)
    dead = COLUMNS[columns](X, rng) or []
    live = np.delete(X, dead, axis=1)
    live = (live - live.mean(axis=0)) / live.std(axis=0)
    # Some depend on all features alike, some on the first principal directions.
    U, values, _ = np.linalg.svd(live, full_matrices=False)
    weights = rng.normal(size=(len(values), num_targets))
    weights[:, ::2] *= values[:, None] / values[0]
    signal = U @ weights
    gain = rng.choice([0.0, 0.3, 1.0, 3.0], size=num_targets)
    Y = gain * signal / signal.std(axis=0) + rng.normal(size=signal.shape)
    Y[:, 1] = 1e4 + Y[:, 1]
    Y *= 10.0 ** rng.integers(-4, 5, size=num_targets)
    Y[:, 0] = 0.1
    return X, Y, tuple(dead)


@functools.cache
def oracle_costs(columns, p, make_folds, standardize):
    """Return costs [k a v] and those of the training mean [k v], by criterion."""
    X, Y, dead = many_targets(columns, p)
    return costs_of_folds(np.delete(X, dead, axis=1), Y, make_folds(), ALPHAS, standardize)


def costs_of_folds(X, Y, folds, alphas, standardize):
    each = [ridge_oracle.costs(X, Y, fold.inner, alphas, standardize=standardize) for fold in folds]
    return {
        criterion: tuple(map(np.array, zip(*(one[criterion] for one in each), strict=True)))
        for criterion in each[0]
    }


def are_decided(costs, criterion):
    """Return for which targets one penalty is clearly better than all others [.. v]."""
    best, second = np.moveaxis(np.sort(costs, axis=-2)[..., :2, :], -2, 0)
    return second - best > (1e-4 * np.abs(best) if criterion == "squared_error" else 1e-5)


def assert_bar(chosen, costs, alphas, criterion):
    """Require equal penalties [.. v] for 99.9 % of the targets that costs [.. a v] decide."""
    decided = are_decided(costs, criterion)
    wrong = decided & (chosen != alphas[costs.argmin(axis=-2)])
    # Of features of rank 3 a correlation does not depend on small penalties, nor on large ones.
    assert decided.mean() > 0.15
    assert wrong.sum() <= 1e-3 * decided.sum(), f"{wrong.sum()} of {decided.sum()} penalties"


def assert_scores(result, X, Y, folds, *, standardize):
    """Compare with the oracle's scores at the penalties that were chosen."""
    for i, fold in enumerate(folds):
        r, r2 = ridge_oracle.scores(X, Y, fold.outer, result.alphas[i], standardize=standardize)
        varies = Y.std(axis=0) > 1e-6 * np.abs(Y).max(axis=0)
        for found, expected in ((result.r[i], r), (result.r2[i], r2)):
            assert np.isnan(found[~varies]).all()
            np.testing.assert_allclose(found[varies], expected[varies], rtol=1e-4, atol=1e-4)
        assert np.abs(result.r[i] - r)[varies].max() < 1e-4


def assert_matches_oracle(
    columns, p, make_folds, *, standardize=True, criterion="squared_error", **method
):
    X, Y, dead = many_targets(columns, p)
    folds = make_folds()
    costs, null = oracle_costs(columns, p, make_folds, standardize)[criterion]
    result = cv.nested(X, Y, folds, ALPHAS, standardize=standardize, criterion=criterion, **method)
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


@pytest.mark.parametrize("form", ["primal", *SLOW_FORMS])
def test_one_feature_matches_the_oracle(form):
    assert_matches_oracle("plain", 1, gapped_folds, form=form)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["grid", "adaptive"])
def test_one_target_matches_the_oracle(rng, search):
    X, Y = make_problem(rng)
    for j in (2, 6):
        result = cv.nested(X, Y[:, [j]], gapped_folds(), ALPHAS, search=search)
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
    result = cv.nested(X, Y, folds, np.zeros(1), standardize=standardize, form=form)
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


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3, 1e6, 1e9])
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
    result = cv.nested(X, Y, folds, np.array([alpha]), form=form)
    assert_scores(result, X, Y, folds, standardize=True)


@pytest.mark.slow
@pytest.mark.parametrize("p", [10, 90])
def test_scores_match_a_grid_search_of_sklearn(rng, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    result = cv.nested(X, Y, folds, ALPHAS)
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
    result = cv.nested(X, Y, folds, alphas, standardize=standardize, form=form, intercept=False)
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


# Leave-one-out and generalised cross-validation.

REGIMES = {"n>p": 10, "n=p": N - 1, "n<p": 90, "n<<p": 300}
SHORT_REGIMES = [
    x if x in ("n>p", "n<p") else pytest.param(x, marks=pytest.mark.slow) for x in REGIMES
]


def make_many(p, num_targets=200):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, p))
    signal = X @ rng.normal(size=(p, num_targets)) / np.sqrt(p)
    return X, np.linspace(0, 5, num_targets) * signal + rng.normal(size=signal.shape)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("regime", SHORT_REGIMES)
def test_leave_one_out_matches_ridge_cv_of_sklearn(regime, form):
    X, Y = make_many(REGIMES[regime])
    model = RidgeCV(ALPHAS, store_cv_results=True, alpha_per_target=True).fit(X, Y)
    method = cv.Method(standardize=False, scheme="loo", form=form)
    found = cv.select(X, Y, (), ALPHAS, method=method, keep_curves=True)
    expected = model.cv_results_.mean(axis=0).T
    np.testing.assert_allclose(found.curve, expected, rtol=1e-4)
    assert_bar(found.alphas, expected, ALPHAS, "squared_error")


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize("standardize", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("p", [10, 90])
def test_leave_one_out_matches_leaving_each_out(p, standardize, criterion):
    X, Y = make_many(p)
    folds = gapped_folds()[:2]
    alphas = ALPHAS[::2]
    result = cv.nested(
        X, Y, folds, alphas, standardize=standardize, scheme="loo", criterion=criterion
    )
    for i, fold in enumerate(folds):
        Z, splits = ridge_oracle.left_out(X, fold.outer.train, standardize=standardize)
        predicted = []
        for split in map(Split._make, splits):
            deviations, mean = ridge_oracle.predict(Z, Y, split, alphas)
            predicted.append(deviations[:, 0] + mean)
        predicted = np.stack(predicted, axis=1)  # [a R v]
        y = Y[fold.outer.train]
        if criterion == "squared_error":
            costs = ((y - predicted) ** 2).mean(axis=1)
        else:
            costs = -ridge_oracle.pearson_r(predicted, y)
        assert_bar(result.alphas[i], costs, alphas, criterion)
    assert_scores(result, X, Y, folds, standardize=standardize)


@pytest.mark.parametrize("form, standardize", [("primal", True), ("dual", False)])
@pytest.mark.parametrize("regime", SHORT_REGIMES)
def test_generalised_cross_validation_matches_its_closed_form(regime, form, standardize):
    X, Y = make_many(REGIMES[regime])
    Z = ridge_oracle.scaled(X, np.arange(N), standardize=standardize)
    y = Y - Y.mean(axis=0)
    expected = []
    U, values, _ = np.linalg.svd(Z, full_matrices=True)
    values = np.r_[values, np.zeros(N - len(values))] ** 2
    for alpha in ALPHAS:
        # I - H, of which one direction is the constant's; H is that of the centred fit.
        left = np.where(np.arange(N) < N, alpha / (values + alpha), 1.0)
        residual = U @ (left[:, None] * (U.T @ y))
        expected.append((residual**2).mean(axis=0) / ((left.sum() - 1) / N) ** 2)
    method = cv.Method(standardize=standardize, scheme="gcv", form=form)
    found = cv.select(X, Y, (), ALPHAS, method=method, keep_curves=True)
    np.testing.assert_allclose(found.curve, expected, rtol=1e-4)
    assert_bar(found.alphas, np.array(expected), ALPHAS, "squared_error")


def test_gcv_and_leave_one_out_agree_where_leverages_are_equal(rng):
    # Cosines: every sample has the same leverage.
    time = 2 * np.pi * np.arange(N) / N
    X = np.stack([f(k * time) for k in (1, 2, 5) for f in (np.cos, np.sin)], axis=1)
    Y = X @ rng.normal(size=(6, 8)) + rng.normal(size=(N, 8))
    curves = [
        cv.select(X, Y, (), ALPHAS, method=cv.Method(scheme=scheme), keep_curves=True).curve
        for scheme in ("loo", "gcv")
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)


# One penalty for many targets.


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize(
    "form, num_groups, tile", [("primal", 1, None), ("primal", 7, TILE), ("sums", 7, None)]
)
def test_pooled_penalties_match_the_oracle(num_groups, form, criterion, tile):
    X, Y, _ = many_targets("plain", 10)
    Y = Y / np.maximum(Y.std(axis=0), 1e-9)
    pool = np.random.default_rng(0).integers(num_groups, size=MANY)
    folds = gapped_folds()
    result = cv.nested(X, Y, folds, ALPHAS, pool=pool, form=form, criterion=criterion, tile=tile)
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
    alone = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS)
    assert (alone.alphas[:, 0] != alone.alphas[:, 1]).all()
    for j in range(2):
        # The louder target has its way.
        louder = cv.nested(
            X, Y * 1e4 ** (np.arange(2) == j), gapped_folds(), DISTINCT_ALPHAS, pool=pool
        )
        np.testing.assert_array_equal(louder.alphas, alone.alphas[:, [j, j]])


@pytest.mark.parametrize("scheme", ["loo", "gcv"])
def test_pools_go_with_any_scheme(scheme):
    X, Y = make_many(10)
    pool = np.arange(200) % 3
    method = cv.Method(scheme=scheme)
    apart = cv.select(X, Y, (), ALPHAS, method=method, keep_curves=True)
    pooled = cv.select(X, Y, (), ALPHAS, method=method, pool=pool)
    for group in range(3):
        curve = apart.curve[:, pool == group].mean(axis=1)
        assert set(pooled.alphas[pool == group]) == {ALPHAS[curve.argmin()]}


# Adaptive search.

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
@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
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
def test_the_adaptive_search_finds_the_best_penalty(p, kind, alphas, criterion):
    X, Y, folds = hard_problem(kind, p)
    costs, _ = hard_costs(kind, p, tuple(alphas))[criterion]
    assert (count_minima(costs) > 1).mean() > 2e-3
    result = cv.nested(
        X, Y, folds, alphas, standardize=False, criterion=criterion, search="adaptive"
    )
    assert_bar(result.alphas, costs, alphas, criterion)
    # Where it finds another, that one must be nearly as good.
    place = np.searchsorted(alphas, result.alphas)[:, None]
    lost = np.take_along_axis(costs, place, axis=1)[:, 0] - costs.min(axis=1)
    scale = costs.min(axis=1) if criterion == "squared_error" else 1.0
    assert (lost / scale).max() < 0.05
    by_bound = criterion == "squared_error" and p >= problem.MIN_DIRECTIONS
    assert (result.num_computed.mean() < len(alphas) / 2) == by_bound


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "dual", "sums"])
def test_the_adaptive_search_finds_what_the_grid_finds(form):
    X, Y, folds = hard_problem("white", 120)
    grid, adaptive = (
        cv.nested(X, Y, folds, ALPHAS, standardize=False, search=search, form=form)
        for search in ("grid", "adaptive")
    )
    same = grid.alphas == adaptive.alphas
    assert same.mean() > 0.998
    np.testing.assert_array_equal(grid.r[same], adaptive.r[same])
    np.testing.assert_array_equal(grid.num_computed, len(ALPHAS))
    np.testing.assert_allclose(adaptive.inner_score[same], grid.inner_score[same], atol=1e-5)


# What must hold for any data.


def test_targets_do_not_interact(rng):
    X, Y = make_problem(rng)
    before = cv.nested(X, Y, gapped_folds(), ALPHAS)
    Y[:, 0] = 1e6 * rng.normal(size=N)
    Y[:, 1] = 0.3
    after = cv.nested(X, Y, gapped_folds(), ALPHAS)
    for name in ("r", "r2", "alphas", "inner_score"):
        np.testing.assert_array_equal(getattr(after, name)[:, 2:], getattr(before, name)[:, 2:])


def test_each_target_scores_as_if_alone(rng):
    X, Y = make_problem(rng)
    together = cv.nested(X, Y, gapped_folds(), ALPHAS)
    alone = cv.nested(X, Y[:, 2:3], gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(alone.alphas[:, 0], together.alphas[:, 2])
    np.testing.assert_allclose(alone.r[:, 0], together.r[:, 2], atol=1e-6)
    np.testing.assert_allclose(alone.r2[:, 0], together.r2[:, 2], atol=1e-5)


def test_permuting_targets_permutes_scores(rng):
    X, Y = make_problem(rng)
    order = rng.permutation(Y.shape[1])
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    permuted = cv.nested(X, Y[:, order], gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas[:, order])
    np.testing.assert_allclose(permuted.r, plain.r[:, order], atol=1e-6)
    np.testing.assert_allclose(permuted.r2, plain.r2[:, order], atol=1e-5)


@pytest.mark.parametrize("p", [10, 90])
def test_permuting_features_changes_nothing(rng, p):
    X, Y = make_problem(rng, p)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    permuted = cv.nested(X[:, rng.permutation(p)], Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.r, plain.r, atol=1e-5)


@pytest.mark.parametrize("p", [10, 90])
def test_scale_and_offset_of_features_do_not_matter_when_standardized(rng, p):
    X, Y = make_problem(rng, p)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    rescaled = cv.nested(X * np.logspace(-2, 2, p) - 7, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(rescaled.alphas, plain.alphas)
    np.testing.assert_allclose(rescaled.r, plain.r, atol=1e-5)


def test_scale_of_features_matters_when_not_standardized(rng):
    X, Y = make_problem(rng)
    alphas = np.array([10.0])
    plain = cv.nested(X, Y, gapped_folds(), alphas, standardize=False)
    # Features c times as large under a penalty c squared times as large are the same problem.
    scaled = cv.nested(10 * X, Y, gapped_folds(), 100 * alphas, standardize=False)
    np.testing.assert_allclose(scaled.r, plain.r, atol=1e-5)
    other = cv.nested(10 * X, Y, gapped_folds(), alphas, standardize=False)
    assert np.abs(other.r2 - plain.r2).max() > 1e-2


# 1e-13: a magnetometer in tesla. 1e-5: an electrode in volts.
@pytest.mark.parametrize("scale, offset", [(-1, 0), (3, 1e4), (1e-5, 1), (1e-13, 0), (1e12, 0)])
def test_affine_change_of_targets_leaves_scores_unchanged(rng, scale, offset):
    X, Y = make_problem(rng)
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    alphas = DISTINCT_ALPHAS
    plain = cv.nested(X, Y, gapped_folds(), alphas)
    changed = cv.nested(X, scale * Y + offset, gapped_folds(), alphas)
    np.testing.assert_array_equal(changed.alphas, plain.alphas)
    np.testing.assert_allclose(changed.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(changed.r2, plain.r2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(changed.inner_score, plain.inner_score, atol=1e-5)


def test_an_infinite_penalty_scores_as_the_training_mean(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    result = cv.nested(X, Y, folds, np.array([1e9]))
    for i, fold in enumerate(folds):
        y = Y[fold.outer.test]
        error = ((y - Y[fold.outer.train].mean(axis=0)) ** 2).sum(axis=0)
        expected = 1 - error / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(result.r2[i], expected, atol=1e-4)
    np.testing.assert_allclose(result.inner_score, 0, atol=1e-5)


def test_a_noiseless_signal_is_recovered_in_full(rng):
    X = rng.normal(size=(N, 10))
    result = cv.nested(X, X @ rng.normal(size=(10, 10)), gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(result.alphas, ALPHAS[0])
    np.testing.assert_allclose(result.r, 1, atol=1e-5)
    np.testing.assert_allclose(result.r2, 1, atol=1e-5)
    np.testing.assert_allclose(result.inner_score, 1, atol=1e-5)


def test_unrelated_features_predict_nothing(rng):
    X = rng.normal(size=(N, 10))
    result = cv.nested(X, rng.normal(size=(N, 400)), gapped_folds(), ALPHAS)
    # 2000 correlations over 12 samples each, 0.29 wide.
    assert abs(result.r.mean()) < 0.03


def test_held_out_responses_do_not_choose_the_penalty(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    alphas = DISTINCT_ALPHAS
    before = cv.nested(X, Y, folds, alphas)
    Y[folds[2].outer.test] = rng.permutation(Y[folds[2].outer.test])
    after = cv.nested(X, Y, folds, alphas)
    np.testing.assert_array_equal(after.alphas[2], before.alphas[2])
    np.testing.assert_allclose(after.inner_score[2], before.inner_score[2], atol=1e-4)
    assert (after.alphas != before.alphas).any()


def test_samples_within_the_gap_do_not_reach_the_fit(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    # One penalty, as other folds' inner tests do hold these samples.
    alphas = np.array([10.0])
    before = cv.nested(X, Y, folds, alphas)
    used = np.r_[folds[0].outer.train, folds[0].outer.test]
    gap = np.setdiff1d(np.arange(N), used)
    assert len(gap) == 3
    X[gap] += 100 * rng.normal(size=(3, 10))
    Y[gap] += 100 * rng.normal(size=(3, 1)) * Y.std(axis=0)
    after = cv.nested(X, Y, folds, alphas)
    np.testing.assert_allclose(after.r[0], before.r[0], atol=1e-4)
    np.testing.assert_allclose(after.r2[0], before.r2[0], rtol=1e-4, atol=1e-4)
    assert np.abs(after.r[3] - before.r[3]).max() > 0.1


@pytest.mark.slow
def test_a_fold_scores_alike_alone_and_among_others(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    together = cv.nested(X, Y, folds, ALPHAS)
    alone = cv.nested(X, Y, [folds[1]], ALPHAS)
    np.testing.assert_array_equal(alone.alphas[0], together.alphas[1])
    np.testing.assert_allclose(alone.r[0], together.r[1], atol=1e-5)
    np.testing.assert_allclose(alone.inner_score[0], together.inner_score[1], atol=1e-5)


def test_order_of_penalties_does_not_matter(rng):
    X, Y = make_problem(rng)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    shuffled = cv.nested(X, Y, gapped_folds(), rng.permutation(ALPHAS))
    np.testing.assert_array_equal(shuffled.alphas, plain.alphas)
    np.testing.assert_array_equal(shuffled.r, plain.r)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_not_changed(rng, dtype):
    X, Y = (array.astype(dtype) for array in make_problem(rng))
    alphas = ALPHAS[::-1].copy()
    before = X.copy(), Y.copy(), alphas.copy()
    cv.nested(X, Y, gapped_folds(), alphas)
    for array, old in zip((X, Y, alphas), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4 / 3, 1e6 + 0.1])
def test_a_constant_target_has_no_score(rng, value):
    X, Y = make_problem(rng)
    Y[:, 0] = value
    result = cv.nested(X, Y, gapped_folds(), ALPHAS)
    for scores in (result.r, result.r2, result.inner_score):
        assert np.isnan(scores[:, 0]).all()
        assert np.isfinite(scores[:, 1:]).all()


def test_a_target_that_is_constant_in_one_test_block_has_no_score_there(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    Y[folds[3].outer.test, 0] = 0.7
    result = cv.nested(X, Y, folds, ALPHAS)
    expected = np.zeros((5, 10), bool)
    expected[3, 0] = True
    np.testing.assert_array_equal(np.isnan(result.r), expected)
    np.testing.assert_array_equal(np.isnan(result.r2), expected)


@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, -1e4 / 3])
def test_a_target_that_is_constant_in_training_has_no_correlation(rng, value, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    Y[folds[3].outer.train, 0] = value
    result = cv.nested(X, Y, folds, ALPHAS)
    # The prediction is a constant: what varies in it is the rounding of the mean.
    assert np.isnan(result.r[3, 0])
    assert np.isfinite(result.r[3, 1:]).all()


@pytest.mark.parametrize("p", [10, 90])
def test_constant_features_have_no_correlation_and_score_as_the_mean(rng, p):
    _, Y = make_problem(rng)
    folds = gapped_folds()
    result = cv.nested(np.full((N, p), 0.1), Y, folds, ALPHAS)
    assert np.isnan(result.r).all()
    assert np.isfinite(result.r2).all()
    np.testing.assert_array_equal(result.inner_score, 0)
    np.testing.assert_array_equal(result.num_constant, p)


def test_ties_go_to_the_larger_penalty(rng):
    X, Y = make_problem(rng)
    Y[:, 0] = 2.5
    of_constant_target = cv.nested(X, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_target.alphas[:, 0], ALPHAS[-1])
    of_constant_features = cv.nested(np.ones((N, 10)), Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_features.alphas, ALPHAS[-1])


@pytest.mark.slow
@pytest.mark.parametrize("form, search", [("primal", "grid"), ("sums", "adaptive")])
def test_tiles_do_not_interact(form, search):
    X, Y, _ = many_targets("plain", 10)
    options = {"form": form, "search": search}
    whole = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    parts = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, tile=TILE, **options)
    assert_same(parts, whole)


PER_TARGET = ("r", "r2", "alphas", "inner_score", "num_computed")


def assert_same(result, expected, columns=slice(None)):
    """Compare scores that may differ by rounding; choices may not."""
    for name, tolerance in (("r", 1e-6), ("r2", 1e-5), ("inner_score", 1e-5)):
        np.testing.assert_allclose(
            getattr(result, name), getattr(expected, name)[:, columns], rtol=1e-5, atol=tolerance
        )
    np.testing.assert_array_equal(result.alphas, expected.alphas[:, columns])


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
def test_a_target_alone_is_searched_as_among_others(criterion):
    X, Y, _ = many_targets("plain", 10)
    options = {"search": "adaptive", "criterion": criterion}
    together = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    for columns in ([3], [17], list(range(100, 112))):
        few = cv.nested(X, Y[:, columns], gapped_folds(), DISTINCT_ALPHAS, **options)
        assert_same(few, together, columns)
        np.testing.assert_array_equal(few.num_computed, together.num_computed[:, columns])


@pytest.mark.slow
@pytest.mark.parametrize(
    "form, p, search", [("primal", 10, "grid"), ("dual", 90, "grid"), ("sums", 10, "adaptive")]
)
def test_permuting_samples_within_folds_changes_nothing(rng, form, p, search):
    X, Y = make_problem(rng, p)
    folds = equal_folds()
    order = np.concatenate([rng.permutation(fold.outer.test) for fold in folds])
    assert (order != np.arange(N)).mean() > 0.8
    plain, permuted = (
        cv.nested(X[rows], Y[rows], folds, DISTINCT_ALPHAS, form=form, search=search)
        for rows in (np.arange(N), order)
    )
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(permuted.r2, plain.r2, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(permuted.inner_score, plain.inner_score, atol=1e-5)


@pytest.mark.parametrize("scheme", ["loo", "gcv"])
@pytest.mark.parametrize("p", [10, 90])
def test_permuting_training_samples_changes_no_closed_form(rng, scheme, p):
    X, Y = make_problem(rng, p)
    order = rng.permutation(N)
    method = cv.Method(scheme=scheme)
    plain, permuted = (
        cv.select(X[rows], Y[rows], (), ALPHAS[2:8], method=method)
        for rows in (np.arange(N), order)
    )
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.score, plain.score, atol=1e-5)


@pytest.mark.parametrize(
    "shape, form, search, scheme, criterion, tile",
    [
        ((4, 1), "primal", "grid", "folds", "squared_error", None),
        ((2, 2), "sums", "adaptive", "folds", "squared_error", None),
        pytest.param(
            (4, 1), "primal", "grid", "loo", "squared_error", None, marks=pytest.mark.slow
        ),
        pytest.param(
            (2, 2), "dual", "adaptive", "folds", "correlation", 32, marks=pytest.mark.slow
        ),
        pytest.param(
            (4, 1), "sums", "adaptive", "folds", "correlation", 32, marks=pytest.mark.slow
        ),
        pytest.param((2, 2), "dual", "grid", "gcv", "squared_error", 32, marks=pytest.mark.slow),
    ],
)
def test_sharded_equals_local(shape, form, search, scheme, criterion, tile):
    X, Y, _ = many_targets("plain", 10)
    # The devices do not divide the targets.
    Y = Y[:, :397]
    options = {"form": form, "search": search, "scheme": scheme, "criterion": criterion}
    mesh = mesh_lib.make_mesh(*shape)
    local = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    sharded = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, mesh=mesh, tile=tile, **options)
    # Tiles of other widths are summed in another order, which may turn a tie.
    turned = sharded.alphas != local.alphas
    if scheme == "folds":
        costs, _ = costs_of_folds(X, Y, gapped_folds(), DISTINCT_ALPHAS, True)[criterion]
        assert not (turned & are_decided(costs, criterion))[:, 1:].any()
    assert turned.sum() <= (1e-3 * turned.size if scheme == "folds" else 0)
    sharded, local = (
        x._replace(**{name: getattr(x, name)[:, ~turned.any(axis=0)] for name in PER_TARGET})
        for x in (sharded, local)
    )
    assert_same(sharded, local)
    np.testing.assert_array_equal(sharded.num_computed, local.num_computed)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 1), (2, 2)])
def test_sharded_pools_equal_local_ones(shape):
    X, Y, _ = many_targets("plain", 10)
    Y = Y / np.maximum(Y.std(axis=0), 1e-9)
    options = {"pool": np.arange(MANY) % 5}
    local = cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    mesh = mesh_lib.make_mesh(*shape)
    assert_same(cv.nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, mesh=mesh, **options), local)


def stored(Y):
    """Return a tensorstore array in memory, in chunks that tiles do not follow."""
    store = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": "memory://",
            "metadata": {
                "shape": list(Y.shape),
                "data_type": str(Y.dtype),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [7, 33]}},
            },
        },
        create=True,
    ).result()
    store.write(Y).result()
    return store


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tile", [None, TILE])
def test_targets_may_be_on_disk(dtype, tile):
    X, Y, _ = many_targets("plain", 10)
    Y = (Y / np.maximum(Y.std(axis=0), 1e-9)).astype(dtype)
    for options in ({"search": "adaptive"}, {"pool": np.arange(MANY) % 3}):
        expected = cv.nested(X, Y, gapped_folds(), ALPHAS, tile=tile, **options)
        found = cv.nested(X, stored(Y), gapped_folds(), ALPHAS, tile=tile, **options)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_fits_read_targets_from_disk(rng):
    X, Y = make_problem(rng)
    expected = cv.refit(X, Y, np.full(10, 3.0))
    for a, b in zip(cv.refit(X, stored(Y), np.full(10, 3.0)), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    chosen = [cv.select(X, y, equal_folds()[0].inner, ALPHAS) for y in (Y, stored(Y))]
    np.testing.assert_array_equal(chosen[0].alphas, chosen[1].alphas)


def test_progress_sees_every_tile():
    X, Y, _ = many_targets("plain", 10)
    seen = []

    def progress(tiles):
        for tile in tiles:
            seen.extend(tile)
            yield tile

    cv.nested(X, Y, gapped_folds(), ALPHAS, tile=TILE, progress=progress)
    assert seen == list(range(MANY))


def test_the_form_that_is_chosen_does_not_matter():
    X, Y, _ = many_targets("plain", 10)
    results = [
        cv.nested(X, Y, gapped_folds(), ALPHAS, form=form)
        for form in ("auto", "primal", "dual", "sums")
    ]
    for result in results[1:]:
        same = result.alphas == results[0].alphas
        assert same.mean() > 0.99
        np.testing.assert_allclose(result.r[same], results[0].r[same], atol=1e-5)
        np.testing.assert_array_equal(result.rank, results[0].rank)
        np.testing.assert_allclose(result.condition, results[0].condition, rtol=1e-3)


def test_an_undefined_inner_correlation_counts_as_none(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    Y[folds[0].inner[2].test, 3] = 0.1
    for search in ("grid", "adaptive"):
        result = cv.nested(X, Y, folds, DISTINCT_ALPHAS, criterion="correlation", search=search)
        every = ridge_oracle.costs(X, Y[:, [3]], folds[0].inner, DISTINCT_ALPHAS, standardize=True)
        costs, _ = every["correlation"]
        assert result.alphas[0, 3] == DISTINCT_ALPHAS[costs.argmin()]
        assert result.inner_score[0, 3] == pytest.approx(-costs.min(), abs=1e-4)


# Selection and fits on all samples.


@pytest.mark.parametrize("criterion", ["squared_error", "correlation"])
@pytest.mark.parametrize("form, search", [("primal", "grid"), ("sums", "adaptive")])
def test_selection_matches_the_oracle(criterion, form, search):
    X, Y, _ = many_targets("plain", 10)
    splits = folds_lib.splits(ShuffleSplit(8, test_size=0.25, random_state=3), N)
    method = cv.Method(search=search, criterion=criterion, form=form)
    found = cv.select(X, Y, splits, ALPHAS, method=method)
    costs, null = ridge_oracle.costs(X, Y, splits, ALPHAS, standardize=True)[criterion]
    assert_bar(found.alphas[1:], costs[:, 1:], ALPHAS, criterion)
    best = costs.min(axis=0)
    close = np.abs(found.cost - best)[1:] <= 1e-4 * np.maximum(np.abs(best[1:]), 1e-3 * null[1:])
    assert close.mean() > 0.99
    assert found.curve is None
    curves = cv.select(X, Y, splits, ALPHAS, method=method, keep_curves=True)
    scale = np.abs(costs[:, 1:]) if criterion == "squared_error" else 1
    assert (np.abs(curves.curve - costs)[:, 1:] / scale).max() < 1e-4
    if criterion == "squared_error":
        expected = 1 - found.cost[1:] / null[1:]
        assert np.isnan(found.score[0])
    else:
        expected = -found.cost[1:]
    np.testing.assert_allclose(found.score[1:], expected, atol=1e-5)
    np.testing.assert_array_equal(curves.num_computed, len(ALPHAS))


def test_selection_over_the_inner_splits_is_that_of_the_fold(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    nested = cv.nested(X, Y, folds, ALPHAS)
    selected = cv.select(X, Y, folds[2].inner, ALPHAS)
    np.testing.assert_array_equal(selected.alphas, nested.alphas[2])
    np.testing.assert_allclose(selected.score, nested.inner_score[2], atol=1e-5)


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("p", [10, 90])
def test_fits_match_sklearn(rng, p, standardize, intercept, form):
    X, Y = make_problem(rng, p)
    X = X + 2
    alphas = 10.0 ** rng.integers(-2, 6, size=10)
    scale = X.std(axis=0) if standardize else np.ones(p)
    model = Ridge(alphas, solver="svd", fit_intercept=intercept).fit(X / scale, Y)
    found = cv.refit(X, Y, alphas, standardize=standardize, form=form, intercept=intercept)
    expected = (model.coef_ / scale).T
    error = np.abs(found.coef - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert error.max() < 5e-5
    spread = Y.std(axis=0)
    np.testing.assert_allclose(
        found.intercept / spread, model.intercept_ / spread, rtol=1e-6, atol=1e-4
    )
    predicted = X @ found.coef + found.intercept
    expected = model.predict(X / scale)
    np.testing.assert_allclose(predicted / spread, expected / spread, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
@pytest.mark.parametrize("p", [10, 90])
def test_fits_without_a_penalty_are_of_minimum_norm(rng, p, form):
    X, Y = make_problem(rng, p)
    X[:, 3] = X[:, 1]
    Z = X - X.mean(axis=0)
    expected = np.linalg.pinv(Z, rcond=1e-6) @ (Y - Y.mean(axis=0))
    found = cv.refit(X, Y, np.zeros(10), form=form)
    assert (np.abs(found.coef - expected).max(axis=0) / np.abs(expected).max(axis=0)).max() < 1e-3
    np.testing.assert_allclose(
        (X @ found.coef + found.intercept - Y.mean(axis=0)) / Y.std(axis=0),
        Z @ expected / Y.std(axis=0),
        atol=1e-3,
    )


def test_fits_of_constant_columns(rng):
    X, Y = make_problem(rng)
    X[:, 4] = 7.0
    Y[:, 0] = 3.5
    found = cv.refit(X, Y, np.full(10, 0.1), standardize=True)
    np.testing.assert_array_equal(found.coef[4], 0)
    np.testing.assert_array_equal(found.coef[:, 0], 0)
    assert found.intercept[0] == 3.5


def test_fits_take_tiles(rng):
    X, Y, _ = many_targets("plain", 10)
    alphas = rng.choice(ALPHAS, size=MANY)
    whole, parts = (cv.refit(X, Y, alphas, tile=tile) for tile in (None, TILE))
    spread = np.maximum(Y.std(axis=0), 1e-9)
    np.testing.assert_allclose(parts.coef / spread, whole.coef / spread, atol=1e-6)
    np.testing.assert_allclose(parts.intercept / spread, whole.intercept / spread, atol=1e-6)


@pytest.mark.parametrize("alphas", [np.full(10, -1.0), np.r_[np.ones(9), np.nan]])
def test_fits_refuse_negative_penalties(rng, alphas):
    with pytest.raises(ValueError, match="alphas must be >= 0 and finite"):
        cv.refit(*make_problem(rng), alphas)


def test_edges_are_the_shares_of_the_outermost_penalties():
    chosen = np.array([[1.0, 10.0, 100.0, 100.0], [1.0, 10.0, 10.0, 100.0]])
    assert cv.edges(chosen, np.array([10.0, 100.0, 1.0])) == (0.25, 0.375)


def test_grids_are_widened_in_their_own_steps():
    grid = 10.0 ** np.arange(-1, 4)
    np.testing.assert_allclose(cv.widen(grid, low=True, high=False), 10.0 ** np.arange(-3, 4))
    np.testing.assert_allclose(cv.widen(grid, low=False, high=True), 10.0 ** np.arange(-1, 6))
    np.testing.assert_allclose(cv.widen(grid, low=True, high=True), 10.0 ** np.arange(-3, 6))
    np.testing.assert_array_equal(cv.widen(grid[::-1], low=False, high=False), grid)


@pytest.mark.parametrize("grid", [[1.0], [0.0, 1.0], [-1.0, 1.0]])
def test_grids_that_cannot_be_widened_are_refused(grid):
    with pytest.raises(ValueError, match="A grid to widen must have 2 positive penalties"):
        cv.widen(np.array(grid), low=True, high=True)


# Refusals.


def test_rows_must_agree(rng, unchecked):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match="one row per sample of X: X has 60, Y has 59"):
        cv.nested(X, Y[1:], gapped_folds(), ALPHAS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["X", "Y"])
def test_features_and_targets_must_be_finite(rng, which, value):
    X, Y = make_problem(rng)
    {"X": X, "Y": Y}[which][7, 3] = value
    for run in (
        lambda: cv.nested(X, Y, gapped_folds(), ALPHAS),
        lambda: cv.select(X, Y, equal_folds()[0].inner, ALPHAS),
        lambda: cv.refit(X, Y, np.ones(10)),
    ):
        with pytest.raises(ValueError, match=f"{which} must be finite: it holds NaN or infinity"):
            run()


def test_the_tile_with_a_missing_value_is_named():
    X, Y, _ = many_targets("plain", 10)
    Y = Y.copy()
    Y[3, 250] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in columns 240\.\.319"):
        cv.nested(X, Y, gapped_folds(), ALPHAS, tile=TILE)


@pytest.mark.parametrize(
    "alphas", [[], [0.0, 1.0], [0.0, 0.0], [1.0, -1.0], [-1.0], [1.0, np.nan], [1.0, np.inf]]
)
def test_penalties_must_be_positive(rng, alphas):
    for run in (cv.nested, lambda *args: cv.select(*args[:2], args[2][0].inner, args[3])):
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
        cv.nested(*make_problem(rng), gapped_folds(), ALPHAS, **options)


def test_pools_name_every_target(rng, unchecked):
    with pytest.raises(ValueError, match=r"for each of 10 targets, got \(9,\)"):
        cv.nested(*make_problem(rng), gapped_folds(), ALPHAS, pool=np.zeros(9, int))


def test_folds_without_inner_splits_are_refused(rng):
    folds = [gapped_folds()[0], gapped_folds()[1]._replace(inner=())]
    with pytest.raises(ValueError, match="Outer fold 1 must have inner splits, got none"):
        cv.nested(*make_problem(rng), folds, ALPHAS)
    with pytest.raises(ValueError, match="must have inner splits, got none"):
        cv.select(*make_problem(rng), (), ALPHAS)


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
        cv.nested(*make_problem(rng), [first, *others], ALPHAS, form=form)


def test_no_folds_are_refused(rng):
    with pytest.raises(ValueError, match="folds"):
        cv.nested(*make_problem(rng), [], ALPHAS)


@pytest.mark.parametrize("standardize", [True, False])
def test_test_samples_that_are_the_same_to_the_fit_have_no_correlation(rng, standardize):
    """Each block has columns of its own, constant elsewhere: rounding would vary at random."""
    blocks = np.repeat(np.arange(4), 10)
    X = np.zeros((40, 40))
    for b in range(4):
        own = np.flatnonzero(blocks == b)
        X[np.ix_(own, own)] = rng.normal(size=(10, 10))
    Y = rng.normal(size=(40, 6))
    nested = folds_lib.contiguous_folds(["run"] * 40, 4, gap=0, groups=blocks)
    result = cv.nested(X, Y, nested, np.array([0.1, 10.0]), standardize=standardize)
    assert np.isnan(result.r).all() and np.isfinite(result.r2).all()
    # One sample that differs in a column of another block is enough.
    X[3, 25] = 1.0
    result = cv.nested(X, Y, nested, np.array([0.1, 10.0]), standardize=standardize)
    assert np.isfinite(result.r[0]).all() and np.isnan(result.r[1]).all()


@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("standardize", [False, True])
def test_held_out_predictions_match_float64(rng, p, standardize):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()[3:]  # samples of the others are never tested
    alphas = rng.choice([0.1, 1.0, 100.0], size=(len(folds), Y.shape[1]))
    found = cv.held_out(X, Y, folds, alphas, standardize=standardize)
    expected = np.full(Y.shape, np.nan)
    for fold, own in zip(folds, alphas, strict=True):
        for t, alpha in enumerate(own):
            deviations, mean = ridge_oracle.predict(
                X, Y[:, t : t + 1], fold.outer, np.array([alpha]), standardize=standardize
            )
            expected[fold.outer.test, t] = deviations[0, :, 0] + mean[0]
    assert np.isnan(found).any(axis=1).sum() == N - sum(len(fold.outer.test) for fold in folds)
    scale = Y.std(axis=0)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


def test_held_out_predictions_have_the_scores_of_nested(rng):
    X, Y = make_problem(rng)
    folds = equal_folds()
    scores = cv.nested(X, Y, folds, ALPHAS)
    predicted = cv.held_out(X, Y, folds, scores.alphas)
    for fold, expected in zip(folds, scores.r, strict=True):
        test = fold.outer.test
        r = ridge_oracle.pearson_r(predicted[test], Y[test])
        np.testing.assert_allclose(r, expected, atol=1e-5)


def test_samples_without_one_prediction_are_refused(rng):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match="one row for each of 5 folds, got 4"):
        cv.held_out(X, Y, equal_folds(), np.ones((4, Y.shape[1])))
    folds = equal_folds()[:1] * 2
    with pytest.raises(ValueError, match="folds must test no sample twice"):
        cv.held_out(X, Y, folds, np.ones((len(folds), Y.shape[1])))


# Relative errors, single penalties, norms


@pytest.mark.slow
@pytest.mark.parametrize("form", ["primal", "dual", "sums"])
def test_relative_errors_choose_penalties(rng, form):
    """Errors of each inner test set count in units of the target's variance in it."""
    X, Y = make_problem(rng)
    Y[:15, :8] *= 20  # one inner test set that would decide alone
    Y[48:, 2] = Y[48, 2]  # and one that says nothing of a target
    folds = equal_folds()
    found = cv.nested(
        X, Y, folds, DISTINCT_ALPHAS, standardize=False, criterion="relative_error", form=form
    )
    plain = cv.nested(X, Y, folds, DISTINCT_ALPHAS, standardize=False, form=form)
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


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_one_penalty_needs_no_inner_splits(rng, alpha):
    X, Y = make_problem(rng)
    outer = [Fold(fold.outer, ()) for fold in equal_folds()]
    found = cv.nested(X, Y, outer, np.array([alpha]))
    beside = cv.nested(X, Y, equal_folds(), np.array([alpha]))
    for name in ("r", "r2", "alphas", "predicted_norm", "recorded_norm"):
        np.testing.assert_array_equal(getattr(found, name), getattr(beside, name))
    assert np.isnan(found.inner_score).all() and np.isfinite(beside.inner_score).all()


@pytest.mark.parametrize("form", ["primal", "sums"])
def test_norms_are_in_the_units_of_targets(rng, form):
    X, Y = make_problem(rng)
    folds = equal_folds()
    found = cv.nested(X, Y, folds, np.array([2.0]), standardize=False, form=form)
    for i, fold in enumerate(folds):
        train, test = fold.outer
        predicted = Ridge(alpha=2.0).fit(X[train], Y[train]).predict(X[test])
        norm = lambda x: np.linalg.norm(x - x.mean(axis=0), axis=0)
        np.testing.assert_allclose(found.predicted_norm[i], norm(predicted), rtol=1e-4)
        # The baseline of 1e4 has taken digits.
        np.testing.assert_allclose(found.recorded_norm[i], norm(Y[test]), rtol=1e-4)
