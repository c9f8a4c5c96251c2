"""Words and TRs: their grid, and what is resampled to it."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from jaxalign.core import clock, features

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)

run_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def label(lengths):
    return [f"run{i}" for i, length in enumerate(lengths) for _ in range(length)]


@pytest.mark.slow
@settings
@hypothesis.given(run_lengths, st.integers(0, 5), st.sampled_from([0.5, 1.5, 2.0, 2.0045]))
def test_lead_in_extends_each_run_backwards(lengths, num_trs, tr_s):
    starts_s = 10.0 * np.arange(len(lengths))
    time_s = np.concatenate(
        [start + tr_s * np.arange(n) for start, n in zip(starts_s, lengths, strict=True)]
    )
    runs = label(lengths)
    grid = clock.grid(time_s, runs, tr_s, num_trs)

    np.testing.assert_array_equal(grid.time_s[grid.recorded], time_s)
    assert grid.run[grid.recorded].tolist() == runs
    assert grid.run.tolist() == label(n + num_trs for n in lengths)
    for i, n in enumerate(lengths):
        expected = starts_s[i] + tr_s * np.arange(-num_trs, n)
        np.testing.assert_allclose(grid.time_s[grid.run == f"run{i}"], expected, atol=1e-9)
    added = np.setdiff1d(np.arange(len(grid.time_s)), grid.recorded)
    assert len(added) == num_trs * len(lengths)


@pytest.mark.slow
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

    total = clock.downsample(values, onset_s, time_s, tr_s, "sum")
    expected = np.zeros((num_trs, 2))
    np.add.at(expected, slot[inside], values[inside])
    np.testing.assert_allclose(total, expected)
    np.testing.assert_allclose(total.sum(axis=0), values[inside].sum(axis=0))

    mean = clock.downsample(values, onset_s, time_s, tr_s, "mean")
    count = np.bincount(slot[inside], minlength=num_trs)[:, None]
    np.testing.assert_allclose(mean * count, total)
    assert (mean[count[:, 0] == 0] == 0).all()


@pytest.mark.parametrize("method", ["mean", "sum"])
def test_downsampling_matches_binned_statistics_of_scipy(rng, method):
    onset_s = np.sort(rng.uniform(0, 20, 100))
    values = rng.normal(size=(100, 3))
    time_s = 2.0 * np.arange(10)
    expected = stats.binned_statistic(onset_s, values.T, method, np.r_[time_s, 20.0]).statistic
    result = clock.downsample(values, onset_s, time_s, 2.0, method)
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
    result = clock.downsample(values, onset_s, time_s, tr_s, "lanczos")
    np.testing.assert_allclose(result, expected, atol=1e-10)


def test_lanczos_reproduces_a_slow_sinusoid_and_removes_a_fast_one():
    tr_s, words_per_tr = 2.0, 8
    onset_s = np.arange(0, 200, tr_s / words_per_tr)
    time_s = np.arange(0, 200, tr_s)
    middle = slice(5, -5)

    def resample(period_trs):
        wave = lambda t: np.sin(2 * np.pi * t / (period_trs * tr_s) + 0.3)
        result = clock.downsample(wave(onset_s)[:, None], onset_s, time_s, tr_s, "lanczos")
        return result[middle, 0] / words_per_tr, wave(time_s + tr_s / 2)[middle]

    slow, expected = resample(12)
    np.testing.assert_allclose(slow, expected, atol=0.03)
    fast, _ = resample(1.25)
    assert np.abs(fast).max() < 0.15


def test_lanczos_gives_words_at_the_middle_of_a_tr_to_that_tr_alone(rng):
    time_s = 2.0 * np.arange(10)
    values = rng.normal(size=(10, 2))
    result = clock.downsample(values, time_s + 1.0, time_s, 2.0, "lanczos")
    np.testing.assert_allclose(result, values, atol=1e-12)


@pytest.mark.parametrize("method", ["mean", "sum", "lanczos"])
def test_without_words_features_are_zero(method):
    result = clock.downsample(np.ones((0, 3)), np.ones(0), np.arange(4.0), 1.0, method)
    np.testing.assert_array_equal(result, np.zeros((4, 3)))


@pytest.mark.parametrize("method", ["mean", "sum", "lanczos"])
def test_downsampling_is_linear_and_features_do_not_interact(rng, method):
    onset_s, time_s = np.sort(rng.uniform(0, 20, 30)), 2.0 * np.arange(10)
    A, B = rng.normal(size=(2, 30, 3))
    resample = lambda values: clock.downsample(values, onset_s, time_s, 2.0, method)
    np.testing.assert_allclose(resample(2 * A - B), 2 * resample(A) - resample(B), atol=1e-12)
    np.testing.assert_allclose(resample(A)[:, 1:2], resample(A[:, 1:2]), atol=1e-12)


@pytest.mark.parametrize("tr_s", [0.72, 0.8, 2.0, 2.0045])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [2, 3, 9])
def test_words_that_begin_with_a_tr_are_in_it_however_times_were_rounded(tr_s, dtype, decimals):
    if decimals == 2 and tr_s == 2.0045:
        decimals = 4
    time_s = (tr_s * np.arange(400)).astype(dtype).astype(np.float64)
    onset_s = np.round(tr_s * np.arange(400), decimals)
    np.testing.assert_array_equal(clock.tr_of_words(onset_s, time_s, tr_s), np.arange(400))
    rounded_trs = np.round(time_s, 3)
    exact = tr_s * np.arange(400)
    np.testing.assert_array_equal(clock.tr_of_words(exact, rounded_trs, tr_s), np.arange(400))


def test_a_word_that_begins_before_a_tr_by_more_than_rounding_is_in_the_tr_before():
    onset_s = np.array([1.0, 2.0, 3.0])  # whole seconds by design, not rounded to them
    time_s = 0.025 + np.arange(4.0)
    assert clock.tr_of_words(onset_s, time_s, 1.0).tolist() == [0, 1, 2]
    assert clock.tr_of_words(np.array([1.999, 2.0]), 2.0 * np.arange(3), 2.0).tolist() == [0, 1]


def test_a_word_whose_onset_is_not_known_is_in_no_tr():
    onset_s, time_s = np.array([0.5, np.nan, 2.5]), np.arange(4.0)
    assert clock.tr_of_words(onset_s, time_s, 1.0).tolist() == [0, -1, 2]
    assert clock.tr_of_words(np.full(2, np.nan), time_s, 1.0).tolist() == [-1, -1]
    for method in ("sum", "mean", "lanczos"):
        known = clock.downsample(np.ones((2, 1)), onset_s[[0, 2]], time_s, 1.0, method)
        found = clock.downsample(np.ones((3, 1)), onset_s, time_s, 1.0, method)
        np.testing.assert_array_equal(found, known)


def test_censored_trs_are_on_the_grid_and_delays_count_them(rng):
    time_s = 0.3 + 2.0 * np.arange(10)
    kept = np.array([0, 1, 4, 5, 9])
    grid = clock.grid(time_s[kept], ["a"] * 5, 2.0, 2)
    np.testing.assert_allclose(grid.time_s, 0.3 + 2.0 * np.arange(-2, 10))
    assert grid.recorded.tolist() == (kept + 2).tolist()
    values = rng.normal(size=(12, 3))
    delayed = features.delay(values, grid.run, [2])[grid.recorded]
    np.testing.assert_array_equal(delayed, values[kept])
