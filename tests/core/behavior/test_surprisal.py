import numpy as np
import pytest
from scipy import stats

from jaxalign.core.behavior import surprisal

STORIES = ["a"] * 30 + ["b"] * 20 + ["c"] * 25


def test_mean_is_over_those_who_have_a_time():
    times = np.array([[1.0, 3.0, np.nan], [np.nan, 5.0, np.nan], [np.nan] * 3])
    np.testing.assert_array_equal(surprisal.mean_over_participants(times), [2, 5, np.nan])


def test_correlation_matches_scipy(rng):
    a = rng.normal(size=75)
    b = rng.normal(size=75) - a
    found = surprisal.correlation(a, b, STORIES)
    assert found.value == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    assert found.value < 0
    assert (found.num, found.num_groups) == (75, 3)


def test_interval_is_the_jackknife_over_stories(rng):
    a, b = rng.normal(size=(2, 75))
    labels = np.array(STORIES)
    left = np.arctanh([np.corrcoef(a[labels != x], b[labels != x])[0, 1] for x in "abc"])
    error = np.sqrt(2 / 3 * np.sum((left - np.mean(left)) ** 2))
    half = stats.t.ppf(0.975, 2) * error
    found = surprisal.correlation(a, b, STORIES)
    z = np.arctanh([found.low, found.value, found.high])
    np.testing.assert_allclose(np.diff(z), half)


@pytest.mark.parametrize(
    "trials,low,high",
    [
        (600, 0.92, 0.98),  # the standard error of the share is 0.009
        pytest.param(2000, 0.93, 0.97, marks=pytest.mark.slow),  # 0.005
    ],
)
def test_intervals_over_stories_cover_where_words_of_a_story_are_alike(trials, low, high):
    """A slope for each story: words taken for independent would be far too sure."""
    rng = np.random.default_rng(0)
    num, size = 10, 100
    stories = np.repeat(np.arange(num), size)
    # E[xy] = 0.3 over stories whose slopes vary by 0.2.
    truth = 0.3 / np.sqrt(0.3**2 + 0.2**2 + 1)
    covered, naive = 0, 0
    for _ in range(trials):
        x, noise = rng.normal(size=(2, num * size))
        slope = 0.3 + 0.2 * rng.normal(size=num)
        found = surprisal.correlation(x, slope[stories] * x + noise, stories)
        covered += found.low < truth < found.high
        ends = np.tanh(np.arctanh(found.value) + np.array([-1, 1]) * 1.96 / np.sqrt(997))
        naive += ends[0] < truth < ends[1]
    assert low < covered / trials < high
    assert naive / trials < 0.75


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constants_have_no_correlation(rng, value):
    found = surprisal.correlation(np.full(75, value), rng.normal(size=75), STORIES)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_one_story_has_no_interval(rng):
    a, b = rng.normal(size=(2, 20))
    found = surprisal.correlation(a, b, ["a"] * 20)
    assert np.isfinite(found.value) and np.isnan([found.low, found.high]).all()
    assert found.num_groups == 1


def test_correlation_refuses_what_is_not_finite(rng):
    a, b = rng.normal(size=(2, 75))
    b[3] = np.nan
    with pytest.raises(ValueError, match="reading_time_ms must be finite, got 1 not"):
        surprisal.correlation(a, b, STORIES)


def brainscore_ceiling(times, num_splits=10):
    """The benchmark's procedure written out, with NumPy's nanmean and SciPy's pearsonr."""
    state = np.random.RandomState(0)
    names = np.arange(times.shape[1])
    found = []
    for _ in range(num_splits):
        first = state.choice(names, size=len(names) // 2, replace=False)
        in_first = np.isin(names, first)
        halves = np.nanmean(times[:, in_first], axis=1), np.nanmean(times[:, ~in_first], axis=1)
        r = abs(stats.pearsonr(*halves).statistic)
        found.append(2 * r / (1 + r))
    return np.median(found)


@pytest.mark.parametrize("s", [4, 7])
def test_ceiling_is_that_of_brainscore(rng, s):
    times = rng.normal(size=(75, 1)) + rng.normal(size=(75, s))
    times[rng.random(times.shape) < 0.1] = np.nan
    # Somebody in each half has read every word.
    times = np.where(np.isnan(times).sum(axis=1, keepdims=True) > 1, 0.0, times)
    found = surprisal.split_half_ceiling(times, STORIES)
    assert found.value == pytest.approx(brainscore_ceiling(times), abs=1e-12)
    assert found.low < found.value < found.high


def test_ceiling_is_the_reliability_of_the_mean(rng):
    """Of s participants with noise of variance 4 on a signal of variance 1: s / (s + 4)."""
    stories = np.repeat(np.arange(5), 1000)
    times = rng.normal(size=(5000, 1)) + 2 * rng.normal(size=(5000, 12))
    found = surprisal.split_half_ceiling(times, stories)
    assert found.value == pytest.approx(12 / 16, abs=0.02)


def test_words_that_half_the_participants_lack_do_not_count(rng):
    times = rng.normal(size=(75, 1)) + rng.normal(size=(75, 4))
    expected = surprisal.split_half_ceiling(times, STORIES)
    more = np.concatenate([times, np.full((5, 4), np.nan)])
    more[-5:, 0] = 1e6
    found = surprisal.split_half_ceiling(more, [*STORIES, *["c"] * 5])
    assert found.value == pytest.approx(expected.value, abs=1e-12)


def test_one_participant_has_no_ceiling(rng):
    assert np.isnan(surprisal.split_half_ceiling(rng.normal(size=(75, 1)), STORIES).value)


def test_neighbours_stay_in_their_story():
    values = np.arange(5.0)[:, None]
    stories = ["a", "a", "a", "b", "b"]
    after = surprisal.neighbour(values, stories, 1)[:, 0]
    np.testing.assert_array_equal(after, [1, 2, np.nan, 4, np.nan])
    before = surprisal.neighbour(values, stories, -2)[:, 0]
    np.testing.assert_array_equal(before, [np.nan, np.nan, 0, np.nan, np.nan])


def test_spillover_puts_the_nearest_word_first():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    found = surprisal.spillover(values, ["a"] * 3, 1)
    np.testing.assert_array_equal(found, [[1, 10, np.nan, np.nan], [2, 20, 1, 10], [3, 30, 2, 20]])
    np.testing.assert_array_equal(surprisal.spillover(values, ["a"] * 3, 0), values)


def test_spillover_longer_than_a_story_is_undefined():
    found = surprisal.spillover(np.ones((2, 1)), ["a", "a"], 4)
    assert np.isnan(found[:, 2:]).all() and found.shape == (2, 5)


def test_stories_in_pieces_are_refused():
    with pytest.raises(ValueError, match="stories must be adjacent"):
        surprisal.spillover(np.ones((3, 1)), ["a", "b", "a"], 1)
