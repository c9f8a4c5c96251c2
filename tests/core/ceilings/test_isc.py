import itertools

import numpy as np
import pytest
from scipy import io, stats

from jaxalign.core.ceilings import ceiling, isc


def simulate(rng, *, s=6, v=5, n=200, noise_sd=1.0):
    """Subjects who share a signal of variance 1 in every target, each with noise of its own."""
    signal = rng.normal(size=(v, n))
    signal = (signal - signal.mean(axis=1, keepdims=True)) / signal.std(axis=1, keepdims=True)
    return signal + noise_sd * rng.normal(size=(s, v, n))


def loop_leave_one_out(Y):
    others = [np.mean([y for j, y in enumerate(Y) if j != i], axis=0) for i in range(len(Y))]
    return np.array(
        [
            [np.corrcoef(a, b)[0, 1] for a, b in zip(mine, rest, strict=True)]
            for mine, rest in zip(Y, others, strict=True)
        ]
    )


def loop_pairwise(Y):
    return np.array(
        [
            [np.corrcoef(a, b)[0, 1] for a, b in zip(Y[i], Y[j], strict=True)]
            for i, j in itertools.combinations(range(len(Y)), 2)
        ]
    )


def average(Y, *, pairs=False, confidence=0.95):
    """Average over subjects or pairs, as the stage does."""
    if pairs:
        return isc.over_pairs(isc.pairwise(Y), len(Y), confidence=confidence)
    left_out = ceiling.without_each_subject(Y, [np.arange(Y.shape[2])])
    return ceiling.over_subjects(isc.leave_one_out(Y), left_out, confidence=confidence)


def test_matches_loops(rng):
    Y = simulate(rng) + 40
    np.testing.assert_allclose(isc.leave_one_out(Y), loop_leave_one_out(Y), atol=1e-12)
    np.testing.assert_allclose(isc.pairwise(Y), loop_pairwise(Y), atol=1e-12)


@pytest.mark.parametrize("pairs", [False, True])
def test_subjects_are_left_out_in_turn(rng, pairs):
    """Each with all that depends on it, on the scale of Fisher's z."""
    Y = simulate(rng, s=5, v=2)
    found = average(Y, pairs=pairs)
    loop = loop_pairwise if pairs else loop_leave_one_out
    left_out = np.arctanh([loop(np.delete(Y, j, axis=0)).mean(axis=0) for j in range(5)])
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 * left_out.var(axis=0))
    middle = np.arctanh(loop(Y).mean(axis=0))
    np.testing.assert_allclose([found.low, found.high], np.tanh([middle - half, middle + half]))
    np.testing.assert_array_equal(found.num, 5)
    assert np.isnan(average(Y[:2], pairs=pairs).low).all()


@pytest.mark.parametrize("pairs", [False, True])
def test_intervals_cover_what_was_planted(rng, pairs):
    """The expected correlation at noise variance 1, over subjects: about 95 % of 300 targets."""
    s = 20
    Y = simulate(rng, s=s, v=300, n=300)
    found = average(Y, pairs=pairs)
    truth = 0.5 if pairs else 1 / np.sqrt(2 * (1 + 1 / (s - 1)))
    np.testing.assert_allclose(found.value.mean(), truth, atol=0.005)
    covered = np.mean((found.low < truth) & (truth < found.high))
    assert 0.91 < covered < 0.99


@pytest.mark.parametrize("pairs", [False, True])
def test_a_constant_subject_is_left_out_of_the_average(rng, pairs):
    Y = simulate(rng)
    Y[2, 1] = 0.1
    found = average(Y, pairs=pairs)
    assert np.isfinite(found.value).all()
    one = (isc.pairwise if pairs else isc.leave_one_out)(Y)[:, 1]
    assert np.isnan(one).sum() == (5 if pairs else 1)
    assert found.value[1] == pytest.approx(np.nanmean(one))


@pytest.mark.parametrize("pairs", [False, True])
def test_constant_targets_are_undefined(rng, pairs):
    Y = simulate(rng)
    Y[:, 1] = 0.1
    found = average(Y, pairs=pairs)
    for part in found[:3]:
        np.testing.assert_array_equal(np.isnan(part), [False, True, False, False, False])


def test_identical_subjects_correlate_to_one(rng):
    Y = np.repeat(rng.normal(size=(1, 3, 40)), 4, axis=0)
    for pairs in (False, True):
        found = average(Y, pairs=pairs)
        np.testing.assert_allclose(found[:3], 1)


def test_refusals(rng):
    Y = simulate(rng)
    for function in (isc.leave_one_out, isc.pairwise):
        with pytest.raises(ValueError, match="ISC needs at least 2 subjects, got 1"):
            function(Y[:1])
        bad = Y.copy()
        bad[1, 2, 3] = np.nan
        with pytest.raises(ValueError, match="Y must be finite: it holds NaN"):
            function(bad)
    for pairs in (False, True):
        with pytest.raises(ValueError, match="confidence must lie in"):
            average(Y, pairs=pairs, confidence=95.0)


@pytest.mark.slow
def test_pie_man(data_root):
    path = data_root / "pieman_fmri_36subj/examples/sample_data/weights.mat"
    Y = np.stack([subject.T for subject in io.loadmat(path)["weights"][0]]).astype(np.float64)
    assert Y.shape == (36, 100, 300)
    np.testing.assert_allclose(isc.leave_one_out(Y), loop_leave_one_out(Y), atol=1e-10)
    np.testing.assert_allclose(isc.pairwise(Y[:, :9]), loop_pairwise(Y[:, :9]), atol=1e-10)
    found = average(Y)
    # Listeners to a story agree, in some nodes much and in some hardly.
    assert (found.low > 0).mean() > 0.5
    assert found.value.max() > 0.3
    np.testing.assert_array_equal(found.num, 36)
    left_out = np.arctanh(
        [loop_leave_one_out(np.delete(Y[:, [4]], j, axis=0)).mean() for j in range(36)]
    )
    half = stats.t.ppf(0.975, 35) * np.sqrt(35 * left_out.var())
    ends = np.tanh(np.arctanh(found.value[4]) + half * np.array([-1, 1]))
    np.testing.assert_allclose([found.low[4], found.high[4]], ends, atol=1e-9)
