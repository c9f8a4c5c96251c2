"""Noise ceilings: how well any model could do, given how noisy the responses are.

Ceilings are computed on the test blocks on which models are scored, and averaged over them as the
scores are, so that a score can be compared with its ceiling.

Ceilings of time courses between subjects are in `core/ceilings/isc.py`, of repeats in
`core/ceilings/repeats.py`, and extrapolated over subjects in `core/ceilings/extrapolation.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core import metrics
from jaxalign.core.inference import resampling
from jaxalign.core.inference.resampling import Bootstrap

# Numbers that resamples of a tile of targets may take at a time.
TILE_NUMBERS = 2**24


class Ceiling(NamedTuple):
    """Ceilings with their confidence intervals; arrays hold one entry per target, or are scalars.

    What is undefined is NaN. `num` counts what the interval resamples: subjects, stimuli, blocks.
    """

    value: Float[np.ndarray, "*v"]
    low: Float[np.ndarray, "*v"]
    high: Float[np.ndarray, "*v"]
    num: Int[np.ndarray, "*v"]


class SplitHalf(NamedTuple):
    """Reliabilities of targets, and the correlations of halves behind them."""

    reliability: Ceiling
    r: Float[np.ndarray, "q v"]  # of the data, then of each bootstrap
    # Of subjects or repeats in the smaller half; of each target, where they are of several.
    share: float | Float[np.ndarray, " v"]


def _r(a: Float[np.ndarray, "... n"], b: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Correlate along the last axis; NaN where either is constant."""
    varies = ~(metrics.is_constant(a, axis=-1) | metrics.is_constant(b, axis=-1))
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    scale = np.asarray(np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1)))
    return np.divide((a * b).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=varies)


def correlations(
    a: Float[np.ndarray, "*u n"],
    b: Float[np.ndarray, "*u n"],
    blocks: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, "k *u"]:
    """Correlate within each block of samples; NaN where undefined.

    Args:
      a: samples along the last axis.
      b: likewise.
      blocks: test samples of each fold.
    """
    return np.stack([_r(a[..., block], b[..., block]) for block in blocks])


def correlation(
    a: Float[np.ndarray, "*u n"],
    b: Float[np.ndarray, "*u n"],
    blocks: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, "*u"]:
    """Average `correlations` over blocks."""
    return np.asarray(correlations(a, b, blocks).mean(axis=0))


