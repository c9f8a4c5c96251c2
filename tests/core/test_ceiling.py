import numpy as np
import pytest
from scipy import stats

from jaxalign.core import ceiling

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


@pytest.mark.parametrize("s", [2, 4, 6])
@pytest.mark.parametrize("noise_sd", [0.5, 1.0, 2.0])
def test_group_reliability_is_the_correlation_of_the_mean_with_the_signal(rng, blocks, s, noise_sd):
    signal = rng.normal(size=(8, 4000))
    Y = signal + noise_sd * rng.normal(size=(s, 8, 4000))
    result = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=20)
    # The square root of the Spearman-Brown reliability s / (s + noise variance).
    np.testing.assert_allclose(result.mean(), np.sqrt(s / (s + noise_sd**2)), atol=0.015)
    # No prediction is better than the signal itself.
    reached = ceiling.correlation(Y.mean(axis=0), signal, blocks)
    np.testing.assert_allclose(result, reached, atol=0.06)


def test_group_reliability_is_nearly_unbiased_for_odd_groups(rng, blocks):
    Y = simulate(rng, s=5)
    result = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=20)
    # Unequal halves lower the root by less than one percent.
    np.testing.assert_allclose(result.mean(), np.sqrt(5 / 6), atol=0.015)


def test_group_reliability_of_two_subjects_is_spearman_brown(rng):
    Y = simulate(rng, s=2, v=3, n=60)
    blocks = np.split(np.arange(60), 3)
    r = ceiling.correlation(Y[0], Y[1], blocks)
    assert (r > 0).all()
    result = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=3)
    np.testing.assert_allclose(result, np.sqrt(2 * r / (1 + r)))


def test_opposed_subjects_have_a_negative_reliability(rng, blocks):
    noise = rng.normal(size=(8, 4000))
    Y = np.stack([noise, -noise])
    Y[:, 0] = noise[0]
    result = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=2)
    np.testing.assert_allclose(result, [1] + [-1] * 7)


def test_targets_without_signal_average_to_no_ceiling(rng):
    """Dropping those that chance made negative would leave a ceiling where there is none."""
    blocks = np.split(np.arange(120), 3)
    Y = rng.normal(size=(10, 400, 120))
    result = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=20)
    assert abs(result.mean()) < 0.05
    assert result[result > 0].mean() > 0.15


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_ceilings_of_a_constant_target_are_undefined(rng, blocks, value):
    Y = simulate(rng, v=3)
    Y[:, 1] = value
    expected = [False, True, False]
    reliability = ceiling.group_reliability(Y, blocks, rng=rng, num_splits=2)
    np.testing.assert_array_equal(np.isnan(reliability), expected)
    per_subject = ceiling.leave_one_subject_out(Y, blocks)
    np.testing.assert_array_equal(np.isnan(per_subject), [expected] * NUM_SUBJECTS)


def test_identical_subjects_reach_one(rng, blocks):
    Y = np.repeat(rng.normal(size=(1, 3, 4000)), 4, axis=0)
    np.testing.assert_allclose(ceiling.leave_one_subject_out(Y, blocks), 1)
    np.testing.assert_allclose(ceiling.group_reliability(Y, blocks, rng=rng, num_splits=2), 1)


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
    draw = lambda seed: ceiling.group_reliability(
        Y, blocks, rng=np.random.default_rng(seed), num_splits=2
    )
    draws = [draw(seed) for seed in range(4)]
    np.testing.assert_array_equal(draw(0), draws[0])
    assert (draws[0] != draws[1:]).any()


def test_one_subject_has_no_ceiling(rng, blocks):
    Y = simulate(rng, s=1)
    with pytest.raises(ValueError, match="over subjects needs at least 2, got 1"):
        ceiling.leave_one_subject_out(Y, blocks)
    with pytest.raises(ValueError, match="over subjects needs at least 2, got 1"):
        ceiling.group_reliability(Y, blocks, rng=rng)
