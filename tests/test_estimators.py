"""The estimators against scikit-learn, and as citizens of it."""

import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model
import tensorstore as ts
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from jaxalign import estimators
from jaxalign.core.leaks import RepeatedStimuliWarning
from jaxalign.estimators import BandedRidgeCV, GridEdgeWarning, NestedRidgeCV, RidgeCV

ALPHAS = 10.0 ** np.arange(-2, 6)


@pytest.fixture
def problem(rng):
    X = rng.normal(size=(80, 12)) + 3
    Y = X @ rng.normal(size=(12, 6)) + 6 * rng.normal(size=(80, 6)) + 50
    return X, Y


def quiet(estimator, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        return estimator.fit(*data, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        RidgeCV(),
        RidgeCV(cv=3),
        NestedRidgeCV(outer_cv=3, refit=True),
        BandedRidgeCV(cv=3, num_draws=2, num_rounds=1),
    ],
    ids=["loo", "folds", "nested", "banded"],
)
@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings of scikit-learn's own
@pytest.mark.slow
def test_scikit_learns_checks_pass(estimator, unhooked):
    failed = [
        (check["check_name"], check["exception"])
        for check in check_estimator(estimator, on_fail=None)
        if check["status"] not in ("passed", "skipped")
    ]
    assert not failed


