"""Test of a difference of two models' scores: their predictions are swapped, sample by sample."""

import numpy as np
from jaxtyping import Float

_AT_ONCE = 2**22  # numbers of a block of swaps


def swap_test(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    *,
    num: int,
    rng: np.random.Generator,
) -> float:
    """Return the two-sided p of a difference of two scores that are sums over samples.

    Where the two models predict a sample equally well, it makes no difference which prediction is
    whose: to swap them is to change the sign of the difference of their parts. p is the share of
    draws, the order as it is among them, whose sum is as far from 0 as that of the samples.

    It holds too of the two best of several models, picked on these samples: that the best one is
    not merely the best in them is what the two-sided test of the first against the second shows.

    Args:
      first: what each sample adds to the score of one model; see `core.scores.held_out`.
      second: likewise of the other.
      num: draws of which samples are swapped.
      rng: source of the draws.

    Returns:
      At least 1 / (num + 1); NaN if no sample has a defined difference.

    Source: Hung and Fithian (2019), Rank verification for exponential families, Annals of
    Statistics 47, 758-782, for the two best of several.
    """
    difference = first - second
    difference = difference[np.isfinite(difference)]
    if not len(difference) or num < 1:
        return float("nan")
    # Sums in other orders differ by rounding.
    least = abs(difference.sum()) * (1 - 1e-12)
    size = max(1, _AT_ONCE // len(difference))
    beyond = 0
    for start in range(0, num, size):
        signs = rng.integers(0, 2, (min(size, num - start), len(difference))) * 2.0 - 1.0
        beyond += int((np.abs(signs @ difference) >= least).sum())
    return (1 + beyond) / (1 + num)
