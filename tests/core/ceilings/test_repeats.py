import functools

import numpy as np
import pytest

from jaxalign.core.ceilings import repeats
from jaxalign.core.inference.resampling import Bootstrap


def with_options(function):
    """Take the options of a bootstrap one by one."""
    return functools.wraps(function)(lambda Y, **options: function(Y, Bootstrap(**options)))


FUNCTIONS = tuple(
    map(with_options, (repeats.ncsnr, repeats.noise_ceiling, repeats.explainable_variance))
)
ncsnr, noise_ceiling, explainable_variance = FUNCTIONS


def simulate(rng, *, u=3, v=6, n=500, noise_sd=1.0):
    """Repeats of a signal of variance 1, each with noise of its own."""
    return rng.normal(size=(v, n)) + noise_sd * rng.normal(size=(u, v, n))


def unequal(rng, Y):
    """Take away repeats, so that stimuli have none, one, two or all of three."""
    Y = Y.copy()
    missing = rng.integers(0, 4, Y.shape[1:])
    for u in range(3):
        Y[u][missing > 2 - u] = np.nan
    return Y


def nsd(Y):
    """The ratio as NSD has it, for responses of variance 1 in all and equal repeats."""
    noise = np.mean(np.var(Y, axis=0, ddof=1), axis=1)
    signal = np.maximum(1 - noise, 0)
    return np.sqrt(signal) / np.sqrt(noise)


def test_ratio_of_standardised_responses_is_that_of_nsd(rng):
    Y = simulate(rng, noise_sd=2.0)
    Y -= Y.mean(axis=(0, 2), keepdims=True)
    Y /= Y.std(axis=(0, 2), ddof=1, keepdims=True)
    Y[:, 3] = rng.normal(size=(3, 500))  # nothing but noise
    Y[:, 3] /= Y[:, 3].std(ddof=1)
    found = ncsnr(Y, rng=rng, num_resamples=20).value
    expected = nsd(Y)
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-9)
    np.testing.assert_allclose(np.maximum(found[3], 0), expected[3], atol=0.01)
    signed = np.sign(found) * found**2
    ceiling = noise_ceiling(Y, rng=rng, num_resamples=20).value
    np.testing.assert_allclose(ceiling, signed / (signed + 1 / 3))


def test_unequal_repeats_match_loops(rng):
    Y = unequal(rng, simulate(rng, v=3, n=80) + 7)
    ratio = ncsnr(Y, rng=rng, num_resamples=5).value
    ceiling = noise_ceiling(Y, rng=rng, num_resamples=5).value
    for v in range(3):
        groups = [Y[:, v, i][~np.isnan(Y[:, v, i])] for i in range(80)]
        noise = sum(((g - g.mean()) ** 2).sum() for g in groups if len(g))
        noise /= sum(len(g) - 1 for g in groups if len(g))
        signal = np.concatenate(groups).var(ddof=1) - noise
        assert ratio[v] == pytest.approx(np.sqrt(signal / noise), rel=1e-9)
        # NSD: (A/3 + B/2 + C/1) / (A + B + C).
        a, b, c = (sum(len(g) == m for g in groups) for m in (3, 2, 1))
        share = (a / 3 + b / 2 + c) / (a + b + c)
        assert ceiling[v] == pytest.approx(ratio[v] ** 2 / (ratio[v] ** 2 + share), rel=1e-9)


def test_explainable_variance_matches_the_definition(rng):
    Y = simulate(rng, v=4, n=120) * np.array([1.0, 2.0, 0.5])[:, None, None] + 3
    found = explainable_variance(Y, rng=rng, num_resamples=5).value
    for v in range(4):
        z = Y[:, v]
        z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
        share = z.mean(axis=0).var(ddof=1) / z.var(axis=1, ddof=1).mean()
        assert found[v] == pytest.approx(share - (1 - share) / 2, rel=1e-9)


def test_corrected_explainable_variance_is_the_mean_correlation_of_repeats(rng):
    """For standardised repeats the two are one, whatever their number."""
    Y = simulate(rng, u=4, v=3)
    found = explainable_variance(Y, rng=rng, num_resamples=5).value
    pairs = [np.corrcoef(Y[:, v])[np.triu_indices(4, 1)].mean() for v in range(3)]
    np.testing.assert_allclose(found, pairs, rtol=1e-9)


