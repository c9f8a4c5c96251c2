"""Shares of what model and controls explain, and R2 out of sample, against scikit-learn."""

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import KFold

from jaxalign.core import folds
from jaxalign.core.solver import banded, cv, partition
from jaxalign.core.solver.method import Method

N, P, C, V = 90, 30, 2, 5
ALPHA = 20.0


@pytest.fixture
def problem(rng):
    """A model, controls that it partly holds, and responses to both; the last is noise."""
    controls = rng.normal(size=(N, C))
    X = rng.normal(size=(N, P))
    X[:, :C] += 2 * controls
    Y = controls @ rng.normal(size=(C, V)) + 0.7 * X[:, C:8] @ rng.normal(size=(8 - C, V))
    Y[:, -1] = 0
    # Blocks of unlike means, so that test means differ from training means.
    return X, controls, Y + rng.normal(size=(N, V)) + np.repeat([0.0, 0.5, -0.5], N // 3)[:, None]


def out_of_sample(make, X, Y, splits):
    """1 - MSE / MSE of a regression with nothing but an intercept, errors of all folds pooled."""
    error, total = np.zeros((2, Y.shape[1]))
    for split in splits:
        fit = lambda model, s=split: model.fit(X[s.train], Y[s.train]).predict(X[s.test])
        loss = lambda p, s=split: (
            len(s.test) * mean_squared_error(Y[s.test], p, multioutput="raw_values")
        )
        error += loss(fit(make()))
        total += loss(fit(DummyRegressor()))
    return 1 - error / total


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [False, True])
def test_omega_is_that_of_scikit_learn(problem, shuffle):
    X, controls, Y = problem
    nested = folds.nest(KFold(5, shuffle=shuffle, random_state=0 if shuffle else None), 3, N)
    splits = [fold.outer for fold in nested]
    both = np.hstack([X, controls])
    method = Method((ALPHA,), standardize=False)
    found, expected = [], []
    # Columns set to 0 explain nothing, and all three are compiled once.
    of_model = np.arange(P + C) < P
    for features in (both * of_model, both * ~of_model, both):
        r2 = cv.nested(features, Y, nested, method).r2
        found.append(partition.r2_out_of_sample(r2, Y, splits))
        expected.append(out_of_sample(lambda: Ridge(ALPHA), features, Y, splits))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    shares = partition.shares(*found)
    model, alone, joint = expected
    np.testing.assert_allclose(shares.unique_model, joint - alone, atol=1e-5)
    np.testing.assert_allclose(shares.unique_controls, joint - model, atol=1e-5)
    np.testing.assert_allclose(shares.shared, model + alone - joint, atol=1e-5)
    with np.errstate(invalid="ignore"):
        omega = np.where(model >= partition.LEAST_R2, (1 - (joint - alone) / model) * 100, np.nan)
    np.testing.assert_allclose(shares.omega, omega, rtol=1e-3, atol=1e-2)
    # The last target is noise and block means, which no feature explains on other samples.
    assert (model[:-1] > 0.1).all() and model[-1] < 0 and np.isnan(shares.omega[-1])


@pytest.mark.slow
def test_bands_of_their_own_penalties_recover_what_is_shared(rng):
    """The model holds the controls and something of its own: half of what it explains."""
    n = 400
    controls, own = rng.normal(size=(2, n, 1))
    X = np.hstack([controls, own, rng.normal(size=(n, 20))])
    Y = controls + own + 0.5 * rng.normal(size=(n, 1))
    nested = folds.nest(4, 4, n)
    splits = [fold.outer for fold in nested]
    both = np.hstack([X, controls])
    bands = np.repeat([0, 1], [X.shape[1], 1])
    method = Method(10.0 ** np.arange(-1, 5), standardize=False)
    budget = banded.Budget(0, num_draws=4, rounds=1)
    r2 = [cv.nested(both * (bands == b), Y, nested, method).r2 for b in (0, 1)]
    joint = banded.nested(banded.Features(both, bands), Y, nested, method, budget)
    r2.append(joint.r2)
    shares = partition.shares(*(partition.r2_out_of_sample(x, Y, splits) for x in r2))
    # Of the variance, 2.25: 1 of each, and .25 of noise.
    assert shares.model[0] == pytest.approx(2 / 2.25, abs=0.03)
    assert shares.unique_model[0] == pytest.approx(1 / 2.25, abs=0.06)
    assert shares.unique_controls[0] == pytest.approx(0, abs=0.01)
    assert shares.shared[0] == pytest.approx(1 / 2.25, abs=0.06)
    assert shares.omega[0] == pytest.approx(50, abs=7)


@pytest.mark.slow
def test_the_training_mean_explains_nothing(problem):
    """Constant features: 0 where the usual R2, about a mean that was not known, is negative."""
    _, _, Y = problem
    nested = folds.nest(3, 3, N)  # of the three blocks
    result = cv.nested(np.ones((N, 1)), Y, nested, Method((1.0,)))
    assert (result.r2 < -0.05).any()
    found = partition.r2_out_of_sample(result.r2, Y, [fold.outer for fold in nested])
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_parts_add_up_and_nothing_is_clipped(rng):
    model, controls, joint = rng.normal(scale=0.2, size=(3, 50))
    found = partition.shares(model, controls, joint)
    parts = found.unique_model + found.unique_controls + found.shared
    np.testing.assert_allclose(parts, joint, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(found.omega), model < partition.LEAST_R2)
    positive = model >= partition.LEAST_R2
    omega = 100 * (1 - (joint - controls) / model)
    np.testing.assert_allclose(found.omega[positive], omega[positive])
    assert (found.unique_model < 0).any() and (found.omega[positive] > 100).any()


def test_a_share_of_next_to_nothing_is_undefined():
    """-2784 % of an R2 of .001 is no share."""
    found = partition.shares(*(np.array([x]) for x in (0.001, 0.1, 0.1299)))
    assert np.isnan(found.omega[0]) and found.unique_model[0] == pytest.approx(0.0299)


def test_undefined_stays_undefined():
    one, nan = np.array([0.5, 0.5]), np.array([0.2, np.nan])
    found = partition.shares(one, nan, one)
    assert np.isnan(found.omega).tolist() == [False, True]
    assert np.isnan(found.shared).tolist() == [False, True]
    splits = [
        folds.Split(np.arange(2, 6), np.arange(2)),
        folds.Split(np.arange(2), np.arange(2, 6)),
    ]
    Y = np.arange(12.0).reshape(6, 2)
    r2 = np.array([[0.5, np.nan], [0.5, 0.5]])
    assert np.isnan(partition.r2_out_of_sample(r2, Y, splits)).tolist() == [False, True]


def test_a_split_for_every_fold():
    split = folds.Split(np.arange(2), np.arange(2, 4))
    with pytest.raises(ValueError, match=r"a split for each row of r2 \(2\), got 1"):
        partition.r2_out_of_sample(np.zeros((2, 1)), np.zeros((4, 1)), [split])
