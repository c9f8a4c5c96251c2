import jax.numpy as jnp
import numpy as np
import pytest
import ridge_oracle
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxalign.core import cv, ridge

FORMS = ("primal", "dual")
NUM_TRAIN = 30
SPLIT = cv.Split(np.arange(NUM_TRAIN), np.arange(NUM_TRAIN, 40))

# Training samples by features: n > p, n < p, n = p.
SIZES = [8, 70, NUM_TRAIN]


def make_problem(rng, p, v=5):
    X = rng.normal(size=(40, p))
    Y = X @ rng.normal(size=(p, v)) / np.sqrt(p) + rng.normal(size=(40, v))
    return X, Y


def fit(X, Y, *, form, standardize, train=SPLIT.train, mask=None):
    mask = np.ones(len(train), bool) if mask is None else mask
    design = ridge.factorize(X, train, mask, standardize=standardize, form=form)
    targets = jnp.asarray(Y, jnp.float32)
    return design, *ridge.rotate(design, targets, jnp.asarray(train), jnp.asarray(mask))


def predict(X, Y, alphas, **settings):
    """Return predicted deviations on the test rows, and the training mean."""
    design, rotated, mean = fit(X, Y, **settings)
    penalties = jnp.asarray(alphas, jnp.float32)
    return np.asarray(
        ridge.predict(design, rotated, jnp.asarray(SPLIT.test), penalties)
    ), np.asarray(mean)


def assert_close(predicted, expected, tolerance=1e-5):
    """Compare column by column, relative to the largest prediction of the column."""
    error = np.abs(predicted - expected).max(axis=0)
    np.testing.assert_array_less(error, tolerance * np.abs(expected).max(axis=0))