@pytest.mark.parametrize("noise_sd", [0.5, 2.0])
def test_planted_ceilings_lie_within_their_intervals(rng, noise_sd):
    """About 95 % of 300 targets, for each kind of ceiling, and without bias."""
    Y = simulate(rng, v=300, n=400, noise_sd=noise_sd)
    share = 1 / (1 + noise_sd**2)
    truths = (1 / noise_sd, 1 / (1 + noise_sd**2 / 3), share)
    for function, truth in zip(FUNCTIONS, truths, strict=True):
        found = function(Y, rng=rng, num_resamples=400)
        covered = np.mean((found.low < truth) & (truth < found.high))
        assert 0.91 < covered < 0.98, function.__name__
        np.testing.assert_allclose(found.value.mean(), truth, rtol=0.02)


def test_planted_ceilings_of_unequal_repeats(rng):
    Y = unequal(rng, simulate(rng, v=300, n=600))
    found = ncsnr(Y, rng=rng, num_resamples=400)
    covered = np.mean((found.low < 1) & (found.high > 1))
    assert 0.91 < covered < 0.98
    np.testing.assert_allclose(found.value.mean(), 1, rtol=0.02)


def test_ceilings_of_noise_are_about_zero_and_not_cut_off(rng):
    Y = rng.normal(size=(3, 400, 200))
    for function in FUNCTIONS:
        found = function(Y, rng=rng, num_resamples=20).value
        assert abs(found.mean()) < 0.02 and (found < 0).any()


def test_blocks_widen_the_intervals_of_slow_responses(rng):
    """Twenty samples alike are no twenty samples."""
    signal = np.repeat(rng.normal(size=(40, 20)), 20, axis=1)
    Y = signal + np.repeat(rng.normal(size=(3, 40, 20)), 20, axis=2)
    blocks = np.repeat(np.arange(20), 20)
    width = lambda x: (x.high - x.low).mean()
    for function in FUNCTIONS:
        alone = function(Y, rng=rng, num_resamples=200)
        together = function(Y, rng=rng, blocks=blocks, num_resamples=200)
        np.testing.assert_allclose(alone.value, together.value, rtol=1e-12)
        assert width(together) > 2 * width(alone)
        assert (together.num == 20).all() and (alone.num == 400).all()


@pytest.mark.parametrize("value", [0.0, 1e4 + 0.1])
def test_constant_targets_are_undefined(rng, value):
    Y = simulate(rng, v=3, n=60)
    Y[:, 1] = value
    for function in FUNCTIONS:
        found = function(Y, rng=rng, num_resamples=20)
        for part in found[:3]:
            np.testing.assert_array_equal(np.isnan(part), [False, True, False])


def test_targets_do_not_interact_and_units_do_not_matter(rng):
    Y = simulate(rng, v=3, n=60)
    for function in FUNCTIONS:
        whole = function(Y, rng=np.random.default_rng(1), num_resamples=20)
        alone = function(3e4 * Y[:, 1:2] - 8, rng=np.random.default_rng(1), num_resamples=20)
        for a, b in zip(whole[:3], alone[:3], strict=True):
            np.testing.assert_allclose(a[1:2], b, rtol=1e-7)


def test_tiles_do_not_matter(rng, monkeypatch):
    Y = simulate(rng, v=5, n=60)
    draw = lambda: [f(Y, rng=np.random.default_rng(1), num_resamples=9) for f in FUNCTIONS]
    whole = draw()
    monkeypatch.setattr(repeats, "TILE_NUMBERS", 1)
    for a, b in zip(whole, draw(), strict=True):
        np.testing.assert_allclose(np.stack(a), np.stack(b), rtol=1e-9)


def test_refusals(rng):
    Y = simulate(rng, n=30)
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match="at least 2( repeats)?, got 1"):
            function(Y[:1], rng=rng)
        with pytest.raises(ValueError, match="blocks must be at least 2"):
            function(Y, rng=rng, blocks=np.zeros(30))
        with pytest.raises(ValueError, match="confidence must lie in"):
            function(Y, rng=rng, confidence=0.0)
    bad = Y.copy()
    bad[0, 1, 2] = np.inf
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match="Y must be finite"):
            function(bad, rng=rng)
    bad[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="Y must be finite.*noise_ceiling"):
        explainable_variance(bad, rng=rng)
    bad[1:, 4] = np.nan
    with pytest.raises(ValueError, match="1 have none, the first of them target 4"):
        ncsnr(bad, rng=rng)


def test_refusals_that_annotations_make_in_tests(rng, unchecked):
    Y = simulate(rng, n=30)
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match="blocks must have one label per sample: 30, got 29"):
            function(Y, rng=rng, blocks=np.arange(29))
