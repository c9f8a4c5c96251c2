"""Inter-subject correlation (ISC): how alike the responses of subjects to one stimulus are."""

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import ceiling, metrics, resampling
from jaxalign.core.ceiling import Ceiling

# Correlations of resampled pairs that may be held at a time.
TILE_NUMBERS = 2**22


def sliding(num_samples: int, width: int, *, step: int = 1) -> list[Int[np.ndarray, " w"]]:
    """Return the samples of each window; what is left at the end makes no window.

    Args:
      num_samples: of the recording.
      width: samples of a window, at least 2.
      step: samples from the start of one window to that of the next.

    Raises:
      ValueError: if a window does not fit, or a number is out of its range.
    """
    if not 2 <= width <= num_samples:
        raise ValueError(f"width must lie in 2..{num_samples} samples, got {width}.")
    if step < 1:
        raise ValueError(f"step must be >= 1, got {step}.")
    return [np.arange(a, a + width) for a in range(0, num_samples - width + 1, step)]


def leave_one_out(Y: Float[np.ndarray, "s v n"]) -> Float[np.ndarray, "s v"]:
    """Correlate each subject with the mean of the others; NaN where either is constant.

    Args:
      Y: responses of subjects who share targets, without NaN; standardise them per subject if
        scanners or subjects differ in unit.

    Raises:
      ValueError: with fewer than two subjects, or NaN.

    Source: Nastase et al. (2019), Soc Cogn Affect Neurosci 14(6).
    """
    _check(Y)
    return ceiling.leave_one_subject_out(Y.astype(np.float64), [np.arange(Y.shape[2])])


def pairwise(Y: Float[np.ndarray, "s v n"]) -> Float[np.ndarray, "p v"]:
    """Correlate each pair of subjects; NaN where either is constant.

    Args:
      Y: see `leave_one_out`.

    Returns:
      One row per pair, in the order of `itertools.combinations`.

    Raises:
      ValueError: with fewer than two subjects, or NaN.

    Source: Nastase et al. (2019), Soc Cogn Affect Neurosci 14(6).
    """
    _check(Y)
    deviations = Y - Y.mean(axis=2, keepdims=True, dtype=np.float64)
    scale = np.sqrt((deviations**2).sum(axis=2, keepdims=True))
    varies = ~metrics.is_constant(Y, axis=2)[:, :, None] & (scale > 0)
    z = np.divide(deviations, scale, out=np.full(scale.shape, np.nan) * deviations, where=varies)
    z = z.transpose(1, 0, 2)
    first, second = np.triu_indices(len(Y), 1)
    return (z @ z.transpose(0, 2, 1))[:, first, second].T


def isc(
    Y: Float[np.ndarray, "s v n"],
    *,
    rng: np.random.Generator,
    pairs: bool = False,
    windows: list[Int[np.ndarray, " w"]] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Ceiling:
    """Average ISC over subjects or pairs of them, with a bootstrap interval over subjects.

    Correlations with the mean of the others are resampled subject by subject (BCa); those of pairs
    by the subjects of the pair, a subject drawn twice making no pair with itself (percentile).

    Args:
      Y: see `leave_one_out`.
      rng: draws the resamples.
      pairs: correlate pairs of subjects, not each with the mean of the others.
      windows: samples of each window, from `sliding`; None: the whole time.
      confidence: coverage of the interval.
      num_resamples: bootstraps.

    Returns:
      One ISC per target [v], or per window and target [w v].

    Raises:
      ValueError: with fewer than two subjects, NaN, or a number out of its range.

    Source: Chen et al. (2016), NeuroImage 142, for the bootstrap of pairs.
    """
    resampling.check(confidence, num_resamples)
    correlate = pairwise if pairs else leave_one_out
    if windows is None:
        values = correlate(Y)
    else:
        values = np.stack([correlate(Y[:, :, window]) for window in windows], axis=1)
    if not pairs:
        return ceiling.over_subjects(
            values, rng=rng, confidence=confidence, num_resamples=num_resamples
        )
    flat = values.reshape(len(values), -1)
    found = over_pairs(flat, len(Y), rng=rng, confidence=confidence, num_resamples=num_resamples)
    return Ceiling(*(x.reshape(values.shape[1:]) for x in found))


def _check(Y):
    if len(Y) < 2:
        raise ValueError(f"ISC needs at least 2 subjects, got {len(Y)}.")
    if not np.isfinite(Y).all():
        raise ValueError("Y must be finite: it holds NaN or infinity.")


def over_pairs(
    r: Float[np.ndarray, "p v"],
    num_subjects: int,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Ceiling:
    """Average over pairs, with a percentile bootstrap interval over subjects.

    Each pair counts as often as its subjects were drawn together, one drawn twice making no pair
    with itself. Undefined pairs are left out.

    Args:
      r: from `pairwise`, or means of it over targets.
      num_subjects: whose pairs they are.
      rng: draws the resamples.
      confidence: coverage of the interval.
      num_resamples: bootstraps.

    Raises:
      ValueError: if a number is out of its range.

    Source: Chen et al. (2016), NeuroImage 142.
    """
    resampling.check(confidence, num_resamples)
    first, second = np.triu_indices(num_subjects, 1)
    counts = resampling.draw_blocks(rng, num_resamples, num_subjects)
    weights = counts[:, first] * counts[:, second]
    value, low, high = np.empty((3, r.shape[1]))
    tile = max(1, TILE_NUMBERS // len(weights))
    for start in range(0, r.shape[1], tile):
        own = slice(start, start + tile)
        defined = ~np.isnan(r[:, own])
        size = weights @ defined
        total = weights @ np.where(defined, r[:, own], 0.0)
        mean = np.divide(total, size, out=np.full(total.shape, np.nan), where=size > 0)
        value[own] = mean[0]
        low[own], high[own] = resampling.percentiles(mean[1:], mean[0], confidence)
    return Ceiling(value, low, high, np.full(r.shape[1], num_subjects))
