import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from jaxalign.core import clock, features

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)

RUNS = ["b"] * 7 + ["a"] * 12 + ["c"] * 5

run_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def label(lengths):
    return [f"run{i}" for i, length in enumerate(lengths) for _ in range(length)]


def test_members_keep_the_order_of_first_appearance():
    places = features.members(["b", "a", "b", "c", "a"])
    assert list(places) == ["b", "a", "c"]
    assert [own.tolist() for own in places.values()] == [[0, 2], [1, 4], [3]]


@settings
@hypothesis.given(run_lengths, st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_delays_look_back_within_the_run_alone(lengths, delays):
    # A delay beyond all samples has a test of its own.
    hypothesis.assume(max(delays) <= sum(lengths))
    runs = label(lengths)
    values = 1.0 + np.arange(2.0 * len(runs)).reshape(-1, 2)
    delayed = features.delay(values, runs, delays)
    expected = np.zeros((len(runs), len(delays), 2))
    for row in range(len(runs)):
        for i, steps in enumerate(delays):
            if row - steps >= 0 and runs[row - steps] == runs[row]:
                expected[row, i] = values[row - steps]
    np.testing.assert_array_equal(delayed, expected.reshape(len(runs), -1))


def test_a_delay_longer_than_all_samples_sees_nothing():
    delayed = features.delay(np.ones((3, 2)), ["a"] * 3, [0, 5])
    np.testing.assert_array_equal(delayed, np.repeat([[1.0, 0.0]], 2, axis=1).repeat(3, axis=0))


def test_delays_take_the_runs_that_lead_in_gives(rng):
    grid = clock.grid(2.0 * np.arange(4), ["a", "a", "b", "b"], 2.0, 3)
    values = rng.normal(size=(len(grid.time_s), 2))
    delayed = features.delay(values, grid.run, [3])[grid.recorded]
    np.testing.assert_array_equal(delayed, values[grid.recorded - 3])
    assert list(features.members(grid.run)) == ["a", "b"]


def test_features_keep_their_dtype(rng):
    values = rng.normal(size=(24, 3)).astype(np.float32)
    assert features.delay(values, RUNS, [1, 2]).dtype == np.float32
    assert features.shift(values, RUNS, 0.3).dtype == np.float32
    assert features.standardize(values, RUNS).dtype == np.float32


def test_shift_rolls_each_run_by_itself(rng):
    values = rng.normal(size=(24, 2))
    shifted = features.shift(values, RUNS, 1 / 3)
    parts = zip(np.split(values, [7, 19]), (2, 4, 2), strict=True)
    expected = [np.roll(part, steps, axis=0) for part, steps in parts]
    np.testing.assert_array_equal(shifted, np.concatenate(expected))


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_shifted_samples_are_all_at_a_wrong_time(rng, share):
    values = rng.normal(size=(24, 1))
    assert (features.shift(values, RUNS, share) != values).all()


def test_a_single_sample_cannot_be_shifted(rng):
    with pytest.raises(ValueError, match="at least 2 samples to be shifted: 'b' has 1"):
        features.shift(rng.normal(size=(3, 1)), ["a", "a", "b"], 0.5)


def test_standardize_matches_sklearn_run_by_run(rng):
    values = rng.normal(size=(24, 4)) * [1, 1e-6, 1e6, 1] + [0, 0, 1e8, 5]
    expected = [StandardScaler().fit_transform(part) for part in np.split(values, [7, 19])]
    result = features.standardize(values, RUNS)
    np.testing.assert_allclose(result, np.concatenate(expected), atol=1e-6)


@pytest.mark.parametrize("rounding", [0, 1e-13, 2e-7])
@pytest.mark.parametrize("unit", [1e-30, 1, 1e30])
def test_standardize_leaves_nothing_of_a_run_that_is_dead_but_for_rounding(rng, rounding, unit):
    values = rng.normal(size=(len(RUNS), 2))
    dead = np.array(RUNS) == "a"
    values[dead, 1] = rounding * rng.uniform(size=dead.sum())
    result = features.standardize(unit * values, RUNS)
    np.testing.assert_array_equal(result[dead, 1], 0)
    np.testing.assert_allclose(result[dead, 0].std(), 1)
    np.testing.assert_allclose(result[~dead], features.standardize(values, RUNS)[~dead])


@pytest.mark.parametrize("p", [15, 60])
def test_components_beyond_the_rank_hold_no_rounding(rng, p):
    values = rng.normal(size=(24, 3)) @ rng.normal(size=(3, p))
    train = np.arange(20)
    for X in (values, 1e-30 * values, 1e30 * values, np.float32(values + 100)):
        found = features.principal_components(X, train, 5)
        assert (found[:, :3].std(axis=0) > 0).all()
        np.testing.assert_array_equal(found[:, 3:], 0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6 + 0.1])