@pytest.mark.parametrize("form, standardize", [("primal", True), ("dual", True), ("dual", False)])
@pytest.mark.parametrize("p", SIZES)
def test_predictions_match_sklearn_with_a_penalty_per_target(rng, p, form, standardize):
    X, Y = make_problem(rng, p)
    alphas = np.array([1e-3, 1.0, 37.0, 1e4, 1e9])
    predicted, mean = predict(X, Y, alphas, form=form, standardize=standardize)

    scaler = StandardScaler(with_std=standardize)
    model = make_pipeline(scaler, Ridge(alphas, solver="svd"))
    model.fit(X[SPLIT.train], Y[SPLIT.train])
    slopes = scaler.transform(X[SPLIT.test]) @ model[-1].coef_.T
    assert_close(predicted, slopes, 5e-5)
    np.testing.assert_allclose(mean, model[-1].intercept_, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_one_target_matches_sklearn(rng, form):
    X, Y = make_problem(rng, 8, v=1)
    predicted, mean = predict(X, Y, [10.0], form=form, standardize=False)
    model = Ridge(10.0).fit(X[SPLIT.train], Y[SPLIT.train, 0])
    np.testing.assert_allclose(predicted[:, 0] + mean, model.predict(X[SPLIT.test]), atol=1e-5)


@pytest.mark.parametrize("p, standardize", [(8, False), (8, True), (NUM_TRAIN, True), (70, True)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3, 1e6, 1e9])
def test_primal_equals_dual(rng, p, standardize, alpha):
    X, Y = make_problem(rng, p)
    X[:, 1] = X[:, 0]
    X[:, 2] = 0.1
    alphas = np.full(Y.shape[1], alpha)
    primal, _ = predict(X, Y, alphas, form="primal", standardize=standardize)
    dual, _ = predict(X, Y, alphas, form="dual", standardize=standardize)
    assert_close(primal, dual, 5e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", SIZES)
def test_squared_errors_match_predictions_of_sklearn(rng, p, form):
    X, Y = make_problem(rng, p)
    alphas = 10.0 ** np.arange(-3, 10)
    design, rotated, mean = fit(X, Y, form=form, standardize=True)
    errors, null = ridge.squared_errors(
        design,
        rotated,
        mean,
        jnp.asarray(Y, jnp.float32),
        jnp.asarray(SPLIT.test),
        jnp.ones(len(SPLIT.test), bool),
        jnp.asarray(alphas, jnp.float32),
    )
    expected = []
    for alpha in alphas:
        model = make_pipeline(StandardScaler(), Ridge(alpha, solver="svd"))
        model.fit(X[SPLIT.train], Y[SPLIT.train])
        expected.append(
            mean_squared_error(
                Y[SPLIT.test], model.predict(X[SPLIT.test]), multioutput="raw_values"
            )
        )
    np.testing.assert_allclose(errors, expected, rtol=2e-5)
    of_mean = ((Y[SPLIT.test] - Y[SPLIT.train].mean(axis=0)) ** 2).mean(axis=0)
    np.testing.assert_allclose(null, of_mean, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_ordinary_least_squares_is_the_limit_of_small_penalties(rng, form):
    X, Y = make_problem(rng, 8)
    predicted, mean = predict(X, Y, np.full(5, 1e-6), form=form, standardize=False)
    A = np.c_[X, np.ones(len(X))]
    W = np.linalg.lstsq(A[SPLIT.train], Y[SPLIT.train], rcond=None)[0]
    np.testing.assert_allclose(predicted + mean, A[SPLIT.test] @ W, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_small_penalties_interpolate_when_features_outnumber_samples(rng, form):
    X, Y = make_problem(rng, 70)
    design, rotated, mean = fit(X, Y, form=form, standardize=True)
    predicted = ridge.predict(
        design, rotated, jnp.asarray(SPLIT.train), jnp.full(5, 1e-3, jnp.float32)
    )
    np.testing.assert_allclose(predicted + mean[None], Y[SPLIT.train], atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_large_penalties_leave_the_training_mean(rng, form):
    X, Y = make_problem(rng, 8)
    small, mean = predict(X, Y, np.full(5, 1e9), form=form, standardize=True)
    smaller, _ = predict(X, Y, np.full(5, 1e12), form=form, standardize=True)
    np.testing.assert_allclose(mean, Y[SPLIT.train].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(small, 0, atol=1e-6)
    # The direction of the slopes survives: they shrink in proportion.
    assert_close(smaller * 1e3, small)


@pytest.mark.parametrize("form, p", [("primal", 8), ("dual", 70)])
def test_padding_changes_nothing(rng, p, form):
    X, Y = make_problem(rng, p)
    alphas = np.logspace(-3, 5, 5)
    plain, mean = predict(X, Y, alphas, form=form, standardize=True)
    train = np.r_[SPLIT.train, np.zeros(7, int)]
    mask = np.arange(len(train)) < NUM_TRAIN
    padded, padded_mean = predict(X, Y, alphas, form=form, standardize=True, train=train, mask=mask)
    assert_close(padded, plain)
    np.testing.assert_allclose(padded_mean, mean, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_padded_test_rows_do_not_count(rng, form):
    X, Y = make_problem(rng, 8)
    design, rotated, mean = fit(X, Y, form=form, standardize=True)
    grid = jnp.asarray([1e-2, 1e2], jnp.float32)

    def errors(test, mask):
        return ridge.squared_errors(
            design, rotated, mean, jnp.asarray(Y, jnp.float32), test, mask, grid
        )

    plain = errors(jnp.asarray(SPLIT.test), jnp.ones(10, bool))
    padded = errors(jnp.asarray(np.r_[SPLIT.test, 0, 0, 0]), jnp.arange(13) < 10)
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(padded[1], plain[1], rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_order_of_training_samples_does_not_matter(rng, form):
    X, Y = make_problem(rng, 8)
    alphas = np.logspace(-3, 5, 5)
    plain, _ = predict(X, Y, alphas, form=form, standardize=True)
    train = rng.permutation(SPLIT.train)
    shuffled, _ = predict(X, Y, alphas, form=form, standardize=True, train=train)
    assert_close(shuffled, plain)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
def test_held_out_rows_do_not_reach_the_factorisation(rng, form, standardize):
    X, _ = make_problem(rng, 8)
    mask = np.ones(NUM_TRAIN, bool)
    before = ridge.factorize(X, SPLIT.train, mask, standardize=standardize, form=form)
    X[SPLIT.test] = 1e3 * rng.normal(size=(10, 8))
    after = ridge.factorize(X, SPLIT.train, mask, standardize=standardize, form=form)
    np.testing.assert_array_equal(after.spectrum, before.spectrum)
    np.testing.assert_array_equal(after.basis, before.basis)
    np.testing.assert_array_equal(after.loadings[:NUM_TRAIN], before.loadings[:NUM_TRAIN])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    "fill",
    [
        lambda rng: 0.0,
        lambda rng: 0.1,
        lambda rng: -1e4 / 3,
        lambda rng: 1e-33 * rng.normal(size=40),
        lambda rng: 1e5 + 1e-3 * rng.normal(size=40),
    ],
    ids=["zero", "constant", "large_constant", "tiny", "rounding_of_its_mean"],
)
def test_constant_features_are_counted_and_left_out(rng, form, standardize, fill):
    X, Y = make_problem(rng, 8)
    X[:, 3] = fill(rng)
    # A constant that jumps on the held-out rows cannot have been learnt from.
    X[SPLIT.test, 3] *= 2
    design, _, _ = fit(X, Y, form=form, standardize=standardize)
    assert int(design.num_constant) == 1

    predicted, _ = predict(X, Y, np.full(5, 1e-2), form=form, standardize=standardize)
    live = np.delete(X, 3, axis=1)
    expected, _ = ridge_oracle.fit_predict(live, Y, SPLIT, [1e-2], standardize=standardize)
    assert_close(predicted, expected[0])


@pytest.mark.parametrize("form", FORMS)
def test_varying_features_of_unequal_scale_all_count(rng, form):
    X, Y = make_problem(rng, 8)
    plain, _ = predict(X, Y, np.full(5, 3.0), form=form, standardize=True)
    scaled = X * np.logspace(-3, 2, 8) + 10.0
    design, _, _ = fit(scaled, Y, form=form, standardize=True)
    predicted, _ = predict(scaled, Y, np.full(5, 3.0), form=form, standardize=True)
    assert int(design.num_constant) == 0
    assert_close(predicted, plain)


@pytest.mark.parametrize("form", FORMS)
def test_constant_features_predict_no_deviation_at_all(rng, form):
    _, Y = make_problem(rng, 8)
    X = np.full((40, 8), 0.1)
    predicted, _ = predict(X, Y, np.full(5, 1e-3), form=form, standardize=True)
    np.testing.assert_array_equal(predicted, 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_factorisation_is_orthogonal(rng, form):
    X, _ = make_problem(rng, 8)
    mask = np.ones(NUM_TRAIN, bool)
    design = ridge.factorize(X, SPLIT.train, mask, standardize=False, form=form)
    gram = np.asarray(design.basis).T @ np.asarray(design.basis)
    expected = np.diag(design.spectrum) if form == "primal" else np.eye(NUM_TRAIN)
    np.testing.assert_allclose(gram, expected, atol=1e-4)
    assert (np.asarray(design.spectrum) >= 0).all()
    assert {leaf.dtype for leaf in design[:3]} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "num_train, num_features, form",
    [(10, 9, "primal"), (10, 10, "dual"), (10, 11, "dual"), (1000, 768, "primal")],
)
def test_the_form_is_that_of_the_smaller_eigenproblem(num_train, num_features, form):
    assert ridge.choose_form(num_train, num_features) == form


def test_inputs_are_not_changed(rng):
    X, Y = make_problem(rng, 8)
    X_before = X.copy()
    fit(X, Y, form="primal", standardize=True)
    np.testing.assert_array_equal(X, X_before)
