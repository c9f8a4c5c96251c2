import numpy as np
import pytest
import ridge_oracle
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxalign.core import metrics
from jaxalign.core.folds import Split
from jaxalign.core.solver import columns, ridge
from jaxalign.core.solver.columns import Columns

FORMS = ("primal", "dual", "sums")
ROW_FORMS = ("primal", "dual")
N, NUM_TRAIN, V = 40, 30, 5
SPLIT = Split(np.arange(NUM_TRAIN), np.arange(NUM_TRAIN, N))
# Training samples are not in one piece, and some samples are not used at all.
BLOCKS = (np.r_[0:7, 30], np.arange(7, 20), np.arange(20, 30), np.arange(31, 36), np.arange(36, 40))
SCATTERED = Split(np.concatenate(BLOCKS[:2]), np.concatenate(BLOCKS[3:]))

# Training samples by features: n > p, n < p, n = p.
SIZES = [8, 70, NUM_TRAIN]
ALPHAS = np.array([1e-3, 1.0, 37.0, 1e4, 1e9])


def make_problem(rng, p, v=V):
    X = rng.normal(size=(N, p))
    Y = X @ rng.normal(size=(p, v)) / np.sqrt(p) + rng.normal(size=(N, v))
    return X, Y


def factorize(
    X, split=SPLIT, *, form, standardize=False, center=False, pad=0, shared=None, **settings
):
    """Factorise one training set for one test set."""
    X = np.asarray(X, np.float64)
    train, test = (np.r_[side, np.zeros(pad, int)] for side in split)
    masks = [np.arange(len(side) + pad) < len(side) for side in split]
    rows = ridge.Rows(train, masks[0], test[None], masks[1][None])
    return ridge.factorize(
        X, rows, ridge.Settings(standardize, center, form, **settings), shared=shared
    )


def blocks_of(split):
    """Cut each side in two, so that sums are over several blocks."""
    parts = [part for side in split for part in np.array_split(side, 2)]
    return tuple(parts), np.arange(4) < 2


def factorize_sums(X, split=SPLIT, *, standardize=False, center=False, **settings):
    blocks, train = blocks_of(split)
    sums, coordinates = ridge.statistics(X, blocks, standardize=standardize)
    members = ridge.Members(train, ~train[None])
    settings = ridge.Settings(standardize, center, **settings)
    design = ridge.factorize_statistics(sums, members, settings)
    samples = [np.float64(x) + mean for x, mean in zip(coordinates, sums.offset, strict=True)]
    return samples, design


def slopes(design, Y, alphas, split=SPLIT):
    """Return predictions [T v] of the (only) test set, as its docstring says, in float64."""
    w = np.float64(design.basis) @ Y[split.train]
    return np.float64(design.loadings[0]) @ (w / (np.float64(design.spectrum)[:, None] + alphas))


def rotated_by_sums(samples, design, Y, split):
    """Rotate products of targets with coordinates of samples, about the training mean."""
    blocks, train = blocks_of(split)
    C = np.concatenate([x for x, own in zip(samples, train, strict=True) if own])
    y = Y[np.concatenate([block for block, own in zip(blocks, train, strict=True) if own])]
    return np.float64(design.basis) @ (C - C.mean(axis=0)).T @ (y - y.mean(axis=0))


def moments(X, Y, alphas, split=SPLIT, *, form, **settings):
    """Return sums of squared predictions over the test set [v], as any form has them."""
    alphas = np.broadcast_to(alphas, Y.shape[1])
    if form != "sums":
        design = factorize(X, split, form=form, **settings)
        return (slopes(design, Y, alphas, split) ** 2).sum(axis=0)
    samples, design = factorize_sums(X, split, **settings)
    w = rotated_by_sums(samples, design, Y, split)
    z = w / (np.float64(design.spectrum)[:, None] + alphas)
    return (z * (np.float64(design.loadings[0]) @ z)).sum(axis=0)


def oracle(X, Y, alphas, split=SPLIT, *, standardize=False):
    """Return deviations from the training mean, each target with its own penalty."""
    each, _ = ridge_oracle.predict(X, Y, split, alphas, standardize=standardize)
    return each[np.arange(len(alphas)), :, np.arange(len(alphas))].T


