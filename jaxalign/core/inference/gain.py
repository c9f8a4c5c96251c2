"""How much higher scores of models are than those of the models they were made of."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxalign.core.inference import bootstrap, stats
from jaxalign.core.inference.association import Association
from jaxalign.core.inference.resampling import check_confidence

# Differences of scores below this are ties; scores themselves are far larger.
_TIE_DECIMALS = 10


class Gain(NamedTuple):
    """How much higher scores are than those they are paired with."""

    percent: Float[np.ndarray, " n"]  # of each pair
    mean: Association  # of percent; interval of pairs drawn anew, p Wilcoxon's of the differences
    by_base: Association  # the same mean; interval of bases drawn anew, with all their pairs
    test: stats.Paired  # of the differences of scores
    num_higher: int
    num_bases: int


def percent_gain(
    tuned: Float[np.ndarray, " n"],
    base: Float[np.ndarray, " _"],
    bases: Shaped[np.ndarray, " _"],
    *,
    num_resamples: int = 9999,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> Gain:
    """Average over pairs by how many percent one score exceeds the other, 100 (tuned / base - 1).

    Pairs that share a base are not independent: its error is in all of them. Intervals over pairs,
    and the tests, which are over pairs too, take no notice; that over bases does, and is the one to
    trust, as far as so few bases allow. Both are bootstraps: BCa over pairs; percentiles over
    bases, of which there are too few to find an acceleration.

    Args:
      tuned: scores.
      base: scores they are held against, one for each; pairs with NaN are left out, and so are
        those whose base is not positive, which have no percentage.
      bases: name of each pair's base.
      num_resamples: of the bootstraps.
      rng: source of all draws.
      confidence: coverage.

    Raises:
      ValueError: if shapes differ, or `num_resamples` or `confidence` is out of range.

    Source: `bootstrap.interval` and `stats.paired`; Davison and Hinkley (1997), Bootstrap Methods
    and their Application, section 3.8, for clusters.
    """
    if not len(tuned) == len(base) == len(bases):
        raise ValueError(
            f"Pairs must have a score, a base's score and a base: {len(tuned)}, {len(base)} and "
            f"{len(bases)}."
        )
    check_confidence(confidence)
    positive = np.where(base > 0, base, np.nan)
    percent = 100 * (tuned / positive - 1)
    known = ~np.isnan(percent)
    own, n = percent[known], int(known.sum())
    # Scores are published to few digits: differences that tie must not be told apart by rounding.
    difference = np.round(tuned[known] - base[known], _TIE_DECIMALS)
    test = stats.paired(difference, np.zeros_like(difference), confidence=confidence)
    mean = float(own.mean()) if n else np.nan
    names, cluster = np.unique(bases[known], return_inverse=True)
    draw = functools.partial(bootstrap.interval, num=num_resamples, rng=rng, confidence=confidence)
    over_pairs, over_bases = (np.nan, np.nan), (np.nan, np.nan)
    if n > 1:
        over_pairs = _ends(draw(bootstrap.mean_over(own[:, None]), (n,)))
    if len(names) > 1:
        over_bases = _ends(draw(_mean_of_clusters(own, cluster), (len(names),), kind="percentile"))
    return Gain(
        percent,
        Association(mean, *over_pairs, test.p_wilcoxon, n),
        Association(mean, *over_bases, np.nan, n),
        test,
        int((difference > 0).sum()),
        len(names),
    )


def _mean_of_clusters(
    values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> bootstrap.Statistic:
    totals = np.bincount(cluster, weights=values)
    sizes = np.bincount(cluster).astype(np.float64)
    return lambda counts: ((counts @ totals) / (counts @ sizes))[:, None]


def _ends(found: bootstrap.Estimate) -> tuple[float, float]:
    return float(found.low[0]), float(found.high[0])
