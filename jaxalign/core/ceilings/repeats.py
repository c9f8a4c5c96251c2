"""Noise ceilings from repeats: how much of a response the stimulus explains."""

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import metrics
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.inference import resampling
from jaxalign.core.inference.resampling import Bootstrap

# Numbers of a tile of targets that are resampled at a time.
TILE_NUMBERS = 2**22


def ncsnr(Y: Float[np.ndarray, "u v n"], bootstrap: Bootstrap) -> Ceiling:
    """Ratio of the standard deviations of signal and noise (noise-ceiling SNR).

    The variance of the noise is that between repeats of a stimulus, pooled over stimuli; that of
    the signal is what is left of the variance of all responses. Where nothing is left, by chance,
    the ratio keeps the sign: -sqrt(-signal / noise), which NSD has as 0.

    Args:
      Y: responses to repeats of each stimulus; NaN where there was no such repeat, so that stimuli
        may differ in number of repeats. NSD standardises them within each session before.
      bootstrap: how the interval over stimuli is found.

    Raises:
      ValueError: if a target has no stimulus with two repeats, a value is infinite, or as
        `resampling.draw`.

    Source: Allen et al. (2022), Nature Neuroscience 25, Methods, Noise ceiling estimation.
    """
    signal, noise, num_blocks = _variances(Y, bootstrap)
    ratio = metrics.divide(signal, noise)
    return _interval(np.sign(ratio) * np.sqrt(np.abs(ratio)), num_blocks, bootstrap.confidence)


def noise_ceiling(Y: Float[np.ndarray, "u v n"], bootstrap: Bootstrap) -> Ceiling:
    """Share of the variance of averaged responses that the stimulus explains.

    signal / (signal + noise / m) = ncsnr² / (ncsnr² + 1 / m), where m repeats are averaged; a
    hundred times it is NSD's noise ceiling in percent, and its root that of a correlation. Where
    stimuli differ in number of repeats, 1 / m is the mean of theirs, over stimuli that have any.

    Args:
      Y: see `ncsnr`.
      bootstrap: see `ncsnr`.

    Raises:
      ValueError: see `ncsnr`.

    Source: Allen et al. (2022), Nature Neuroscience 25, Methods, Noise ceiling estimation.
    """
    signal, noise, num_blocks = _variances(Y, bootstrap)
    repeats = (~np.isnan(Y)).sum(axis=0)  # [v n]
    share = noise_left(repeats)
    found = metrics.divide(signal, signal + noise * share[None])
    return _interval(found, num_blocks, bootstrap.confidence)


def noise_left(repeats: Int[np.ndarray, "*v n"]) -> Float[np.ndarray, "*v"]:
    """Share of the variance of a single repeat's noise that is left in averages over repeats.

    Args:
      repeats: that are averaged, of each stimulus; 0: there are none, and it does not count.

    Returns:
      The mean of 1 / m over stimuli, NaN where none has a repeat.
    """
    return metrics.mean_defined(metrics.divide(np.ones(()), repeats), axis=-1)


def of_ncsnr(
    ratio: Float[np.ndarray, " v"], repeats: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " v"]:
    """Share of the variance of averaged responses that the stimulus explains, of a known ncsnr.

    ratio² / (ratio² + w), w being the mean over stimuli of 1 / m, where m repeats are averaged: NSD
    has it as (A/3 + B/2 + C) / (A + B + C), of A, B and C stimuli with 3, 2 and 1. Its root is the
    ceiling of a correlation. See `noise_ceiling`, which finds the ratio in repeats.

    Args:
      ratio: of standard deviations of signal and noise of a single repeat, at least 0; NaN stays.
      repeats: that the response to each stimulus averages.

    Source: Allen et al. (2022), Nature Neuroscience 25, Methods, Noise ceiling estimation.
    """
    return metrics.divide(ratio**2, ratio**2 + noise_left(repeats))