def assert_close(predicted, expected, tolerance=1e-5):
    """Compare column by column, relative to the largest prediction of the column."""
    error = np.abs(predicted - expected).max(axis=0)
    np.testing.assert_array_less(error, tolerance * np.abs(expected).max(axis=0))


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", SIZES)
def test_predictions_match_sklearn_with_a_penalty_per_target(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    predicted = slopes(factorize(X, form=form, standardize=standardize), Y, ALPHAS)
    scaler = StandardScaler(with_std=standardize)
    model = make_pipeline(scaler, Ridge(ALPHAS, solver="svd"))
    model.fit(X[SPLIT.train], Y[SPLIT.train])
    assert_close(predicted, scaler.transform(X[SPLIT.test]) @ model[-1].coef_.T, 5e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", SIZES)
def test_moments_match_the_oracle(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    found = moments(X, Y, ALPHAS, SCATTERED, form=form, standardize=standardize)
    expected = oracle(X, Y, ALPHAS, SCATTERED, standardize=standardize)
    np.testing.assert_allclose(found, (expected**2).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", [8, 70])
def test_centred_loadings_keep_their_mean_apart(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    expected = oracle(X, Y, ALPHAS, standardize=standardize)
    settings = {"standardize": standardize, "center": True}
    if form == "sums":
        samples, design = factorize_sums(X, **settings)
        w = rotated_by_sums(samples, design, Y, SPLIT)
    else:
        design = factorize(X, form=form, **settings)
        w = np.float64(design.basis) @ Y[SPLIT.train]
    z = w / (np.float64(design.spectrum)[:, None] + ALPHAS)
    mean = np.float64(design.mean_loading[0]) @ z
    largest = np.abs(expected).max(axis=0)
    np.testing.assert_allclose(mean / largest, expected.mean(axis=0) / largest, atol=2e-5)
    L = np.float64(design.loadings[0])
    square = (z * (L @ z)).sum(axis=0) if form == "sums" else ((L @ z) ** 2).sum(axis=0)
    np.testing.assert_allclose(square, expected.var(axis=0) * len(SPLIT.test), rtol=1e-4)
    plain = factorize(X, form="dual", standardize=standardize)
    np.testing.assert_array_equal(plain.mean_loading, 0)


@pytest.mark.parametrize("p, standardize", [(8, False), (8, True), (NUM_TRAIN, True), (70, True)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3, 1e6, 1e9])
def test_primal_equals_dual(rng, p, standardize, alpha):
    X, Y = make_problem(rng, p)
    X[:, 1] = X[:, 0]
    X[:, 2] = 0.1
    primal, dual = (
        slopes(factorize(X, form=form, standardize=standardize), Y, alpha) for form in ROW_FORMS
    )
    assert_close(primal, dual, 5e-5)


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("p", [8, 70])
def test_a_shared_kernel_changes_nothing(rng, p, form):
    X, Y = make_problem(rng, p)
    X = X + 100
    plain = slopes(factorize(X, SCATTERED, form=form), Y, ALPHAS, SCATTERED)
    shared = factorize(X, SCATTERED, form=form, shared=ridge.kernel(X))
    assert_close(slopes(shared, Y, ALPHAS, SCATTERED), plain)


def test_a_kernel_is_about_the_mean_of_all_samples(rng):
    X, _ = make_problem(rng, 8)
    Z = X - X.mean(axis=0)
    np.testing.assert_allclose(ridge.kernel(X + 1e3).products, Z @ Z.T, atol=1e-8)


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("p", SIZES)
def test_no_penalty_is_least_squares_of_minimum_norm(rng, p, form):
    X, Y = make_problem(rng, p)
    X[:, 1] = X[:, 4] = X[:, 0]
    predicted = slopes(factorize(X, form=form), Y, np.zeros(V))
    Z = X - X[SPLIT.train].mean(axis=0)
    W = np.linalg.pinv(Z[SPLIT.train], rcond=1e-6) @ (Y - Y[SPLIT.train].mean(axis=0))[SPLIT.train]
    # 30 centred samples of 30 features are nearly singular, without a penalty.
    assert_close(predicted, Z[SPLIT.test] @ W, 1e-3 if p == NUM_TRAIN else 5e-5)
    assert_close(oracle(X, Y, np.zeros(1))[:, :1], (Z[SPLIT.test] @ W)[:, :1], 1e-8)


@pytest.mark.parametrize("form", ROW_FORMS)
def test_small_penalties_interpolate_when_features_outnumber_samples(rng, form):
    X, Y = make_problem(rng, 70)
    itself = Split(SPLIT.train, SPLIT.train)
    predicted = slopes(factorize(X, itself, form=form), Y, np.full(V, 1e-3), itself)
    y = Y[SPLIT.train]
    np.testing.assert_allclose(predicted, y - y.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize("form", ROW_FORMS)
def test_large_penalties_leave_the_direction_of_the_slopes(rng, form):
    X, Y = make_problem(rng, 8)
    design = factorize(X, form=form, standardize=True)
    small, smaller = (slopes(design, Y, np.full(V, alpha)) for alpha in (1e9, 1e12))
    np.testing.assert_allclose(small, 0, atol=1e-6)
    assert_close(smaller * 1e3, small)


@pytest.mark.parametrize("form, p", [("primal", 8), ("dual", 70)])
def test_padding_changes_nothing(rng, p, form):
    X, Y = make_problem(rng, p)
    plain = factorize(X, form=form, standardize=True, center=True)
    padded = factorize(X, form=form, standardize=True, center=True, pad=7)
    longer = np.r_[Y[SPLIT.train], 100 * rng.normal(size=(7, V))]
    w = np.float64(padded.basis) @ longer
    z = w / (np.float64(padded.spectrum)[:, None] + ALPHAS)
    predicted = np.float64(padded.loadings[0]) @ z
    assert_close(predicted[:10], slopes(plain, Y, ALPHAS))
    np.testing.assert_array_equal(predicted[10:], 0)
    expected = slopes(factorize(X, form=form, standardize=True), Y, ALPHAS).mean(axis=0)
    np.testing.assert_allclose(np.float64(padded.mean_loading[0]) @ z, expected, rtol=1e-4)
    assert int(padded.rank) == int(plain.rank)


@pytest.mark.parametrize("form", ROW_FORMS)
def test_order_of_training_samples_does_not_matter(rng, form):
    X, Y = make_problem(rng, 8)
    shuffled = Split(rng.permutation(SPLIT.train), SPLIT.test)
    assert_close(
        slopes(factorize(X, shuffled, form=form), Y, ALPHAS, shuffled),
        slopes(factorize(X, form=form), Y, ALPHAS),
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
def test_held_out_rows_do_not_reach_the_fit(rng, form, standardize):
    # Sums may take their axes from all samples, for no ridge depends on the axes.
    X, Y = make_problem(rng, 8)
    find = lambda: factorize(X, form=form, standardize=standardize)
    if form == "sums":
        find = lambda: factorize_sums(X, standardize=standardize)[1]
    before = find()
    X[SPLIT.test] = 1e3 * rng.normal(size=(10, 8))
    after = find()
    names = ("spectrum", "rank", "condition")
    for name in names if form == "sums" else (*names, "basis"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    "fill",
    [
        lambda rng: 0.0,
        lambda rng: 0.1,
        lambda rng: -1e4 / 3,
        lambda rng: 1e-33 * rng.normal(size=N),
        lambda rng: 1e5 + 1e-3 * rng.normal(size=N),
    ],
    ids=["zero", "constant", "large_constant", "tiny", "rounding_of_its_mean"],
)
def test_constant_features_are_counted_and_left_out(rng, form, standardize, fill):
    X, Y = make_problem(rng, 8)
    X[:, 3] = fill(rng)
    # A constant that jumps on the held-out rows cannot have been learnt from.
    X[SPLIT.test, 3] *= 2
    settings = {"standardize": standardize}
    assert (~Columns(X).varying(SPLIT.train)).sum() == 1
    found = moments(X, Y, 1e-2, form=form, **settings)
    expected = oracle(np.delete(X, 3, axis=1), Y, np.full(V, 1e-2), **settings)
    np.testing.assert_allclose(found, (expected**2).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("smallest, mean", [(-3, 10.0), (-25, 0.0)])
def test_varying_features_of_unequal_scale_all_count(rng, form, smallest, mean):
    X, Y = make_problem(rng, 8)
    plain = moments(X, Y, 3.0, form="primal", standardize=True)
    scaled = X * np.logspace(smallest, 2, 8) + mean
    assert Columns(scaled).varying(SPLIT.train).all()
    np.testing.assert_allclose(
        moments(scaled, Y, 3.0, form=form, standardize=True), plain, rtol=2e-5
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
def test_constant_features_predict_no_deviation_at_all(rng, form, standardize):
    _, Y = make_problem(rng, 8)
    X = np.full((N, 8), 0.1)
    settings = {"standardize": standardize}
    design = (
        factorize_sums(X, **settings)[1] if form == "sums" else factorize(X, form=form, **settings)
    )
    assert (~Columns(X).varying(SPLIT.train)).sum() == 8
    assert int(design.rank) == 0
    assert np.isnan(design.condition)
    np.testing.assert_array_equal(design.loadings, 0)


def rank_and_condition(X, form, **settings):
    if form == "sums":
        design = factorize_sums(X, **settings)[1]
    else:
        design = factorize(X, form=form, **settings)
    return int(design.rank), float(design.condition)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, rank", [(8, 8), (70, NUM_TRAIN - 1), (NUM_TRAIN, NUM_TRAIN - 1)])
def test_rank_and_condition_are_those_of_the_centred_features(rng, p, rank, form):
    X, _ = make_problem(rng, p)
    Z = X[SPLIT.train] - X[SPLIT.train].mean(axis=0)
    values = np.linalg.svd(Z, compute_uv=False)[:rank] ** 2
    found = rank_and_condition(X + 50, form)
    assert found[0] == rank
    assert found[1] == pytest.approx(values[0] / values[-1], rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_duplicated_and_constant_features_add_no_rank(rng, form):
    X, _ = make_problem(rng, 8)
    X[:, 1] = X[:, 0]
    X[:, 2] = 2 * X[:, 0] - 3 * X[:, 5]
    X[:, 3] = 7.0
    assert rank_and_condition(X, form)[0] == 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cutoff", [1e-12, 3e-5, 3e-3, 0.3])
def test_directions_below_the_cutoff_are_dropped(rng, form, cutoff):
    U, V_ = (np.linalg.qr(rng.normal(size=shape))[0] for shape in ((NUM_TRAIN, 9), (8, 8)))
    # Orthogonal to the constant: centring leaves the singular values as they are.
    U = np.linalg.qr(np.c_[np.ones(NUM_TRAIN), U])[0][:, 1:9]
    values = 10.0 ** -np.arange(0, 4, 0.5)
    X = np.r_[(U * values) @ V_.T, rng.normal(size=(10, 8))]
    kept = values**2 > cutoff
    rank, condition = rank_and_condition(X, form, cutoff=cutoff)
    assert rank == kept.sum()
    assert condition == pytest.approx(1 / values[kept].min() ** 2, rel=1e-4)
    if form == "sums":
        return
    Y = rng.normal(size=(N, V))
    predicted = slopes(factorize(X, form=form, cutoff=cutoff), Y, np.zeros(V))
    Z = X - X[SPLIT.train].mean(axis=0)
    W = np.linalg.pinv(Z[SPLIT.train], rcond=np.sqrt(cutoff)) @ Y[SPLIT.train]
    assert_close(predicted, Z[SPLIT.test] @ W, 1e-4)


@pytest.mark.parametrize("form", ROW_FORMS)
def test_a_factorisation_is_orthogonal(rng, form):
    X, _ = make_problem(rng, 8)
    design = factorize(X, form=form)
    gram = np.asarray(design.basis) @ np.asarray(design.basis).T
    rank = int(design.rank)
    kept = (np.arange(len(gram)) >= len(gram) - rank).astype(float)
    expected = np.diag(design.spectrum if form == "primal" else kept)
    np.testing.assert_allclose(gram, expected, atol=1e-4)
    # What is dropped has a harmless eigenvalue, and no direction.
    assert (np.asarray(design.spectrum) > 0).all()
    assert (np.diff(design.spectrum[-rank:]) >= 0).all()
    assert {leaf.dtype for leaf in design[:4]} == {np.dtype("float32")}


@pytest.mark.parametrize("standardize", [True, False])
def test_sums_have_the_gram_matrices_of_the_primal_loadings(rng, standardize):
    X, _ = make_problem(rng, 8)
    _, sums = factorize_sums(X, standardize=standardize)
    primal = factorize(X, form="primal", standardize=standardize)
    np.testing.assert_allclose(sums.spectrum, primal.spectrum, rtol=1e-5)
    L = np.float64(primal.loadings[0])
    # Signs of directions are free.
    np.testing.assert_allclose(np.abs(sums.loadings[0]), np.abs(L.T @ L), rtol=1e-4, atol=1e-4)


def test_statistics_are_sums_over_blocks(rng):
    X, _ = make_problem(rng, 8)
    sums, coordinates = ridge.statistics(X + 1e3, BLOCKS, standardize=False)
    for f, block in enumerate(BLOCKS):
        rows = X[block] + 1e3
        assert sums.count[f] == len(block)
        np.testing.assert_allclose(sums.mean[f], rows.mean(axis=0), rtol=1e-12)
        deviations = rows - rows.mean(axis=0)
        np.testing.assert_allclose(sums.scatter[f], deviations.T @ deviations, atol=1e-8)
        back = np.float64(coordinates[f]) @ np.asarray(sums.axes)
        np.testing.assert_allclose(back, deviations, atol=1e-5)
    middle = X[np.concatenate(BLOCKS)].mean(axis=0) + 1e3
    means = np.asarray(sums.offset) @ np.asarray(sums.axes) + middle
    np.testing.assert_allclose(means, sums.mean, rtol=1e-9)


@pytest.mark.parametrize("decades", [2, 4, 8])
def test_small_directions_survive_in_sums(rng, decades):
    # Products with targets are taken in float32, in which the large directions round.
    X, _ = make_problem(rng, 8)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    values = np.logspace(0, -decades / 2, 8)
    Y = X[:, [-1]] + 0.1 * rng.normal(size=(N, V))
    X = (X * values) @ rotation
    alpha = 10.0**-decades
    found = moments(X, Y, alpha, form="sums")
    expected = oracle(X, Y, np.full(V, alpha))
    np.testing.assert_allclose(found, (expected**2).sum(axis=0), rtol=1e-3)


def test_units_of_features_survive_in_sums(rng):
    X, Y = make_problem(rng, 8)
    X = X * np.logspace(-2, 4, 8) + 10 * np.logspace(-2, 4, 8)
    for standardize, alpha in [(True, 1.0), (False, 1e-3)]:
        found = moments(X, Y, alpha, form="sums", standardize=standardize)
        expected = moments(X, Y, alpha, form="primal", standardize=standardize)
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("form", ROW_FORMS)
def test_stacked_training_sets_keep_their_order(rng, form):
    X, Y = make_problem(rng, 8)
    tests = np.arange(30, 40).reshape(2, 5)
    rows = [
        ridge.Rows(np.arange(a, a + 20), np.ones(20, bool), tests[:m], np.ones((m, 5), bool))
        for a, m in ((0, 1), (10, 2), (5, 1))
    ]
    designs = [ridge.factorize(X, some, ridge.Settings(True, True, form)) for some in rows]
    stacked = ridge.stack(designs)
    assert stacked.spectrum.shape == (3, 8 if form == "primal" else 20)
    assert stacked.loadings.shape[0] == stacked.mean_loading.shape[0] == 4
    for name in ("spectrum", "basis", "rank", "condition"):
        for i, design in enumerate(designs):
            np.testing.assert_array_equal(getattr(stacked, name)[i], getattr(design, name))
    for name in ("loadings", "mean_loading"):
        expected = np.concatenate([getattr(design, name) for design in designs])
        np.testing.assert_array_equal(getattr(stacked, name), expected)


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", [8, 70])
def test_all_samples_can_be_fitted(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    X[:, 2] = 0.1
    design, features, mean = ridge.factorize_all(X + 3, ridge.Settings(standardize, False, form))
    w = np.float64(design.basis) @ Y
    z = w / (np.float64(design.spectrum)[:, None] + ALPHAS[:4, None].mean())
    scale = X.std(axis=0) if standardize else np.ones(p)
    live = np.arange(p) != 2
    expected = np.zeros((p, V))
    model = Ridge(ALPHAS[:4].mean(), solver="svd").fit(X[:, live] / scale[live], Y)
    expected[live] = (model.coef_ / scale[live]).T
    assert_close(np.float64(features) @ z, expected)
    np.testing.assert_array_equal((np.float64(features) @ z)[2], 0)
    np.testing.assert_allclose(mean, X.mean(axis=0) + 3)


@pytest.mark.parametrize(
    "num_train, num_features, form",
    [(10, 9, "primal"), (10, 10, "dual"), (10, 11, "dual"), (1000, 768, "primal")],
)
def test_the_form_is_that_of_the_smaller_eigenproblem(num_train, num_features, form):
    assert ridge.choose_form(num_train, num_features) == form


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", SIZES)
def test_without_an_intercept_nothing_is_centred(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    X, Y = X + 1, Y + 5
    predicted = slopes(factorize(X, form=form, standardize=standardize, intercept=False), Y, ALPHAS)
    Z = X / X[SPLIT.train].std(axis=0) if standardize else X
    model = Ridge(ALPHAS, solver="svd", fit_intercept=False).fit(Z[SPLIT.train], Y[SPLIT.train])
    assert_close(predicted, Z[SPLIT.test] @ model.coef_.T, 5e-5)


def test_without_an_intercept_a_shared_kernel_changes_nothing(rng):
    X, Y = make_problem(rng, 70)
    settings = {"form": "dual", "intercept": False}
    shared = factorize(X, **settings, shared=ridge.kernel(X, intercept=False))
    assert_close(slopes(shared, Y, ALPHAS), slopes(factorize(X, **settings), Y, ALPHAS))


def test_without_an_intercept_a_constant_feature_stands_in_for_it(rng):
    X, Y = make_problem(rng, 8)
    X[:, 3] = 1e3
    Y = Y + 5
    design = factorize(X, form="primal", intercept=False)
    assert (~Columns(X).varying(SPLIT.train)).sum() == 1
    live = np.delete(X, 3, axis=1)
    expected, mean = ridge_oracle.predict(live, Y, SPLIT, np.ones(1))
    np.testing.assert_allclose(slopes(design, Y, np.ones(V)), expected[0] + mean, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_not_changed(rng, form):
    X, Y = make_problem(rng, 8)
    before = X.copy(), Y.copy()
    moments(X, Y, 1.0, form=form, standardize=True)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(Y, before[1])


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("offset", [0, 100, 1000])
@pytest.mark.parametrize("least_squares", [True, False])
def test_rounding_of_float32_adds_no_direction(rng, form, offset, least_squares):
    X = np.float32(rng.normal(size=(N, 7)) @ rng.normal(size=(7, 100)) + offset)
    settings = {"precision": metrics.precision(X), "least_squares": least_squares}
    assert int(factorize(X, form=form, **settings).rank) == 7
    shared = ridge.kernel(X.astype(np.float64))
    assert int(factorize(X, form=form, shared=shared, **settings).rank) == 7


@pytest.mark.parametrize("form", ROW_FORMS)
def test_least_squares_keeps_features_in_small_units(rng, form):
    X, Y = make_problem(rng, 8)
    plain, small = X.copy(), X.copy()
    small[:, 3] *= 1e-9
    found, expected = (
        slopes(factorize(x, form=form, least_squares=True), Y, np.zeros(V)) for x in (small, plain)
    )
    assert_close(found, expected)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
def test_units_are_powers_of_two_that_features_are_near_to(rng, each, intercept):
    X = rng.normal(size=(N, 5)) * [1e-30, 1, 1e30, 7, 0]
    X[:, [1, 3]] += 100 * intercept
    found = columns.units(X, each=each, intercept=intercept)
    np.testing.assert_array_equal(np.log2(found) % 1, 0)
    sizes = np.abs(X - X.mean(axis=0) * intercept).max(axis=0)
    if each:
        np.testing.assert_array_equal(found[4], 1)
        assert ((sizes / found)[:4] >= 1).all() and ((sizes / found)[:4] < 4).all()
    else:
        np.testing.assert_array_equal(found, found[2])