def subject_correlations(
    Y: Float[np.ndarray, "s v n"], blocks: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, "k s v"]:
    """Correlate each subject with the mean of the others, block by block.

    The mean over blocks is a lower bound of what the subject's responses allow, since the mean of
    the others still holds noise.

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
    return correlations(Y, others, blocks)


def leave_one_subject_out(
    Y: Float[np.ndarray, "s v n"], blocks: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, "s v"]:
    """Average `subject_correlations` over blocks."""
    return subject_correlations(Y, blocks).mean(axis=0)


def without_each_subject(
    Y: Float[np.ndarray, "s v n"], blocks: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, "s s v"]:
    """Leave out each subject in turn, and do what `leave_one_subject_out` does with the others.

    All follow from products of subjects: with T the sum over subjects, and j left out, subject i is
    correlated with T - i - j.

    Args:
      Y: see `subject_correlations`; of finite values.
      blocks: test samples of each fold.

    Returns:
      Correlation of each subject (second axis) without each (first axis): NaN on the diagonal,
      where undefined, and throughout with two subjects.
    """
    s, v, n = Y.shape
    found = np.empty((s, s, v))
    tile = max(1, TILE_NUMBERS // (s * (n + s)))
    for start in range(0, v, tile):
        part = Y[:, start : start + tile].transpose(1, 0, 2)
        r = np.mean([_without_each(part[..., block]) for block in blocks], axis=0)
        found[..., start : start + tile] = r.transpose(1, 2, 0)
    return found


def _without_each(Y):
    """Correlate [v j i] each subject i with the sum over those who are neither i nor j."""
    z = Y - Y.mean(axis=2, keepdims=True, dtype=np.float64)
    z[metrics.is_constant(Y, axis=2)] = 0.0
    products = z @ z.transpose(0, 2, 1)
    squares = np.diagonal(products, axis1=1, axis2=2)[:, None]  # [v 1 i]
    with_all = products.sum(axis=2)[:, None]
    shared = with_all - squares - products
    ends = squares - 2 * with_all
    rest = with_all.sum(axis=2, keepdims=True) + ends + ends.transpose(0, 2, 1) + 2 * products
    # What is left of constants by rounding is no variance.
    rounding = metrics.CONSTANT_TOLERANCE**2 * squares.sum(axis=2, keepdims=True)
    known = (squares > 0) & (rest > rounding)
    known &= ~np.eye(Y.shape[1], dtype=bool)
    scale = np.sqrt(np.where(known, squares * rest, 1.0))
    return np.where(known, shared / scale, np.nan)


def half_correlations(
    Y: Float[np.ndarray, "s v n"],
    blocks: Sequence[Int[np.ndarray, " _"]],
    *,
    rng: np.random.Generator,
    num_splits: int = 100,
) -> Float[np.ndarray, "k v"]:
    """Correlate the means of two halves of the subjects, block by block, averaged over splits.

    Args:
      Y: responses of subjects who share targets, standardised per subject.
      blocks: test samples of each fold.
      rng: draws the splits.
      num_splits: random splits into halves (of an odd group, one half has one subject more).

    Raises:
      ValueError: with fewer than two subjects.
    """
    s = len(Y)
    if s < 2:
        raise ValueError(f"A ceiling over subjects needs at least 2, got {s}.")
    total = np.zeros((len(blocks), Y.shape[1]))
    for _ in range(num_splits):
        order = rng.permutation(s)
        first, second = Y[order[: s // 2]].mean(axis=0), Y[order[s // 2 :]].mean(axis=0)
        total += correlations(first, second, blocks)
    return total / num_splits


def over_subjects(
    values: Float[np.ndarray, "s *v"],
    left_out: Float[np.ndarray, "s s *v"],
    *,
    confidence: float = 0.95,
) -> Ceiling:
    """Average ceilings of single subjects, with a jackknife interval over subjects.

    The interval is for other subjects and the same stimuli. Each subject's ceiling depends on the
    responses of all others, so that ceilings of subjects are not independent: a bootstrap of the
    values alone (BCa) covered the expected ceiling in 55, 71, 83 and 92 % of simulated
    experiments with 4, 6, 10 and 25 unlike subjects, and this interval in 94 to 95 %; in 93 to 95
    % of new subjects with as many new stimuli, 300 that are independent of one another.

    Subjects in whom a ceiling is undefined are left out of that average. The interval is NaN with
    fewer than three of them, and has no width where all agree.

    Args:
      values: from `leave_one_subject_out` or `isc.leave_one_out`, or means of them over targets.
      left_out: likewise, from `without_each_subject`.
      confidence: coverage of the interval.

    Raises:
      ValueError: if `confidence` is out of its range.

    Source: see `resampling.jackknife`.
    """
    resampling.check_confidence(confidence)
    defined = ~np.isnan(values)
    mean = metrics.mean_defined(values, axis=0)
    others = metrics.mean_defined(left_out, axis=1)
    low, high = resampling.jackknife(
        mean, others, counted=defined, is_correlation=True, confidence=confidence
    )
    return Ceiling(mean, low, high, defined.sum(axis=0))


def reliability(
    r: Float[np.ndarray, "*v"], share: float | Float[np.ndarray, "*v"] = 0.5
) -> Float[np.ndarray, "*v"]:
    """Predict the reliability of a whole from the correlation of its two parts.

    With p and q = 1 - p the shares of the parts, (r sqrt(r^2 + 4 p q (1 - r^2)) - r^2) /
    (2 p q (1 - r^2)), which is 2 r / (1 + r) of halves. Parts are the means of some subjects or
    repeats each, all of which are equally reliable.

    Args:
      r: correlation of the parts.
      share: of one of them; of five subjects 2 / 5, as halves cannot be equal.

    Returns:
      The reliability, as negative as chance has made it; NaN where r is -1.

    Source: Horst (1951), Educational and Psychological Measurement 11, eq. 12; of halves Spearman
    (1910) and Brown (1910), British Journal of Psychology 3.
    """
    both = 4 * np.asarray(share) * (1 - np.asarray(share))
    # As a quotient that stays finite where r is 1.
    square = np.square(r)
    return metrics.divide(np.asarray(2 * r), np.asarray(r + np.sqrt(square + both * (1 - square))))


def root(reliability: Float[np.ndarray, "*v"]) -> Float[np.ndarray, "*v"]:
    """Return what a prediction without noise is expected to correlate with what was measured.

    Args:
      reliability: of the measurement.

    Returns:
      Its square root; NaN where it is not positive, for noise alone has no root.
    """
    known = np.asarray(reliability > 0)
    return np.where(known, np.sqrt(np.where(known, reliability, 0.0)), np.nan)


def mean_root(
    r: Float[np.ndarray, " v"],
    share: float | Float[np.ndarray, " v"],
    errors: Float[np.ndarray, " v"],
) -> float:
    """Average over targets the roots of their reliabilities, where these are weak, too.

    Roots bend: that of a reliability which chance has moved up and down is too low on average, and
    of 4 subjects of whom each target says little it was .11 where the truth was .20. So
    correlations are first drawn to their mean, by the share of their variance over targets that is
    error: where targets are alike the root is that of the mean, and where they differ by more than
    chance it is their own. What chance has made negative keeps its sign, else noise would add up.

    Args:
      r: correlation of the two parts of each target; NaN is left out.
      share: see `reliability`.
      errors: squared standard error of each.

    Returns:
      The mean, negative where there is hardly any signal: `root` says when there is none.

    Source: James and Stein (1961), Proc. Fourth Berkeley Symp. 1, about the mean, as Efron and
    Morris (1973), J. Am. Stat. Assoc. 68, have it.
    """
    known = ~np.isnan(r)
    if not known.any():
        return float("nan")
    r, share = r[known], np.broadcast_to(share, known.shape)[known]
    error = metrics.mean_defined(errors[known])
    spread = r.var(ddof=1) if len(r) > 1 else 0.0
    kept = max(0.0, 1 - float(error) / spread) if spread > 0 and error == error else 1.0
    drawn = r.mean() + kept * (r - r.mean())
    return float((np.sign(drawn) * np.sqrt(reliability(np.abs(drawn), share))).mean())


def random_halves(
    num_members: int, num_splits: int, rng: np.random.Generator
) -> Bool[np.ndarray, "h u"]:
    """Draw the members of the first half of each split; of an odd number the other has one more.

    Args:
      num_members: subjects, or repeats.
      num_splits: how many splits.
      rng: draws them.
    """
    halves = np.zeros((num_splits, num_members), bool)
    for half in halves:
        half[rng.permutation(num_members)[: num_members // 2]] = True
    return halves


def split_half(
    Y: Float[np.ndarray, "u v n"],
    halves: Bool[np.ndarray, "h u"],
    bootstrap: Bootstrap,
) -> SplitHalf:
    """Reliability of the mean over subjects or repeats, from the correlation of half means.

    Correlations are averaged over the splits and then corrected (`reliability`). The interval is
    a percentile bootstrap over samples, not over subjects: a subject drawn twice could be in both
    halves. So it says what the same subjects would give with more samples, and nothing about other
    subjects. It covered that in 93 to 95 % of experiments simulated with 4, 6 and 10 subjects and
    300 independent samples; of autoregressions (.5) in 30 blocks of 10 in 93 %, a little too few,
    and in 86 % without blocks.

    Args:
      Y: responses of subjects, or to repeats; NaN where not recorded. A half is the mean of what
        it has, and samples of which one half has nothing are left out.
      halves: True for the members of the first half of each split, from `random_halves`.
      bootstrap: how the interval is found.

    Returns:
      The reliability of each target, and the correlations of halves that it is made of.

    Raises:
      ValueError: with fewer than two subjects or repeats, halves that leave one side empty, or as
        `resampling.draw`.
    """
    u, v, n = Y.shape
    if u < 2:
        raise ValueError(f"Split halves need at least 2 subjects or repeats, got {u}.")
    if not len(halves) or halves.shape[1] != u or (halves.all(axis=1) | ~halves.any(axis=1)).any():
        raise ValueError(
            f"halves must be at least one row of {u} with members on either side, got "
            f"{halves.astype(int).tolist()}."
        )
    block, counts = resampling.draw(bootstrap, n)
    r = np.empty((len(counts), v))
    tile = max(1, TILE_NUMBERS // (len(halves) * len(counts) + u * n))
    for start in range(0, v, tile):
        columns = slice(start, start + tile)
        parts = [_half_r(Y[:, columns], half, block, counts) for half in halves]
        r[:, columns] = np.mean(parts, axis=0)
    share = float(np.mean(np.minimum(halves.sum(axis=1), u - halves.sum(axis=1))) / u)
    found = reliability(r, share)
    ends = resampling.percentiles(found[1:], found[0], bootstrap.confidence)
    whole = Ceiling(found[0], *ends, np.full(v, counts.shape[1]))
    return SplitHalf(whole, r, share)


def roots(
    found: SplitHalf, places: Sequence[Int[np.ndarray, " _"]], confidence: float = 0.95
) -> tuple[Ceiling, Ceiling]:
    """Return what a prediction without noise reaches: of each target, and of the mean over some.

    Undefined where the interval of the reliability holds 0, or is not above it: a root of noise
    would be a ceiling of nothing.

    Args:
      found: from `split_half`.
      places: targets of each ROI, averaged by `mean_root`.
      confidence: coverage.
    """
    num = found.reliability.num
    is_known = found.reliability.low > 0
    value, low, high = (np.where(is_known, root(x), np.nan) for x in found.reliability[:3])
    targets = Ceiling(value, low, high, num)
    rois = np.full((3, len(places)), np.nan)
    for i, columns in enumerate(places):
        r = found.r[:, columns]
        errors = r[1:].var(axis=0, ddof=1) if len(r) > 2 else np.full(len(columns), np.nan)
        share = np.broadcast_to(found.share, found.r.shape[1:])[columns]
        means = np.array([mean_root(x, share, errors) for x in r])
        low, high = resampling.percentiles(means[1:], np.asarray(means[0]), confidence)
        if low > 0:
            rois[:, i] = means[0], low, high
    return targets, Ceiling(rois[0], rois[1], rois[2], np.zeros(len(places), int))


def _half_r(Y, half, block, counts):
    """Correlate the means of two halves over resampled blocks [q v]; NaN where undefined."""
    sides = [metrics.mean_defined(Y[members], axis=0) for members in (half, ~half)]
    both = ~np.isnan(sides[0]) & ~np.isnan(sides[1])  # [v n]
    size = np.maximum(both.sum(axis=1, keepdims=True), 1)
    a, b = (np.where(both, side, 0.0) for side in sides)
    a, b = (np.where(both, x - x.sum(axis=1, keepdims=True) / size, 0.0) for x in (a, b))
    products = np.stack([both.astype(float), a, b, a * a, b * b, a * b])  # [6 v n]
    sums = resampling.block_sums(products, block) @ counts.T  # [6 v q]
    m, a_sum, b_sum, aa, bb, ab = sums
    m = np.maximum(m, 1)
    a_var, b_var = aa - a_sum**2 / m, bb - b_sum**2 / m
    # What is left of a constant by rounding is no variance.
    level = [np.nanmax(np.abs(np.where(both, side, 0.0)), axis=1) for side in sides]
    least = [(metrics.CONSTANT_TOLERANCE * x[:, None]) ** 2 for x in level]
    varies = (a_var > least[0]) & (b_var > least[1])
    scale = np.sqrt(np.where(varies, a_var * b_var, 1.0))
    return np.where(varies, (ab - a_sum * b_sum / m) / scale, np.nan).T
