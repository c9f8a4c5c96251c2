import numpy as np
import pytest
from scipy import stats

from jaxalign.core.ceilings import ceiling
from jaxalign.core.inference.resampling import Bootstrap

NAN = np.nan

NUM_SUBJECTS = 6


def simulate(rng, *, s=NUM_SUBJECTS, v=8, n=4000, noise_sd=1.0):
    """Subjects who share a signal of variance 1, each with noise of its own."""
    return rng.normal(size=(v, n)) + noise_sd * rng.normal(size=(s, v, n))


def test_correlation_matches_scipy_block_by_block(rng):
    a, b = rng.normal(size=(2, 3, 40))
    b += a
    blocks = [np.arange(0, 13), np.arange(13, 20), np.array([39, 20, 25, 31])]
    expected = [
        np.mean([stats.pearsonr(x[block], y[block]).statistic for block in blocks])
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ceiling.correlation(a, b, blocks), expected, atol=1e-12)


def test_correlation_keeps_leading_axes(rng):
    a, b = rng.normal(size=(2, 4, 3, 40))
    blocks = np.split(np.arange(40), 2)
    whole = ceiling.correlation(a, b, blocks)
    assert whole.shape == (4, 3)
    np.testing.assert_allclose(whole[2], ceiling.correlation(a[2], b[2], blocks))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e4 + 0.1])
@pytest.mark.parametrize("n", [12, 13, 50])
def test_correlation_with_a_constant_is_undefined(rng, value, n):
    a, b = rng.normal(size=(2, 3, n))
    a[1] = value
    expected = np.array([False, True, False])
    blocks = [np.arange(n)]
    np.testing.assert_array_equal(np.isnan(ceiling.correlation(a, b, blocks)), expected)
    np.testing.assert_array_equal(np.isnan(ceiling.correlation(b, a, blocks)), expected)


def test_one_undefined_block_leaves_the_average_undefined(rng):
    a, b = rng.normal(size=(2, 3, 40))
    a[1, 20:] = 0
    undefined = np.isnan(ceiling.correlation(a, b, np.split(np.arange(40), 2)))
    np.testing.assert_array_equal(undefined, [False, True, False])


@pytest.mark.parametrize("scale, offset", [(-1, 0), (1e-13, 0), (1e10, 0), (1, 1e4)])
def test_correlation_does_not_depend_on_units(rng, scale, offset):
    a, b = rng.normal(size=(2, 3, 40))
    blocks = [np.arange(40)]
    expected = np.sign(scale) * ceiling.correlation(a, b, blocks)
    result = ceiling.correlation(scale * a + offset, b, blocks)
    np.testing.assert_allclose(result, expected, atol=1e-10)


def test_leaving_one_subject_out_matches_loops(rng):
    Y = simulate(rng, s=4, v=3, n=60)
    blocks = np.split(np.arange(60), 3)
    result = ceiling.leave_one_subject_out(Y, blocks)
    for s in range(4):
        others = np.mean([Y[i] for i in range(4) if i != s], axis=0)
        for v in range(3):
            scores = [stats.pearsonr(Y[s, v, b], others[v, b]).statistic for b in blocks]
            assert result[s, v] == pytest.approx(np.mean(scores), abs=1e-12)


@pytest.mark.parametrize("s", [2, 3, 6])
@pytest.mark.parametrize("noise_sd", [0.5, 1.0, 2.0])
def test_leaving_one_subject_out_reaches_its_expectation(rng, blocks, s, noise_sd):
    Y = simulate(rng, s=s, noise_sd=noise_sd)
    expected = 1 / np.sqrt((1 + noise_sd**2) * (1 + noise_sd**2 / (s - 1)))
    result = ceiling.leave_one_subject_out(Y, blocks)
    np.testing.assert_allclose(result.mean(), expected, atol=0.015)
    np.testing.assert_allclose(result, expected, atol=0.06)