def explainable_variance(Y: Float[np.ndarray, "u v n"], bootstrap: Bootstrap) -> Ceiling:
    """Share of the variance of single repeats that their mean explains (Gallant lab).

    Each repeat is brought to mean 0 and variance 1. With V the variance over samples, EV = V(mean
    over repeats) / mean over repeats of V. The noise that is left in the mean of u repeats biases
    this upwards; corrected, EV - (1 - EV) / (u - 1), which may be below 0.

    Args:
      Y: time courses of repeats of one stimulus, without NaN.
      bootstrap: how the interval over blocks is found. Means and scales stay those of the whole
        repeat.

    Raises:
      ValueError: with fewer than two repeats or values that are not finite, or as
        `resampling.draw`.

    Source: Sahani and Linden (2002), NeurIPS 15; Schoppe et al. (2016), Front Comput Neurosci 10;
    as in Dupré la Tour et al. (2022), voxelwise encoding tutorials.
    """
    u, v, n = Y.shape
    if u < 2:
        raise ValueError(f"Explainable variance needs at least 2 repeats, got {u}.")
    if not np.isfinite(Y).all():
        raise ValueError(
            "Y must be finite: it holds NaN or infinity. Where stimuli differ in repeats, use "
            "`noise_ceiling`."
        )
    block, counts = resampling.draw(bootstrap, n)
    size = counts @ np.bincount(block)
    found = np.empty((len(counts), v))
    tile = _tile(len(counts) * (u + 1))
    for start in range(0, v, tile):
        part = Y[:, start : start + tile].astype(np.float64)
        varies = np.expand_dims(~metrics.is_constant(part, axis=2), 2)  # [u t 1]
        part = part - part.mean(axis=2, keepdims=True)
        part = part / np.where(varies, part.std(axis=2, keepdims=True), 1.0)
        part = np.where(varies, part, 0.0)
        series = np.concatenate([part, part.mean(axis=0, keepdims=True)])
        total, square = (resampling.block_sums(x, block) @ counts.T for x in (series, series**2))
        variance = (square - total**2 / size) / np.maximum(size - 1, 1)  # [u+1 v q]
        each = np.where(varies.all(axis=0), variance[:-1].mean(axis=0), 0.0)
        found[:, start : start + tile] = metrics.divide(variance[-1], each).T
    found -= (1 - found) / (u - 1)
    return _interval(found, counts.shape[1], bootstrap.confidence)


def _variances(Y, bootstrap: Bootstrap):
    """Return the variances of signal and noise, of the data and of each resample [1+q v]."""
    u, v, n = Y.shape
    if u < 2:
        raise ValueError(f"Repeats must be at least 2, got {u}.")
    if np.isinf(Y).any():
        raise ValueError("Y must be finite, or NaN where there was no repeat: it holds infinity.")
    single = np.flatnonzero((~np.isnan(Y)).sum(axis=0).max(axis=1) < 2)
    if len(single):
        raise ValueError(
            f"Every target must have a stimulus with 2 repeats: {len(single)} have none, the first "
            f"of them target {single[0]}."
        )
    block, counts = resampling.draw(bootstrap, n)
    signal, noise = np.empty((2, len(counts), v))
    tile = _tile(len(counts))
    for start in range(0, v, tile):
        columns = slice(start, start + tile)
        recorded = ~np.isnan(Y[:, columns])
        number = recorded.sum(axis=0)  # [v n]
        part = np.where(recorded, Y[:, columns].astype(np.float64), 0.0)
        constant = (np.where(recorded, Y[:, columns], -np.inf).max(axis=(0, 2))) == (
            np.where(recorded, Y[:, columns], np.inf).min(axis=(0, 2))
        )
        center = part.sum(axis=(0, 2)) / number.sum(axis=1)
        part = np.where(recorded, part - center[None, :, None], 0.0)
        mean = part.sum(axis=0) / np.maximum(number, 1)
        within = (np.where(recorded, part - mean[None], 0.0) ** 2).sum(axis=0)
        freedom = np.maximum(number - 1, 0)
        rows = (number, freedom, within, part.sum(axis=0), (part**2).sum(axis=0))
        sums = resampling.block_sums(np.stack([np.float64(x) for x in rows]), block) @ counts.T
        m, degrees, error, total, square = sums  # [v q]
        within_noise = metrics.divide(error, degrees)
        whole = metrics.divide(square - metrics.divide(total**2, m), m - 1)
        signal[:, columns] = np.where(constant[:, None], np.nan, whole - within_noise).T
        noise[:, columns] = within_noise.T
    return signal, noise, counts.shape[1]


def _tile(numbers):
    return max(1, TILE_NUMBERS // numbers)


def _interval(found, num_blocks, confidence):
    """Make a ceiling of the data's values (first row) and those of the resamples."""
    low, high = resampling.percentiles(found[1:], found[0], confidence)
    return Ceiling(found[0], low, high, np.full(found.shape[1], num_blocks))
