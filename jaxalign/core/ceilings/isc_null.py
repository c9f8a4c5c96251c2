"""Null distributions of inter-subject correlation, from series moved against one another in time.

Each subject's series is moved in time, all targets together, and independently of the others; its
autocorrelation and the correlation between targets stay. In the frequency domain this multiplies
each coefficient by a phase, and sums over time become sums over coefficients, so that no series is
ever built. A group of s subjects takes s such products, whether each is correlated with the mean of
the others or all pairs are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from jaxalign.core import metrics
from jaxalign.core.features import Labels, members

Null = Literal["shift", "phase"]
# Numbers of a tile of targets, complex, that are held at a time.
TILE_NUMBERS = 2**22


class Moves(NamedTuple):
    """How series are moved apart, and how often."""

    null: Null
    num: int
    rng: np.random.Generator  # source of all draws; the same for all targets


def draw(
    Y: Float[np.ndarray, "s v n"],
    run: Labels,
    moves: Moves,
    *,
    pairs: bool = False,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Float[np.ndarray, "q v"]:
    """Draw the average ISC of subjects whose series are moved apart.

    "shift" moves each run of each subject circularly, by any number of samples. It is exact for
    runs that are stationary and join end to end, and for samples that are exchangeable; else it is
    approximate, by one seam per run. "phase" gives each frequency of each run a random phase, which
    keeps the power spectrum, and makes any series Gaussian. Compare what is drawn with
    the average of `isc.leave_one_out` or `isc.pairwise` by `stats.compare`.

    Args:
      Y: responses of subjects who share targets, without NaN; see `isc.leave_one_out`.
      run: run of each sample, in order of time.
      moves: "shift" or "phase", and how often.
      pairs: average over pairs of subjects, not over each with the mean of the others.
      progress: wraps the list of tiles of targets and draws.

    Raises:
      ValueError: with fewer than two subjects, NaN, labels that do not fit, no run of two samples,
        or num below 1.

    Source: Nastase et al. (2019), Soc Cogn Affect Neurosci 14(6), where the mean of the others
    stays as it is; moving all of them is what the same hypothesis allows, and makes a group of
    which the data are one member. Lerner et al. (2011), J Neurosci 31(8), for phases.
    """
    s, v, n = Y.shape
    if s < 2:
        raise ValueError(f"ISC needs at least 2 subjects, got {s}.")
    if not np.isfinite(Y).all():
        raise ValueError("Y must be finite: it holds NaN or infinity.")
    if len(run) != n:
        raise ValueError(f"run must label all {n} samples, got {len(run)} labels.")
    null, num, rng = moves
    if num < 1:
        raise ValueError(f"num must be >= 1, got {num}.")
    runs = list(members(run).values())
    if max(map(len, runs)) < 2:
        raise ValueError("A run must have at least 2 samples to be moved, the longest has 1.")
    # One seed per draw: tiles of targets repeat the phases and need not keep them.
    seeds = rng.integers(2**63, size=num)
    found = np.empty((num, v))
    width = max(1, TILE_NUMBERS // (s * n))
    tiles = [slice(a, a + width) for a in range(0, v, width)]
    spectra, at = np.empty(0), None
    for tile, q in progress([(tile, q) for tile in tiles for q in range(num)]):
        if tile != at:
            spectra, at = _spectra(Y[:, tile], runs, pairs), tile
        draws = np.random.default_rng(seeds[q])
        turned = spectra * _phases(draws, [len(samples) for samples in runs], s, null)[:, :, None]
        found[q, tile] = _average(turned, pairs)
    return found


def _spectra(Y, runs, pairs) -> Complex[np.ndarray, "s f v"]:
    """Return coefficients whose products sum to those of centred series; 0 where one is constant.

    Of pairs each series counts alike, so it is brought to length 1.
    """
    varies = ~metrics.is_constant(Y, axis=2)
    centred = np.where(varies[:, :, None], Y - Y.mean(axis=2, keepdims=True, dtype=np.float64), 0.0)
    if pairs:
        norm = np.sqrt((centred**2).sum(axis=2, keepdims=True))
        centred = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    parts = []
    for samples in runs:
        coefficients = np.fft.rfft(centred[:, :, samples], axis=2)
        # All but the mean and, of an even number, the highest frequency stand for two.
        weight = np.full(coefficients.shape[2], 2.0)
        weight[0] = 1
        if len(samples) % 2 == 0:
            weight[-1] = 1
        parts.append(coefficients * np.sqrt(weight / len(samples)))
    return np.ascontiguousarray(np.concatenate(parts, axis=2).transpose(0, 2, 1))


def _phases(rng, lengths, num_subjects, null) -> Complex[np.ndarray, "s f"]:
    parts = []
    for n in lengths:
        frequency = np.arange(n // 2 + 1)
        if null == "shift":
            shift = rng.integers(n, size=(num_subjects, 1))
            angle = 2 * np.pi * ((shift * frequency) % n) / n
        else:
            angle = rng.uniform(0, 2 * np.pi, (num_subjects, len(frequency)))
            angle[:, 0] = 0
            if n % 2 == 0:  # a real coefficient has a sign
                angle[:, -1] = np.pi * rng.integers(2, size=num_subjects)
        parts.append(np.exp(-1j * angle))
    return np.concatenate(parts, axis=1)


def _average(spectra, pairs) -> Float[np.ndarray, " v"]:
    """Average ISC over subjects or pairs; NaN with fewer than two that vary."""
    total = spectra.sum(axis=0)
    lengths = _dot(spectra, spectra)  # squared lengths [s v]
    whole = _dot(total, total)
    varies = lengths > 0
    m = varies.sum(axis=0)
    undefined = np.full(len(m), np.nan)
    if pairs:
        return np.divide(whole - m, m * (m - 1.0), out=undefined, where=m > 1)
    cross = _dot(spectra, total[None])
    others = whole - 2 * cross + lengths
    # What is left by rounding where nobody else varies is no mean of others.
    defined = varies & (m > 1)
    scale = np.sqrt(np.where(defined, lengths * others, 1.0))
    r = np.where(defined, (cross - lengths) / scale, 0.0)
    return np.divide(r.sum(axis=0), m, out=undefined, where=m > 1)


def _dot(a, b):
    """Sum products over frequencies, real parts alone."""
    return (a.real * b.real + a.imag * b.imag).sum(axis=-2)
