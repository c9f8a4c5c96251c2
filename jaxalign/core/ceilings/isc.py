"""Inter-subject correlation (ISC): how alike the responses of subjects to one stimulus are."""

import numpy as np
from jaxtyping import Float

from jaxalign.core import metrics
from jaxalign.core.ceilings import ceiling
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.inference import resampling


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


def _check(Y):
    if len(Y) < 2:
        raise ValueError(f"ISC needs at least 2 subjects, got {len(Y)}.")
    if not np.isfinite(Y).all():
        raise ValueError("Y must be finite: it holds NaN or infinity.")


def over_pairs(
    r: Float[np.ndarray, "p v"], num_subjects: int, *, confidence: float = 0.95
) -> Ceiling:
    """Average over pairs, with a jackknife interval over subjects.

    Each subject is left out with all pairs that it is in. Undefined pairs are left out.
    It covered the expected ISC in 94 to 96 % of simulated experiments with 4, 6, 10 and 25 unlike
    subjects; a bootstrap of subjects, of whom one drawn twice makes no pair with itself (Chen et
    al. 2016), in 75, 80, 88 and 93 %.

    Args:
      r: from `pairwise`, or means of it over targets.
      num_subjects: whose pairs they are.
      confidence: coverage of the interval.

    Returns:
      The averages; `num` counts the subjects who are in a defined pair. NaN ends with fewer than
      three.

    Raises:
      ValueError: if `confidence` is out of its range.

    Source: Arvesen (1969), Ann. Math. Stat. 40(6), on the jackknife of averages over pairs.
    """
    resampling.check_confidence(confidence)
    first, second = np.triu_indices(num_subjects, 1)
    subject = np.arange(num_subjects)[:, None]
    member = ((first == subject) | (second == subject)).astype(float)  # [s p]
    defined = (~np.isnan(r)).astype(float)
    num = member @ defined  # [s v] pairs that a subject is in
    total = member @ np.where(np.isnan(r), 0.0, r)
    # Every pair has two members.
    num_left, total_left = num.sum(axis=0) / 2 - num, total.sum(axis=0) / 2 - total
    left_out = metrics.divide(total_left, num_left)
    value = metrics.mean_defined(r, axis=0)
    low, high = resampling.jackknife(
        value, left_out, counted=num > 0, is_correlation=True, confidence=confidence
    )
    return Ceiling(value, low, high, (num > 0).sum(axis=0))
