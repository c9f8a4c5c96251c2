"""Bootstraps over blocks of samples, by weights: a resample is a product with sums of blocks."""

import numpy as np
from jaxtyping import Float, Int, Shaped


def check(confidence: float, num_resamples: int) -> None:
    """Check what every interval takes.

    Args:
      confidence: must lie in (0, 1).
      num_resamples: must be positive.

    Raises:
      ValueError: if one is out of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")


def label_blocks(
    blocks: Shaped[np.ndarray, " n"] | None, num_samples: int
) -> tuple[Int[np.ndarray, " n"], int]:
    """Return the number of each sample's block, and how many there are.

    Args:
      blocks: labels; None: every sample is a block.
      num_samples: of the data.

    Raises:
      ValueError: if there is not one label per sample, or fewer than two blocks.
    """
    labels = np.arange(num_samples) if blocks is None else blocks
    if len(labels) != num_samples:
        raise ValueError(
            f"blocks must have one label per sample: {num_samples}, got {len(labels)}."
        )
    names, block = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"blocks must be at least 2, to resample them, got {len(names)}.")
    return block.reshape(-1), len(names)


def draw_blocks(
    rng: np.random.Generator, num_resamples: int, num_blocks: int
) -> Float[np.ndarray, "q b"]:
    """Return how often each block is in the data (first row: once), and in each resample.

    Args:
      rng: draws.
      num_resamples: rows after the first.
      num_blocks: columns.
    """
    drawn = rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=num_resamples)
    return np.concatenate([np.ones((1, num_blocks)), drawn])


def block_sums(
    x: Float[np.ndarray, "... n"], block: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "... b"]:
    """Sum over the samples of each block.

    Args:
      x: samples along the last axis.
      block: from `label_blocks`.
    """
    order = np.argsort(block, kind="stable")
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))
    return np.add.reduceat(x[..., order], starts, axis=-1)


def percentiles(
    resampled: Float[np.ndarray, "q *v"], value: Float[np.ndarray, "*v"], confidence: float
) -> tuple[Float[np.ndarray, "*v"], Float[np.ndarray, "*v"]]:
    """Return the ends of the percentile interval; NaN where the value is undefined.

    Args:
      resampled: of each bootstrap; those that are undefined are left out.
      value: of the data.
      confidence: coverage.
    """
    undefined = np.isnan(value) | np.isnan(resampled).all(axis=0)
    tail = 50 * (1 - confidence)
    # Without a number to take the place, a target without any would warn.
    resampled = np.where(undefined, 0.0, resampled)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