def group_reliability(Y, blocks, **options):
    """The ceiling of the group's mean, as `results.targets` makes it of halves."""
    r = ceiling.half_correlations(Y, blocks, **options).mean(axis=0)
    return ceiling.root(ceiling.reliability(r, len(Y) // 2 / len(Y)))


@pytest.mark.parametrize("s", [2, 4, 6])
@pytest.mark.parametrize("noise_sd", [0.5, 1.0, 2.0])
def test_group_reliability_is_the_correlation_of_the_mean_with_the_signal(rng, blocks, s, noise_sd):
    signal = rng.normal(size=(8, 4000))
    Y = signal + noise_sd * rng.normal(size=(s, 8, 4000))
    result = group_reliability(Y, blocks, rng=rng, num_splits=20)
    # The square root of the Spearman-Brown reliability s / (s + noise variance).
    np.testing.assert_allclose(result.mean(), np.sqrt(s / (s + noise_sd**2)), atol=0.015)
    # No prediction is better than the signal itself.
    reached = ceiling.correlation(Y.mean(axis=0), signal, blocks)
    np.testing.assert_allclose(result, reached, atol=0.06)


def test_group_reliability_is_nearly_unbiased_for_odd_groups(rng, blocks):
    Y = simulate(rng, s=5)
    result = group_reliability(Y, blocks, rng=rng, num_splits=20)
    np.testing.assert_allclose(result.mean(), np.sqrt(5 / 6), atol=0.015)


def test_group_reliability_of_two_subjects_is_spearman_brown(rng):
    Y = simulate(rng, s=2, v=3, n=60)
    blocks = np.split(np.arange(60), 3)
    r = ceiling.correlation(Y[0], Y[1], blocks)
    assert (r > 0).all()
    result = group_reliability(Y, blocks, rng=rng, num_splits=3)
    np.testing.assert_allclose(result, np.sqrt(2 * r / (1 + r)))


def test_opposed_subjects_have_no_root(rng, blocks):
    noise = rng.normal(size=(8, 4000))
    Y = np.stack([noise, -noise])
    Y[:, 0] = noise[0]
    result = group_reliability(Y, blocks, rng=rng, num_splits=2)
    np.testing.assert_allclose(result, [1] + [np.nan] * 7)


def test_targets_without_signal_average_to_no_ceiling(rng):
    """Dropping those that chance made negative would leave a ceiling where there is none."""
    blocks = np.split(np.arange(120), 3)
    Y = rng.normal(size=(10, 400, 120))
    r = ceiling.half_correlations(Y, blocks, rng=rng, num_splits=20)
    assert abs(ceiling.mean_root(r.mean(axis=0), 0.5, r.var(axis=0, ddof=1) / 3)) < 0.05
    result = group_reliability(Y, blocks, rng=rng, num_splits=20)
    assert result[result > 0].mean() > 0.15


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_ceilings_of_a_constant_target_are_undefined(rng, blocks, value):
    Y = simulate(rng, v=3)
    Y[:, 1] = value
    expected = [False, True, False]
    reliability = group_reliability(Y, blocks, rng=rng, num_splits=2)
    np.testing.assert_array_equal(np.isnan(reliability), expected)
    per_subject = ceiling.leave_one_subject_out(Y, blocks)
    np.testing.assert_array_equal(np.isnan(per_subject), [expected] * NUM_SUBJECTS)


def test_identical_subjects_reach_one(rng, blocks):
    Y = np.repeat(rng.normal(size=(1, 3, 4000)), 4, axis=0)
    np.testing.assert_allclose(ceiling.leave_one_subject_out(Y, blocks), 1)
    np.testing.assert_allclose(group_reliability(Y, blocks, rng=rng, num_splits=2), 1)


def test_order_of_subjects_permutes_the_ceilings(rng, blocks):
    Y = simulate(rng)
    order = rng.permutation(NUM_SUBJECTS)
    plain = ceiling.leave_one_subject_out(Y, blocks)
    np.testing.assert_allclose(ceiling.leave_one_subject_out(Y[order], blocks), plain[order])


def test_targets_do_not_interact(rng, blocks):
    Y = simulate(rng)
    alone = ceiling.leave_one_subject_out(Y[:, 2:4], blocks)
    np.testing.assert_allclose(ceiling.leave_one_subject_out(Y, blocks)[:, 2:4], alone)


def test_splits_are_drawn_from_the_generator_given(rng, blocks):
    Y = simulate(rng, n=4000)
    draw = lambda seed: group_reliability(Y, blocks, rng=np.random.default_rng(seed), num_splits=2)
    draws = [draw(seed) for seed in range(4)]
    np.testing.assert_array_equal(draw(0), draws[0])
    assert (draws[0] != draws[1:]).any()


def test_one_subject_has_no_ceiling(rng, blocks):
    Y = simulate(rng, s=1)
    with pytest.raises(ValueError, match="over subjects needs at least 2, got 1"):
        ceiling.leave_one_subject_out(Y, blocks)
    with pytest.raises(ValueError, match="over subjects needs at least 2, got 1"):
        group_reliability(Y, blocks, rng=rng)


def test_leaving_out_each_subject_matches_a_loop(rng):
    """With subjects of unlike units, and targets that do not vary in some of them."""
    Y = simulate(rng, s=5, v=4, n=60) * np.array([1, 2, 0.1, 5, 1])[:, None, None] + 3
    Y[2, 1], Y[2, 1, 40:] = 0.1, 0.3  # in all blocks but one
    Y[1:, 2], Y[:4, 3] = 0.1, 0.0
    blocks = [np.arange(20), np.arange(20, 45), np.arange(45, 60)]
    found = ceiling.without_each_subject(Y, blocks)
    assert found.shape == (5, 5, 4)
    for j in range(5):
        rest = np.delete(np.arange(5), j)
        expected = ceiling.leave_one_subject_out(Y[rest], blocks)
        np.testing.assert_allclose(found[j, rest], expected, atol=1e-12)
        assert np.isnan(found[j, j]).all()
    assert np.isfinite(found[..., 0]).sum() == 20
    assert np.isnan(found[..., 2:]).all()
    assert np.isnan(ceiling.without_each_subject(Y[:2], blocks)).all()


def test_leaving_out_each_subject_in_tiles(rng, monkeypatch):
    Y, blocks = simulate(rng, s=4, v=5, n=40), np.split(np.arange(40), 2)
    whole = ceiling.without_each_subject(Y, blocks)
    monkeypatch.setattr(ceiling, "TILE_NUMBERS", 1)
    np.testing.assert_allclose(ceiling.without_each_subject(Y, blocks), whole, atol=1e-13)


def test_ceilings_of_subjects_are_averaged_with_the_interval_of_a_jackknife(rng):
    Y, blocks = simulate(rng, s=6, v=3, n=60), np.split(np.arange(60), 3)
    Y[2, 0] = 0.0
    values = ceiling.leave_one_subject_out(Y, blocks)
    found = ceiling.over_subjects(values, ceiling.without_each_subject(Y, blocks), confidence=0.9)
    for v, people in enumerate(([0, 1, 3, 4, 5], range(6), range(6))):
        mean = np.nanmean(values[:, v])
        left_out = []
        for j in people:
            rest = [i for i in range(6) if i != j]
            own = ceiling.leave_one_subject_out(Y[rest][:, [v]], blocks)
            left_out.append(np.arctanh(np.nanmean(own)))
        g = len(left_out)
        half = stats.t.ppf(0.95, g - 1) * np.sqrt((g - 1) * np.var(left_out))
        ends = np.tanh(np.arctanh(mean) + half * np.array([-1, 1]))
        np.testing.assert_allclose([found.value[v], found.low[v], found.high[v]], [mean, *ends])
    np.testing.assert_array_equal(found.num, [5, 6, 6])


def test_averages_of_subjects_keep_their_axes(rng):
    values, left_out = rng.uniform(-1, 1, (6, 2, 3)), rng.uniform(-1, 1, (6, 6, 2, 3))
    found = ceiling.over_subjects(values, left_out)
    flat = ceiling.over_subjects(values.reshape(6, 6), left_out.reshape(6, 6, 6))
    for a, b in zip(found, flat, strict=True):
        assert a.shape == (2, 3)
        np.testing.assert_array_equal(a.reshape(-1), b)


def test_averages_of_none_of_one_and_of_equal_subjects(rng, blocks):
    Y = np.full((5, 3, 4000), 0.3)
    Y[2:4, 1] = rng.normal(size=(2, 4000))
    Y[:, 2] = rng.normal(size=4000)
    values = ceiling.leave_one_subject_out(Y, blocks)
    found = ceiling.over_subjects(values, ceiling.without_each_subject(Y, blocks))
    r = np.mean([stats.pearsonr(*Y[2:4, 1, block]).statistic for block in blocks])
    np.testing.assert_allclose(found.value, [np.nan, r, 1.0])
    np.testing.assert_allclose(found.low, [np.nan, np.nan, 1.0])
    np.testing.assert_allclose(found.high, [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(found.num, [0, 2, 5])


def test_leave_one_out_ceilings_lie_within_their_intervals(rng):
    """About 95 % of 300 targets; for few subjects see test_subject_intervals.py."""
    s = 20
    signal = rng.normal(size=(300, 300))
    signal = (signal - signal.mean(axis=1, keepdims=True)) / signal.std(axis=1, keepdims=True)
    Y, whole = signal + rng.normal(size=(s, 300, 300)), [np.arange(300)]
    values = ceiling.leave_one_subject_out(Y, whole)
    found = ceiling.over_subjects(values, ceiling.without_each_subject(Y, whole))
    truth = 1 / np.sqrt(2 * (1 + 1 / (s - 1)))
    assert 0.91 < np.mean((found.low < truth) & (truth < found.high)) < 0.99


def test_reliabilities_of_halves_and_their_roots():
    r = np.array([0.5, 0.0, -0.2, 1.0, np.nan, -1.0])
    found = ceiling.reliability(r)
    np.testing.assert_allclose(found, [2 / 3, 0, -0.5, 1, np.nan, np.nan])
    np.testing.assert_allclose(ceiling.root(found), [np.sqrt(2 / 3), NAN, NAN, 1, NAN, NAN])


@pytest.mark.parametrize("first,second", [(1, 2), (2, 3), (3, 3), (1, 6)])
def test_parts_of_unequal_length_predict_the_whole(first, second):
    """Of parts whose noise is known: each subject has signal 1 and noise 2."""
    reliability = lambda num: num / (num + 2)
    r = np.sqrt(reliability(first) * reliability(second))
    found = ceiling.reliability(np.array(r), first / (first + second))
    np.testing.assert_allclose(found, reliability(first + second))


ALIKE, HALF_NOISE, SPREAD = np.full(40, 0.1), np.repeat([0.0, 0.4], 20), np.linspace(0, 0.4, 40)


@pytest.mark.slow
@pytest.mark.parametrize("s", [3, 4, 10])
@pytest.mark.parametrize("gain", [ALIKE, 2 * ALIKE, HALF_NOISE, SPREAD])
def test_mean_roots_of_weak_reliabilities_are_what_the_signal_reaches(
    rng, s, gain, record_property
):
    """Six blocks of 60 samples, 100 experiments; docs/ceilings.md has the biases that are left.

    The mean of each target's own root misses by .08 where targets are alike and weak.
    """
    n, blocks = 360, np.split(np.arange(360), 6)
    found, reached = [], []
    for _ in range(100):
        signal = rng.standard_normal((40, n))
        Y = gain[:, None] * signal + rng.standard_normal((s, 40, n))
        r = ceiling.half_correlations(Y, blocks, rng=rng, num_splits=10)
        errors = r.var(axis=0, ddof=1) / len(r)
        found.append(ceiling.mean_root(r.mean(axis=0), s // 2 / s, errors))
        reached.append(ceiling.correlation(Y.mean(axis=0), signal, blocks).mean())
    record_property("found, reached", (np.mean(found), np.mean(reached)))
    error = 2 * np.std(found, ddof=1) / 10
    assert abs(np.mean(found) - np.mean(reached)) < 0.05 + error


def split_half(Y, *, rng, halves=None, num_splits=100, **options):
    """Take the options of halves and of the bootstrap one by one."""
    halves = ceiling.random_halves(len(Y), num_splits, rng) if halves is None else halves
    return ceiling.split_half(Y, halves, Bootstrap(rng, **options)).reliability


def loop_halves(Y, halves):
    """Correlations of half means [h v], of the samples of which both halves have something."""
    found = []
    for half in halves:
        a, b = (
            [
                [y[~np.isnan(y)].mean() if (~np.isnan(y)).any() else np.nan for y in x.T]
                for x in side
            ]
            for side in (Y[half].swapaxes(0, 1), Y[~half].swapaxes(0, 1))
        )
        a, b = np.array(a), np.array(b)
        both = ~np.isnan(a + b)
        found.append([stats.pearsonr(a[i][m], b[i][m]).statistic for i, m in enumerate(both)])
    return np.array(found)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_split_halves_match_loops(rng, missing):
    Y = simulate(rng, s=5, v=3, n=60) + 10
    Y[rng.random(Y.shape) < missing] = np.nan
    halves = np.array([[1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 1, 1]], bool)
    r = loop_halves(Y, halves)
    found = split_half(Y, rng=rng, halves=halves, num_resamples=5).value
    r = r.mean(axis=0)
    expected = ceiling.reliability(r, 2 / 5)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_random_halves_are_drawn_from_the_generator(rng):
    Y = simulate(rng, s=6, v=2, n=50)
    draw = lambda seed: (
        split_half(Y, rng=np.random.default_rng(seed), num_splits=3, num_resamples=5).value
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).all()
    order = np.random.default_rng(0)
    halves = np.zeros((3, 6), bool)
    for half in halves:
        half[order.permutation(6)[:3]] = True
    given = split_half(Y, rng=rng, halves=halves, num_resamples=5).value
    np.testing.assert_array_equal(draw(0), given)


def test_split_halves_agree_with_group_reliability(rng):
    Y = simulate(rng, s=6, v=4, n=300)
    whole = group_reliability(Y, [np.arange(300)], rng=np.random.default_rng(3), num_splits=7)
    found = split_half(Y, rng=np.random.default_rng(3), num_splits=7, num_resamples=5)
    np.testing.assert_allclose(ceiling.root(found.value), whole, atol=1e-12)


def test_roots_of_regions_and_of_noise(rng):
    """Both targets of the first region follow the stimuli, those of the second do not."""
    Y = simulate(rng, s=6, v=22, n=300)
    Y[:, 2:] = rng.standard_normal((6, 20, 300))
    halves = ceiling.random_halves(6, 20, rng)
    found = ceiling.split_half(Y, halves, Bootstrap(rng, num_resamples=200))
    targets, rois = ceiling.roots(found, [np.arange(2), np.arange(2, 22)])
    np.testing.assert_allclose(targets.value[:2], np.sqrt(found.reliability.value[:2]))
    # Of a level of 2.5 %, 5 of 20 have a probability of 1e-4.
    assert np.isnan(targets.value[2:]).sum() > 15 and np.isnan(rois.value[1])
    assert rois.value[0] == pytest.approx(np.sqrt(6 / 7), abs=0.03)
    assert rois.low[0] < rois.value[0] < rois.high[0] < 1


def test_the_interval_of_split_halves_is_that_of_resampled_samples():
    Y = simulate(np.random.default_rng(5), s=4, v=2, n=30)
    blocks = np.repeat(np.arange(10), 3)[::-1]
    halves = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
    found = split_half(
        Y, rng=np.random.default_rng(9), halves=halves, blocks=blocks, num_resamples=40
    )
    counts = np.random.default_rng(9).multinomial(10, np.full(10, 0.1), size=40)
    drawn = []
    for count in counts:
        samples = np.concatenate(
            [np.tile(np.flatnonzero(blocks == b), c) for b, c in enumerate(count)]
        )
        r = loop_halves(Y[:, :, samples], halves).mean(axis=0)
        drawn.append(2 * r / (1 + r))
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    np.testing.assert_allclose([found.low, found.high], ends, atol=1e-12)
    np.testing.assert_array_equal(found.num, 10)


@pytest.mark.parametrize("noise_sd", [0.7, 2.0])
def test_planted_reliabilities_lie_within_their_intervals(rng, noise_sd):
    """Of the mean over 6: 6 / (6 + noise²) in about 95 % of 200 targets."""
    Y = simulate(rng, s=6, v=200, n=300, noise_sd=noise_sd)
    truth = 6 / (6 + noise_sd**2)
    found = split_half(Y, rng=rng, num_splits=10, num_resamples=200)
    np.testing.assert_allclose(found.value.mean(), truth, atol=0.01)
    assert 0.9 < np.mean((found.low < truth) & (truth < found.high)) < 0.99


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 + 0.1])
def test_split_halves_of_a_constant_are_undefined(rng, value):
    Y = simulate(rng, s=4, v=3, n=40)
    Y[:, 1] = value
    found = split_half(Y, rng=rng, num_splits=3, num_resamples=20)
    for part in found[:3]:
        np.testing.assert_array_equal(np.isnan(part), [False, True, False])


def test_split_halves_that_share_no_sample_are_undefined(rng):
    Y = simulate(rng, s=4, v=2, n=40)
    Y[:2, 0, :20], Y[2:, 0, 20:] = np.nan, np.nan
    halves = np.array([[1, 1, 0, 0]], bool)
    found = split_half(Y, rng=rng, halves=halves, num_resamples=20)
    np.testing.assert_array_equal(np.isnan(found.value), [True, False])


def test_split_halves_in_tiles(rng, monkeypatch):
    Y = simulate(rng, s=4, v=5, n=40)
    draw = lambda: split_half(Y, rng=np.random.default_rng(1), num_splits=3, num_resamples=9)
    whole = draw()
    monkeypatch.setattr(ceiling, "TILE_NUMBERS", 1)
    for a, b in zip(whole, draw(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_refusals_of_split_halves(rng):
    Y = simulate(rng, s=4, v=2, n=40)
    with pytest.raises(ValueError, match="at least 2 subjects or repeats, got 1"):
        split_half(Y[:1], rng=rng)
    for halves in (np.zeros((0, 4)), np.ones((1, 4)), np.zeros((1, 4))):
        with pytest.raises(ValueError, match="halves must be at least one row of 4"):
            split_half(Y, rng=rng, halves=halves.astype(bool))
    with pytest.raises(ValueError, match="confidence must lie in"):
        split_half(Y, rng=rng, confidence=95.0)
    with pytest.raises(ValueError, match="num_resamples must be >= 1, got 0"):
        split_half(Y, rng=rng, num_resamples=0)
    with pytest.raises(ValueError, match="confidence must lie in"):
        ceiling.over_subjects(Y[:, :, 0], np.zeros((4, 4, 2)), confidence=1.0)


def test_halves_of_another_number_of_subjects_are_refused(rng, unchecked):
    Y = simulate(rng, s=4, v=2, n=40)
    with pytest.raises(ValueError, match="halves must be at least one row of 4"):
        split_half(Y, rng=rng, halves=np.eye(3, dtype=bool))
