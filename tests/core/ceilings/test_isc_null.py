import numpy as np
import pytest
from scipy import signal

from jaxalign.core.ceilings import isc, isc_null
from jaxalign.core.inference import stats


def moved(Y, run, shifts):
    """Roll each run of each subject, in loops."""
    out = Y.copy()
    for i, row in enumerate(shifts):
        for own, shift in zip(run, row, strict=True):
            out[i][:, own] = np.roll(Y[i][:, own], shift, axis=1)
    return out


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("lengths", [(24,), (9, 14)])
def test_shifts_match_rolled_series(rng, pairs, lengths):
    """Every null is among those of all shifts, worked out sample by sample."""
    n = sum(lengths)
    Y = rng.normal(size=(3, 2, n)) * np.array([1, 3, 0.2])[:, None, None] + 5
    Y[1, 1] = 0.3  # a subject without that target
    run = np.repeat(np.arange(len(lengths)), lengths)
    own = [np.flatnonzero(run == i) for i in range(len(lengths))]
    found = isc_null.draw(Y, run, isc_null.Moves("shift", 6, np.random.default_rng(3)), pairs=pairs)
    seeds = np.random.default_rng(3).integers(2**63, size=6)
    for seed, one in zip(seeds, found, strict=True):
        draws = np.random.default_rng(seed)
        shifts = np.stack([draws.integers(n, size=(3, 1))[:, 0] for n in lengths], axis=1)
        correlate = isc.pairwise if pairs else isc.leave_one_out
        expected = np.nanmean(correlate(moved(Y, own, shifts)), axis=0)
        np.testing.assert_allclose(one, expected, atol=1e-12)


@pytest.mark.parametrize("n", [40, 41])
def test_phases_keep_the_spectrum(rng, n):
    """Of two subjects: correlations of series with these spectra, made by the inverse transform."""
    Y = rng.normal(size=(2, 3, n))
    found = isc_null.draw(Y, np.zeros(n), isc_null.Moves("phase", 4, np.random.default_rng(5)))
    for seed, one in zip(np.random.default_rng(5).integers(2**63, size=4), found, strict=True):
        draws = np.random.default_rng(seed)
        angle = draws.uniform(0, 2 * np.pi, (2, n // 2 + 1))
        angle[:, 0] = 0
        if n % 2 == 0:
            angle[:, -1] = np.pi * draws.integers(2, size=2)
        other = np.fft.irfft(np.fft.rfft(Y, axis=2) * np.exp(-1j * angle)[:, None], n, axis=2)
        np.testing.assert_allclose(one, isc.leave_one_out(other).mean(axis=0), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("null", ["shift", "phase"])
@pytest.mark.parametrize("pairs", [False, True])
def test_subjects_who_share_nothing_are_rejected_at_the_level(null, pairs):
    """Autoregressions of .8, 300 samples, 5 subjects: 2,000 targets in 20 sets of draws."""
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(20):
        noise = rng.normal(size=(5, 100, 400))
        Y = signal.lfilter([1], [1, -0.8], noise)[:, :, 100:]
        nulls = isc_null.draw(Y, np.zeros(300), isc_null.Moves(null, 39, rng), pairs=pairs)
        values = (isc.pairwise if pairs else isc.leave_one_out)(Y).mean(axis=0)
        rejected.append(stats.compare(values, nulls).p <= 0.05)
    # Three standard errors of 2,000 are .015; targets that share draws add to that.
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.02)


def test_what_is_shared_is_found(rng):
    shared = signal.lfilter([1], [1, -0.8], rng.normal(size=(4, 200)))
    Y = shared + 3 * rng.normal(size=(8, 4, 200))
    Y[:, 3] = rng.normal(size=(8, 200))
    nulls = isc_null.draw(Y, np.zeros(200), isc_null.Moves("shift", 199, rng))
    p = stats.compare(isc.leave_one_out(Y).mean(axis=0), nulls).p
    assert (p[:3] == 1 / 200).all() and p[3] > 0.05


def test_tiles_are_the_same_draws(rng, monkeypatch):
    Y = rng.normal(size=(4, 5, 30))
    draw = lambda: isc_null.draw(
        Y, np.zeros(30), isc_null.Moves("phase", 3, np.random.default_rng(1))
    )
    whole = draw()
    monkeypatch.setattr(isc_null, "TILE_NUMBERS", 2 * 4 * 30)
    np.testing.assert_allclose(draw(), whole, atol=1e-14)


def test_constant_targets_are_undefined(rng):
    Y = rng.normal(size=(3, 2, 20))
    Y[:2, 0] = 4
    for pairs in (False, True):
        nulls = isc_null.draw(Y, np.zeros(20), isc_null.Moves("shift", 3, rng), pairs=pairs)
        assert np.isnan(nulls[:, 0]).all() and np.isfinite(nulls[:, 1]).all()


def test_refusals(rng):
    Y = rng.normal(size=(3, 2, 20))
    draw = lambda Y=Y, run=(0,) * 20, num=3: isc_null.draw(
        Y, run, isc_null.Moves("shift", num, rng)
    )
    with pytest.raises(ValueError, match="at least 2 subjects, got 1"):
        draw(Y[:1])
    with pytest.raises(ValueError, match="Y must be finite"):
        draw(np.where(Y == Y[0, 0, 0], np.nan, Y))
    with pytest.raises(ValueError, match="run must label all 20 samples, got 3"):
        draw(run=np.zeros(3))
    with pytest.raises(ValueError, match="the longest has 1"):
        draw(run=np.arange(20))
    with pytest.raises(ValueError, match="num must be >= 1, got 0"):
        draw(num=0)