def test_standardize_sets_a_constant_column_to_zero(rng, value):
    values = rng.normal(size=(24, 3))
    values[:, 0] = value
    values[:7, 1] = value
    result = features.standardize(values, RUNS)
    np.testing.assert_array_equal(result[:, 0], 0)
    np.testing.assert_array_equal(result[:7, 1], 0)
    np.testing.assert_allclose(result[7:19, 1].std(), 1)


# Training rows by features: n > p, n = p, n < p.
@pytest.mark.parametrize("p", [6, 20, 50])
def test_principal_components_match_sklearn(rng, p):
    values = rng.normal(size=(30, p)) * np.linspace(1, 4, p) + 10
    train = rng.permutation(30)[:20]
    projected = features.principal_components(values, train, 5)
    expected = PCA(5, svd_solver="full").fit(values[train]).transform(values)
    # The sign of a component is free.
    signs = np.sign((projected * expected).sum(axis=0))
    np.testing.assert_allclose(projected * signs, expected, atol=1e-8)


@pytest.mark.parametrize("p", [6, 50])
def test_held_out_rows_do_not_reach_the_components(rng, p):
    values = rng.normal(size=(30, p))
    train = np.arange(20)
    before = features.principal_components(values, train, 5)
    values[20:] = 1e6 * rng.normal(size=(10, p))
    after = features.principal_components(values, train, 5)
    np.testing.assert_array_equal(after[:20], before[:20])


@pytest.mark.parametrize("p", [6, 50])
def test_all_components_preserve_distances(rng, p):
    values = rng.normal(size=(20, p))
    rank = min(p, 19)
    projected = features.principal_components(values, np.arange(20), rank)
    distances = lambda a: np.linalg.norm(a[:, None] - a[None], axis=-1)
    np.testing.assert_allclose(distances(projected), distances(values), atol=1e-8)


@pytest.mark.parametrize(
    "p, num_components, most", [(6, 7, 6), (50, 20, 19), (20, 20, 19), (6, 0, 6), (50, -1, 19)]
)
def test_more_components_than_there_are_is_refused(rng, p, num_components, most):
    message = rf"num_components must lie in 1\.\.{most}, got {num_components}"
    with pytest.raises(ValueError, match=message):
        features.principal_components(rng.normal(size=(30, p)), np.arange(20), num_components)


@pytest.mark.parametrize("p", [6, 50])
def test_components_beyond_the_rank_hold_nothing(rng, p):
    # Repeated rows, as TRs without a word are.
    values = np.repeat(rng.normal(size=(4, p)), 5, axis=0)
    projected = features.principal_components(values, np.arange(20), min(p, 19))
    np.testing.assert_allclose(projected[:, 3:], 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_detrend_follows_the_clock_and_leaves_nothing_of_constants(dtype):
    """Of TRs with a gap between them, as censoring leaves it."""
    time_s = np.r_[2.0 * np.arange(30), 2.0 * np.arange(60, 90)]
    drift = 1 + time_s / 50 + (time_s / 100) ** 2
    values = np.stack([drift, np.full(60, 1000.3)], axis=1).astype(dtype)
    found = features.detrend(values, ["a"] * 60, time_s)
    np.testing.assert_allclose(found[:, 0], 0, atol=2e-6)
    np.testing.assert_array_equal(found[:, 1], 0)


def test_inputs_are_not_changed(rng):
    values = rng.normal(size=(24, 3))
    before = values.copy()
    features.standardize(values, RUNS)
    features.shift(values, RUNS, 0.5)
    features.delay(values, RUNS, [0, 1])
    features.principal_components(values, np.arange(10), 2)
    np.testing.assert_array_equal(values, before)
