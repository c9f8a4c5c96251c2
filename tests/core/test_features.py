import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from jaxalign.core import features

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
@hypothesis.given(run_lengths, st.integers(0, 5), st.sampled_from([0.5, 1.5, 2.0, 2.0045]))
def test_lead_in_extends_each_run_backwards(lengths, num_trs, tr_s):
    starts_s = 10.0 * np.arange(len(lengths))
    time_s = np.concatenate(
        [start + tr_s * np.arange(n) for start, n in zip(starts_s, lengths, strict=True)]
    )
    runs = label(lengths)
    grid = features.lead_in(time_s, runs, tr_s, num_trs)

    np.testing.assert_array_equal(grid.time_s[grid.recorded], time_s)
    assert grid.run[grid.recorded].tolist() == runs
    assert grid.run.tolist() == label(n + num_trs for n in lengths)
    for i, n in enumerate(lengths):
        expected = starts_s[i] + tr_s * np.arange(-num_trs, n)
        np.testing.assert_allclose(grid.time_s[grid.run == f"run{i}"], expected, atol=1e-9)
    added = np.setdiff1d(np.arange(len(grid.time_s)), grid.recorded)
    assert len(added) == num_trs * len(lengths)


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
    grid = features.lead_in(2.0 * np.arange(4), ["a", "a", "b", "b"], 2.0, 3)
    values = rng.normal(size=(len(grid.time_s), 2))
    delayed = features.delay(values, grid.run, [3])[grid.recorded]
    np.testing.assert_array_equal(delayed, values[grid.recorded - 3])
    assert list(features.members(grid.run)) == ["a", "b"]


def test_features_keep_their_dtype(rng):
    values = rng.normal(size=(24, 3)).astype(np.float32)
    assert features.delay(values, RUNS, [1, 2]).dtype == np.float32
    assert features.shift(values, RUNS, 0.3).dtype == np.float32
    assert features.standardize(values, RUNS).dtype == np.float32


@settings
@hypothesis.given(
    st.integers(1, 12),
    st.integers(1, 30),
    st.lists(st.integers(0, 400), min_size=0, max_size=40),
    st.integers(-20, 60),
)
def test_sums_and_means_partition_the_words(num_trs, tenths, onsets, start):
    # Times in tenths of a second have no exact representation.
    tr_s, onset_s = tenths / 10, np.sort(onsets) / 10.0
    time_s = start / 10 + tr_s * np.arange(num_trs)
    # In tenths, exactly: the TR that a word falls into, and whether there is one.
    slot = (np.sort(onsets).astype(int) - start) // tenths
    inside = (slot >= 0) & (slot < num_trs)
    values = 1.0 + np.arange(2.0 * len(onsets)).reshape(-1, 2)

    total = features.downsample(values, onset_s, time_s, tr_s, "sum")
    expected = np.zeros((num_trs, 2))
    np.add.at(expected, slot[inside], values[inside])
    np.testing.assert_allclose(total, expected)
    np.testing.assert_allclose(total.sum(axis=0), values[inside].sum(axis=0))

    mean = features.downsample(values, onset_s, time_s, tr_s, "mean")
    count = np.bincount(slot[inside], minlength=num_trs)[:, None]
    np.testing.assert_allclose(mean * count, total)
    assert (mean[count[:, 0] == 0] == 0).all()


@pytest.mark.parametrize("method", ["mean", "sum"])
def test_downsampling_matches_binned_statistics_of_scipy(rng, method):
    onset_s = np.sort(rng.uniform(0, 20, 100))
    values = rng.normal(size=(100, 3))
    time_s = 2.0 * np.arange(10)
    expected = stats.binned_statistic(onset_s, values.T, method, np.r_[time_s, 20.0]).statistic
    result = features.downsample(values, onset_s, time_s, 2.0, method)
    np.testing.assert_allclose(result, expected.T, atol=1e-12)


def test_lanczos_matches_the_formula_of_huth(rng):
    tr_s, lobes = 1.5, 3
    onset_s = np.sort(rng.uniform(0, 30, 80))
    time_s = tr_s * np.arange(20)
    values = rng.normal(size=(80, 2))
    expected = np.zeros((20, 2))
    for i, start in enumerate(time_s):
        for onset, value in zip(onset_s, values, strict=True):
            t = (start + tr_s / 2 - onset) / tr_s
            if abs(t) <= lobes:
                window = np.sin(np.pi * t / lobes)
                expected[i] += lobes * np.sin(np.pi * t) * window / (np.pi * t) ** 2 * value
    result = features.downsample(values, onset_s, time_s, tr_s, "lanczos")
    np.testing.assert_allclose(result, expected, atol=1e-10)


def test_lanczos_reproduces_a_slow_sinusoid_and_removes_a_fast_one():
    tr_s, words_per_tr = 2.0, 8
    onset_s = np.arange(0, 200, tr_s / words_per_tr)
    time_s = np.arange(0, 200, tr_s)
    middle = slice(5, -5)

    def resample(period_trs):
        wave = lambda t: np.sin(2 * np.pi * t / (period_trs * tr_s) + 0.3)
        result = features.downsample(wave(onset_s)[:, None], onset_s, time_s, tr_s, "lanczos")
        return result[middle, 0] / words_per_tr, wave(time_s + tr_s / 2)[middle]

    slow, expected = resample(12)
    np.testing.assert_allclose(slow, expected, atol=0.03)
    fast, _ = resample(1.25)
    assert np.abs(fast).max() < 0.15


def test_lanczos_gives_words_at_the_middle_of_a_tr_to_that_tr_alone(rng):
    time_s = 2.0 * np.arange(10)
    values = rng.normal(size=(10, 2))
    result = features.downsample(values, time_s + 1.0, time_s, 2.0, "lanczos")
    np.testing.assert_allclose(result, values, atol=1e-12)


@pytest.mark.parametrize("method", ["mean", "sum", "lanczos"])
def test_without_words_features_are_zero(method):
    result = features.downsample(np.ones((0, 3)), np.ones(0), np.arange(4.0), 1.0, method)
    np.testing.assert_array_equal(result, np.zeros((4, 3)))


@pytest.mark.parametrize("method", ["mean", "sum", "lanczos"])
def test_downsampling_is_linear_and_features_do_not_interact(rng, method):
    onset_s, time_s = np.sort(rng.uniform(0, 20, 30)), 2.0 * np.arange(10)
    A, B = rng.normal(size=(2, 30, 3))
    resample = lambda values: features.downsample(values, onset_s, time_s, 2.0, method)
    np.testing.assert_allclose(resample(2 * A - B), 2 * resample(A) - resample(B), atol=1e-12)
    np.testing.assert_allclose(resample(A)[:, 1:2], resample(A[:, 1:2]), atol=1e-12)


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


def test_inputs_are_not_changed(rng):
    values = rng.normal(size=(24, 3))
    before = values.copy()
    features.standardize(values, RUNS)
    features.shift(values, RUNS, 0.5)
    features.delay(values, RUNS, [0, 1])
    features.principal_components(values, np.arange(10), 2)
    np.testing.assert_array_equal(values, before)
