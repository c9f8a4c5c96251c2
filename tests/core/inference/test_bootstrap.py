import functools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxalign.core.inference import bootstrap

RUN = np.repeat(["a", "b"], [22, 38])
N = len(RUN)
FOLDS = np.array_split(np.arange(N), 3)
UNITS = bootstrap.blocks(RUN, 5)
KINDS = {"bca": "BCa", "percentile": "percentile"}


def make_pairs(rng, *shape):
    """Return predictions and responses [... n v] that agree, and whose folds have other means."""
    y = rng.gamma(1.0, size=(*shape, N, 3))
    p = y * np.array([0.0, 0.5, 1.0]) + rng.normal(size=y.shape)
    for i, fold in enumerate(FOLDS):
        p[..., fold, :] += i
    return p, y


def scipy_interval(data, statistic, kind, confidence=0.95, num=400):
    """Draw what `bootstrap.interval` draws from the same generator."""
    result = scipy_stats.bootstrap(
        data,
        statistic,
        n_resamples=num,
        method=KINDS[kind],
        confidence_level=confidence,
        vectorized=False,
        rng=np.random.default_rng(5),
    )
    return result.confidence_interval


def interval(statistic, sizes, kind, confidence=0.95, num=400):
    rng = np.random.default_rng(5)
    return bootstrap.interval(statistic, sizes, num=num, rng=rng, confidence=confidence, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_of_a_mean_are_scipys(rng, kind, confidence):
    values = rng.gamma(1.0, size=(20, 4))
    found = interval(bootstrap.mean_over(values), [20], kind, confidence)
    np.testing.assert_allclose(found.value, values.mean(axis=0))
    for t in range(4):
        expected = scipy_interval((values[:, t],), np.mean, kind, confidence)
        np.testing.assert_allclose((found.low[t], found.high[t]), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_over_subjects_and_blocks_are_scipys(rng, kind):
    values = rng.gamma(1.0, size=(6, 8, 1)) + rng.gamma(1.0, size=(8, 1))
    found = interval(bootstrap.mean_over_both(values), [6, 8], kind)
    expected = scipy_interval(
        (np.arange(6), np.arange(8)), lambda i, j: values[np.ix_(i, j)].mean(), kind
    )
    np.testing.assert_allclose(found.value, values.mean(axis=(0, 1)))
    np.testing.assert_allclose((found.low[0], found.high[0]), expected, rtol=1e-12)


def pooled_r(p, y, drawn):
    """Correlate the samples of the blocks drawn, by NumPy, about the means of their folds."""
    p, y = p.copy(), y.copy()
    for fold in FOLDS:
        p[fold] -= p[fold].mean()
        y[fold] -= y[fold].mean()
    rows = np.concatenate([np.flatnonzero(UNITS == unit) for unit in drawn])
    return (p[rows] * y[rows]).sum() / np.sqrt((p[rows] ** 2).sum() * (y[rows] ** 2).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_of_a_correlation_over_blocks_are_scipys(rng, kind):
    p, y = make_pairs(rng)
    sums = bootstrap.block_sums(p, y, FOLDS, UNITS)
    num_units = UNITS.max() + 1
    found = interval(bootstrap.correlation_over(sums), [num_units], kind)
    for t in range(3):
        statistic = functools.partial(pooled_r, p[:, t], y[:, t])
        expected = scipy_interval((np.arange(num_units),), statistic, kind)
        assert found.value[t] == pytest.approx(statistic(np.arange(num_units)))
        np.testing.assert_allclose((found.low[t], found.high[t]), expected, rtol=1e-10)


def test_intervals_of_a_correlation_over_subjects_and_blocks_are_scipys(rng):
    p, y = make_pairs(rng, 4)
    each = [bootstrap.block_sums(*pair, FOLDS, UNITS) for pair in zip(p, y, strict=True)]
    sums = bootstrap.Sums(*(np.stack(x) for x in zip(*each, strict=True)))
    num_units = UNITS.max() + 1
    found = interval(bootstrap.correlation_over_both(sums), [4, num_units], "bca")

    def statistic(subjects, drawn):
        return np.mean([pooled_r(p[s, :, 1], y[s, :, 1], drawn) for s in subjects])

    expected = scipy_interval((np.arange(4), np.arange(num_units)), statistic, "bca")
    assert found.value[1] == pytest.approx(statistic(np.arange(4), np.arange(num_units)))
    np.testing.assert_allclose((found.low[1], found.high[1]), expected, rtol=1e-10)


def test_blocks_end_with_their_run():
    assert UNITS.tolist() == [i // 5 for i in range(22)] + [5 + i // 5 for i in range(38)]
    assert bootstrap.blocks(["b", "a", "b"], 2).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="length must be >= 1, got 0"):
        bootstrap.blocks(RUN, 0)


def test_the_spread_over_subjects_and_blocks_is_that_of_both(rng):
    """Of a sum of effects of subjects and of blocks, variances of both means add up."""
    subjects, units = rng.normal(size=(12, 1)), rng.normal(size=(20, 1))
    values = (subjects[:, None] + units[None]).reshape(12, 20, 1)
    statistic, seen = bootstrap.mean_over_both(values), []

    def record(*counts):
        seen.append(statistic(*counts))
        return seen[-1]

    bootstrap.interval(record, [12, 20], num=4000, rng=rng, kind="percentile")
    drawn = np.concatenate(seen)
    # Four standard errors of a variance over 4000 draws.
    expected = subjects.var() / 12 + units.var() / 20
    assert drawn[:4000].var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 4000))


def test_undefined_values_are_left_out(rng):
    values = rng.normal(size=(9, 2))
    with_gaps = np.insert(values, 4, np.nan, axis=0)
    drawn = np.ones((1, 10))
    drawn[0, :2] = 3, 0
    expected = (values.sum(axis=0) + 2 * values[0] - values[1]) / 10
    np.testing.assert_allclose(bootstrap.mean_over(with_gaps)(drawn)[0], expected)
    cube = rng.normal(size=(3, 4, 1))
    cube[1, 2] = np.nan
    np.testing.assert_allclose(
        bootstrap.mean_over_both(cube)(np.ones((1, 3)), np.ones((1, 4)))[0, 0], np.nanmean(cube)
    )


def test_undefined_targets_stay_undefined_and_others_do_not_mind(rng):
    p, y = make_pairs(rng)
    y[:, 1] = 2.0
    p[7, 0] = np.nan
    sums = bootstrap.block_sums(p, y, FOLDS, UNITS)
    found = interval(bootstrap.correlation_over(sums), [UNITS.max() + 1], "bca")
    assert np.isnan(np.array(found)[:, :2]).all()
    alone = bootstrap.block_sums(p[:, 2:], y[:, 2:], FOLDS, UNITS)
    other = interval(bootstrap.correlation_over(alone), [UNITS.max() + 1], "bca")
    np.testing.assert_allclose(np.array(found)[:, 2:], other, rtol=1e-12)


def test_a_subject_without_a_correlation_is_left_out(rng):
    p, y = make_pairs(rng, 4)
    y[2] = 0.0
    each = [bootstrap.block_sums(*pair, FOLDS, UNITS) for pair in zip(p, y, strict=True)]
    sums = bootstrap.Sums(*(np.stack(x) for x in zip(*each, strict=True)))
    some = bootstrap.Sums(*(x[[0, 1, 3]] for x in sums))
    ones = np.ones((1, UNITS.max() + 1))
    with_gap = bootstrap.correlation_over_both(sums)(np.array([[1.0, 2.0, 5.0, 0.0]]), ones)
    without = bootstrap.correlation_over_both(some)(np.array([[1.0, 2.0, 0.0]]), ones)
    np.testing.assert_allclose(with_gap, without, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_of_equal_values_is_a_point(kind):
    found = interval(bootstrap.mean_over(np.full((5, 1), 0.25)), [5], kind)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_without_resamples_on_either_side_there_is_no_bca_interval():
    """All units are drawn at once in no resample, and in the sample itself."""
    whole = lambda counts: (counts > 0).all(axis=1, keepdims=True).astype(np.float64)
    found = interval(whole, [40], "bca")
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()
    plain = interval(whole, [40], "percentile")
    assert (plain.low, plain.high) == (0, 0)


def test_shifting_and_scaling_values_does_so_to_the_interval(rng):
    values = rng.gamma(1.0, size=(8, 2))
    plain = interval(bootstrap.mean_over(values), [8], "bca")
    changed = interval(bootstrap.mean_over(3 * values + 1), [8], "bca")
    np.testing.assert_allclose(changed, 3 * np.array(plain) + 1)


def test_what_cannot_be_resampled_is_refused(rng):
    statistic = bootstrap.mean_over(rng.normal(size=(5, 1)))
    with pytest.raises(ValueError, match=r"at least 2 units of every kind, got \[5, 1\]"):
        bootstrap.interval(statistic, [5, 1], num=9, rng=rng)
    with pytest.raises(ValueError, match=r"at least 2 units of every kind, got \[\]"):
        bootstrap.interval(statistic, [], num=9, rng=rng)
    with pytest.raises(ValueError, match="num must be >= 1, got 0"):
        bootstrap.interval(statistic, [5], num=0, rng=rng)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        bootstrap.interval(statistic, [5], num=9, rng=rng, confidence=95.0)
    p, y = make_pairs(rng)
    with pytest.raises(ValueError, match="label all 60 samples, got 59 labels"):
        bootstrap.block_sums(p, y, FOLDS, UNITS[:-1])