@pytest.fixture
def unhooked():
    """Type hints are checked before the values that these tests pass to be refused."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.slow
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_leave_one_out_agrees_with_scikit_learn(problem, fit_intercept):
    X, Y = problem
    ours = quiet(RidgeCV(ALPHAS, fit_intercept=fit_intercept), X, Y)
    theirs = sklearn.linear_model.RidgeCV(
        ALPHAS, fit_intercept=fit_intercept, alpha_per_target=True
    ).fit(X, Y)
    np.testing.assert_array_equal(ours.best_alphas_, theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("per_target", [True, False])
def test_one_penalty_or_one_for_each(problem, per_target):
    X, Y = problem
    ours = quiet(RidgeCV(ALPHAS, alpha_per_target=per_target), X, Y)
    theirs = sklearn.linear_model.RidgeCV(ALPHAS, alpha_per_target=per_target).fit(X, Y)
    np.testing.assert_array_equal(ours.alpha_, theirs.alpha_)


def test_labels_group_the_choice(problem):
    X, Y = problem
    labels = ["a", "b", "a", "b", "b", "c"]
    together = quiet(RidgeCV(ALPHAS, alpha_per_target=labels), X, Y)
    for label in "abc":
        own = [i for i, x in enumerate(labels) if x == label]
        alone = quiet(RidgeCV(ALPHAS, alpha_per_target=False), X, Y[:, own])
        np.testing.assert_array_equal(together.best_alphas_[own], alone.best_alphas_)


@pytest.mark.slow
def test_folds_agree_with_a_grid_search_by_hand(problem):
    X, Y = problem
    cv = KFold(4, shuffle=True, random_state=0)
    errors = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, test in cv.split(X):
        for a, alpha in enumerate(ALPHAS):
            model = sklearn.linear_model.Ridge(alpha).fit(X[train], Y[train])
            errors[a] += ((model.predict(X[test]) - Y[test]) ** 2).mean(axis=0)
    for search in ("grid", "adaptive"):
        ours = quiet(RidgeCV(ALPHAS, cv=cv, search=search), X, Y)
        np.testing.assert_array_equal(ours.best_alphas_, ALPHAS[errors.argmin(axis=0)])


@pytest.mark.slow
def test_nested_scores_agree_with_scikit_learn(problem):
    X, Y = problem
    outer, inner = KFold(4), ShuffleSplit(3, test_size=0.3, random_state=1)
    ours = quiet(NestedRidgeCV(ALPHAS, outer_cv=outer, inner_cv=inner), X, Y)
    assert ours.scores_.shape == ours.best_alphas_.shape == (4, 6)
    for fold, (train, test) in enumerate(outer.split(X)):
        errors = np.zeros((len(ALPHAS), Y.shape[1]))
        for a, b in inner.split(X[train]):
            for i, alpha in enumerate(ALPHAS):
                model = sklearn.linear_model.Ridge(alpha).fit(X[train][a], Y[train][a])
                errors[i] += ((model.predict(X[train][b]) - Y[train][b]) ** 2).mean(axis=0)
        best = ALPHAS[errors.argmin(axis=0)]
        np.testing.assert_array_equal(ours.best_alphas_[fold], best)
        model = sklearn.linear_model.Ridge(best).fit(X[train], Y[train])
        predicted = model.predict(X[test])
        expected = [np.corrcoef(predicted[:, v], Y[test, v])[0, 1] for v in range(6)]
        np.testing.assert_allclose(ours.scores_[fold], expected, atol=1e-5)


@pytest.mark.slow
def test_rows_that_are_tested_and_trained_on_are_warned_of(rng):
    """Unless groups keep them together."""
    order = np.r_[:30, 29:-1:-1]
    X, Y = rng.standard_normal((30, 12))[order], rng.standard_normal((60, 2))
    estimator = NestedRidgeCV(ALPHAS, outer_cv=3)
    with pytest.warns(RepeatedStimuliWarning, match="Features of 40 of 60 test samples"):
        quiet(estimator, X, Y)
    apart = NestedRidgeCV(ALPHAS, outer_cv=GroupKFold(3))
    assert np.isfinite(quiet(apart, X, Y, groups=order).scores_).all()


@pytest.mark.slow
def test_inner_splits_see_the_groups_of_their_training_set(problem):
    X, Y = problem
    groups = np.repeat(np.arange(10), 8)
    seen = []

    class Spy(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(np.array(groups))
            return super().split(X, y, groups)

    quiet(NestedRidgeCV(ALPHAS, outer_cv=GroupKFold(5), inner_cv=Spy(3)), X, Y, groups=groups)
    assert [len(np.unique(x)) for x in seen] == [8] * 5


@pytest.mark.slow
def test_the_other_folds_are_the_default_inner_ones(problem):
    X, Y = problem
    shared = quiet(NestedRidgeCV(ALPHAS, outer_cv=4), X, Y)

    class Others:
        """The blocks of KFold(4) that are left."""

        def split(self, X, y=None, groups=None):
            blocks = np.array_split(np.arange(len(X)), 3)
            for block in blocks:
                yield np.setdiff1d(np.arange(len(X)), block), block

    explicit = quiet(NestedRidgeCV(ALPHAS, outer_cv=4, inner_cv=Others()), X, Y)
    np.testing.assert_array_equal(shared.best_alphas_, explicit.best_alphas_)
    np.testing.assert_allclose(shared.scores_, explicit.scores_, atol=1e-6)


@pytest.mark.slow
def test_pipeline_clone_and_cross_validation(problem):
    X, Y = problem
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, cv=3, search="adaptive"))
    copy = clone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        scores = cross_val_score(copy, X, Y, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    with pytest.raises(sklearn.exceptions.NotFittedError):
        copy[-1].predict(X)


@pytest.mark.slow
def test_jax_arrays_and_rows_of_targets(problem):
    X, Y = problem
    X, y = X.astype(np.float32), Y[:, 0].astype(np.float32)
    from_numpy = quiet(RidgeCV(ALPHAS), X, y)
    from_jax = quiet(RidgeCV(ALPHAS), jnp.asarray(X), jnp.asarray(y))
    np.testing.assert_array_equal(from_numpy.coef_, from_jax.coef_)
    assert from_numpy.coef_.shape == (12,)
    assert from_numpy.predict(X).shape == (80,)
    assert isinstance(from_jax.predict(jnp.asarray(X)), np.ndarray)


def test_tensors_are_taken_over_by_dlpack():
    class Tensor:
        """What PyTorch shows of itself: it must be detached before it can be handed out."""

        def __init__(self, array, needs_gradient=True):
            self.array, self.needs_gradient = array, needs_gradient

        def detach(self):
            return Tensor(self.array, needs_gradient=False)

        def __dlpack__(self, **options):
            assert not self.needs_gradient
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    array = np.arange(6.0).reshape(3, 2)
    assert "torch" not in sys.modules or isinstance(sys.modules["torch"], types.ModuleType)
    np.testing.assert_array_equal(estimators._to_numpy(Tensor(array)), array)


def test_targets_on_disk(problem, tmp_path):
    X, Y = problem
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "y")}}
    store = ts.open(spec, create=True, dtype=ts.float64, shape=Y.shape).result()
    store.write(Y).result()
    on_disk = quiet(NestedRidgeCV(ALPHAS, outer_cv=4), X, store)
    in_memory = quiet(NestedRidgeCV(ALPHAS, outer_cv=4), X, Y)
    np.testing.assert_array_equal(on_disk.scores_, in_memory.scores_)


@pytest.mark.slow
def test_the_share_at_the_ends_of_the_grid_is_reported(problem):
    X, Y = problem
    Y = np.c_[Y, np.full(len(Y), 3.0)]
    with pytest.warns(GridEdgeWarning, match="100% of the choices are the smallest"):
        narrow = RidgeCV([1e6, 1e7]).fit(X, Y)
    assert narrow.edge_shares_ == (1.0, 0.0)
    assert narrow.num_constant_targets_ == 1


@pytest.mark.slow
def test_the_grid_is_widened_on_request(problem):
    X, Y = problem
    wide = quiet(RidgeCV([1e3, 1e4, 1e5, 1e6], widen_grid=5), X, Y)
    assert wide.alphas_[0] < 1e2
    np.testing.assert_allclose(wide.alphas_[1:] / wide.alphas_[:-1], 10)
    reference = quiet(RidgeCV(wide.alphas_), X, Y)
    np.testing.assert_array_equal(wide.best_alphas_, reference.best_alphas_)


def test_equal_penalties_go_to_the_largest(problem):
    X, _ = problem
    constant = quiet(RidgeCV(ALPHAS), X, np.full((80, 2), 7.0))
    np.testing.assert_array_equal(constant.best_alphas_, ALPHAS[-1])
    np.testing.assert_allclose(constant.predict(X), 7.0, rtol=1e-6)


@pytest.mark.slow
def test_features_are_reported(problem):
    X, Y = problem
    X = np.c_[X, np.ones(80), X[:, 0]]
    nested = quiet(NestedRidgeCV(ALPHAS, outer_cv=4), X, Y)
    np.testing.assert_array_equal(nested.num_constant_features_, 1)
    np.testing.assert_array_equal(nested.rank_, 12)
    assert (nested.condition_ > 1).all()


def test_nested_predicts_only_if_it_refits(problem):
    X, Y = problem
    scorer = quiet(NestedRidgeCV(ALPHAS, outer_cv=4), X, Y)
    assert not hasattr(scorer, "predict")
    fitted = quiet(NestedRidgeCV(ALPHAS, outer_cv=4, refit=True), X, Y)
    reference = quiet(RidgeCV(ALPHAS, cv=4), X, Y)
    np.testing.assert_allclose(fitted.predict(X), reference.predict(X), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scoring": "r2"}, "scoring must be one of"),
        ({"cv": "loo"}, "cv must be None, 'gcv'"),
        ({"cv": 1}, "cv must lie in 2..80"),
        ({"alphas": [0.0, 1.0]}, "alphas must be positive"),
        ({"cv": "gcv", "scoring": "pearson_r"}, "gcv"),
        ({"widen_grid": -1}, "widen_grid must be >= 0"),
    ],
)
def test_bad_settings_are_refused(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        RidgeCV(**settings).fit(*problem)


def test_shared_test_samples_need_inner_splits(problem):
    outer = ShuffleSplit(4, test_size=0.5, random_state=0)
    with pytest.raises(ValueError, match="cannot be inner ones"):
        NestedRidgeCV(ALPHAS, outer_cv=outer).fit(*problem)


@pytest.mark.slow
def test_bands_have_penalties_of_their_own(rng):
    X = rng.normal(size=(120, 30))
    Y = np.c_[X[:, :10] @ rng.normal(size=(10, 3)), X[:, 10:] @ rng.normal(size=(20, 3))]
    Y = Y + rng.normal(size=Y.shape)
    bands = ["a"] * 10 + ["b"] * 20
    model = quiet(BandedRidgeCV(ALPHAS, bands=bands, num_draws=4, num_rounds=1), X, Y)
    assert list(model.band_labels_) == ["a", "b"]
    assert (model.penalties_[0, :3] < model.penalties_[1, :3]).all()
    assert (model.penalties_[0, 3:] > model.penalties_[1, 3:]).all()
    parts = model.predict_bands(X)
    np.testing.assert_allclose(parts.sum(axis=0) + model.intercept_, model.predict(X), atol=1e-4)
    with pytest.raises(ValueError, match="bands must have a label for each of 30"):
        BandedRidgeCV(ALPHAS, bands=bands[1:]).fit(X, Y)


@pytest.mark.slow
def test_one_band_is_a_ridge(problem):
    X, Y = problem
    banded = quiet(BandedRidgeCV(ALPHAS, num_draws=2, num_rounds=1), X, Y)
    plain = quiet(RidgeCV(ALPHAS, cv=5, search="adaptive"), X, Y)
    np.testing.assert_array_equal(banded.best_alphas_, plain.best_alphas_)
    np.testing.assert_allclose(banded.coef_, plain.coef_, rtol=1e-4, atol=1e-5)
