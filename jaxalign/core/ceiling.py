"""Noise ceilings: how well any model could do, given how noisy the responses are.

Ceilings are computed on the test blocks on which models are scored, and averaged over them as the
scores are, so that score and ceiling can be set side by side.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import metrics


def _r(a: Float[np.ndarray, "... n"], b: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Correlate along the last axis; NaN where either is constant."""
    varies = ~(metrics.is_constant(a, axis=-1) | metrics.is_constant(b, axis=-1))
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    scale = np.asarray(np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1)))
    return np.divide((a * b).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=varies)


def correlation(
    a: Float[np.ndarray, "... n"],
    b: Float[np.ndarray, "... n"],
    blocks: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, "..."]:
    """Correlate within each block of samples, and average over blocks; NaN where undefined.

    Args:
      a: samples along the last axis.
      b: likewise.
      blocks: test samples of each fold.
    """
    return np.asarray(np.mean([_r(a[..., block], b[..., block]) for block in blocks], axis=0))


def leave_one_subject_out(
    Y: Float[np.ndarray, "s v n"], blocks: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, "s v"]:
    """Correlate each subject with the mean of the others, block by block.

    This is a lower bound of what the subject's responses allow, since the mean of the others
    still holds noise.

    Args:
      Y: responses of subjects who share targets, standardised per subject.
      blocks: test samples of each fold.

    Raises:
      ValueError: with fewer than two subjects.

    Source: Nili et al. (2014), PLoS Comput Biol 10(4), the lower bound.
    """
    s = len(Y)
    if s < 2:
        raise ValueError(f"A ceiling over subjects needs at least 2, got {s}.")
    others = (Y.sum(axis=0) - Y) / (s - 1)
    return correlation(Y, others, blocks)


def group_reliability(
    Y: Float[np.ndarray, "s v n"],
    blocks: Sequence[Int[np.ndarray, " _"]],
    *,
    rng: np.random.Generator,
    num_splits: int = 100,
) -> Float[np.ndarray, " v"]:
    """Ceiling of the mean over subjects: root of the Spearman-Brown split-half reliability.

    With r the correlation of two half-group means (averaged over random splits and blocks), the
    reliability of the whole group's mean is 2r / (1 + r), and no prediction can be expected to
    correlate with it above the square root. Where r is negative the root is that of the absolute
    value, with the sign kept: the mean over targets without any signal is then about 0, while
    leaving out the negative ones would raise it. A negative ceiling by itself means nothing but
    that there is none.

    Args:
      Y: responses of subjects who share targets, standardised per subject.
      blocks: test samples of each fold.
      rng: draws the splits.
      num_splits: random splits into halves (of an odd group, one half has one subject more).

    Raises:
      ValueError: with fewer than two subjects.

    Source: Spearman (1910) and Brown (1910), British Journal of Psychology 3.
    """
    s = len(Y)
    if s < 2:
        raise ValueError(f"A ceiling over subjects needs at least 2, got {s}.")
    halves = []
    for _ in range(num_splits):
        order = rng.permutation(s)
        first, second = Y[order[: s // 2]].mean(axis=0), Y[order[s // 2 :]].mean(axis=0)
        halves.append(correlation(first, second, blocks))
    r = np.mean(halves, axis=0)
    return np.sign(r) * np.sqrt(2 * np.abs(r) / (1 + np.abs(r)))
