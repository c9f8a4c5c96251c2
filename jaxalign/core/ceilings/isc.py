"""Inter-subject correlation (ISC): how alike the responses of subjects to one stimulus are."""

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import metrics
from jaxalign.core.ceilings import ceiling
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.inference import resampling


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
    pairs: bool = False,
    windows: list[Int[np.ndarray, " w"]] | None = None,
    confidence: float = 0.95,
) -> Ceiling:
    """Average ISC over subjects or pairs of them, with a jackknife interval over subjects.

    See `ceiling.over_subjects` and `over_pairs`, which say how often the interval covers.

    Args:
      Y: see `leave_one_out`.
      pairs: correlate pairs of subjects, not each with the mean of the others.
      windows: samples of each window, from `sliding`; None: the whole time.
      confidence: coverage of the interval.

    Returns:
      One ISC per target [v], or per window and target [w v]; NaN ends with fewer than three
      subjects.

    Raises:
      ValueError: with fewer than two subjects, NaN, or a number out of its range.
    """
    parts = [Y] if windows is None else [Y[:, :, window] for window in windows]
    found = [_isc(part, pairs, confidence) for part in parts]
    return found[0] if windows is None else Ceiling(*map(np.stack, zip(*found, strict=True)))


def _isc(Y, pairs, confidence):
    if pairs:
        return over_pairs(pairwise(Y), len(Y), confidence=confidence)
    values = leave_one_out(Y)
    left_out = ceiling.without_each_subject(Y, [np.arange(Y.shape[2])])
    return ceiling.over_subjects(values, left_out, confidence=confidence)


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
