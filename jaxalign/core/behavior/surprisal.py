"""Word surprisal against reading times: words, correlation, its ceiling, intervals.

All of it is statistics of a few columns, in float64 on the host. Words of a story are not
independent of one another, so intervals are over stories: a jackknife that leaves out one at a
time.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core import features, metrics
from jaxalign.core.inference import resampling


class Estimate(NamedTuple):
    """A value with its confidence interval over groups (stories), NaN with fewer than two."""

    value: float
    low: float
    high: float
    num: int  # observations
    num_groups: int


def mean_over_participants(
    reading_time_ms: Float[np.ndarray, "m s"],
) -> Float[np.ndarray, " m"]:
    """Average the times that there are; NaN for a word that nobody has read."""
    return metrics.mean_defined(reading_time_ms, axis=1)


def pearson_r(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Correlate; NaN with fewer than two values, or where either is constant."""
    if len(a) < 2 or metrics.is_constant(a) or metrics.is_constant(b):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def correlation(
    surprisal_bits: Float[np.ndarray, " n"],
    reading_time_ms: Float[np.ndarray, " n"],
    stories: features.Labels,
) -> Estimate:
    """Correlate surprisal with reading times over the words of all stories.

    The sign is kept. What Brain-Score calls `Futrell2018-pearsonr` is the absolute value, with
    mean times and without the words that begin a sentence.

    Args:
      surprisal_bits: of each word, finite.
      reading_time_ms: of each word, finite.
      stories: of each word.

    Raises:
      ValueError: if a value is not finite.
    """
    check_finite(surprisal_bits=surprisal_bits, reading_time_ms=reading_time_ms)
    words = np.arange(len(surprisal_bits))
    left_out = [
        pearson_r(surprisal_bits[rest], reading_time_ms[rest]) for rest in _without(stories, words)
    ]
    return jackknife(
        pearson_r(surprisal_bits, reading_time_ms),
        np.array(left_out),
        len(surprisal_bits),
        is_correlation=True,
    )


def split_half_ceiling(
    reading_time_ms: Float[np.ndarray, "m s"],
    stories: features.Labels,
    *,
    num_splits: int = 10,
    seed: int = 0,
) -> Estimate:
    """How well mean times of half the participants agree, as if halves were wholes.

    The median over random halves of 2r / (1 + r), with r the absolute correlation of the halves'
    mean times (Spearman-Brown). In each split the words count that both halves have read. This is
    a reliability: no root is taken, so that the |r| of a predictor without error is above it.
    `ceiling.root` is what that reaches: of simulated times .977, .829 and .500, where the
    reliability is .951, .684 and .253, and its root .975, .827 and .503.

    Args:
      reading_time_ms: NaN where a participant has no time.
      stories: of each word.
      num_splits: random halves.
      seed: of the legacy generator that Brain-Score draws the halves with.

    Returns:
      NaN with fewer than two participants.

    Source: Brain-Score Language, benchmarks/futrell2018/benchmark.py, SplitHalvesConsistency.
    """
    m, s = reading_time_ms.shape
    if s < 2:
        return Estimate(np.nan, np.nan, np.nan, m, len(set(stories)))
    draw = np.random.RandomState(seed)
    firsts = [draw.choice(s, size=s // 2, replace=False) for _ in range(num_splits)]
    halves = []
    for first in firsts:
        second = np.setdiff1d(np.arange(s), first)
        halves.append([mean_over_participants(reading_time_ms[:, x]) for x in (first, second)])

    def median(words):
        corrected = []
        for a, b in halves:
            both = words[np.isfinite(a[words]) & np.isfinite(b[words])]
            r = abs(pearson_r(a[both], b[both]))
            corrected.append(2 * r / (1 + r))
        return float(np.median(corrected))

    words = np.arange(m)
    left_out = [median(rest) for rest in _without(stories, words)]
    return jackknife(median(words), np.array(left_out), m, is_correlation=True)


def neighbour(
    values: Float[np.ndarray, "m p"], stories: features.Labels, offset: int
) -> Float[np.ndarray, "m p"]:
    """Give each word the values of the word `offset` places after it; before it, if negative.

    Args:
      values: one row per word, in the order of reading, no word left out.
      stories: of each word; beyond a story's ends is NaN.
      offset: in words.

    Raises:
      ValueError: if the words of a story are not adjacent.
    """
    labels = np.asarray(stories)
    if 1 + int((labels[1:] != labels[:-1]).sum()) > len(set(labels.tolist())):
        raise ValueError("stories must be adjacent: words of one lie among those of another.")
    found = np.full(values.shape, np.nan)
    for words in features.members(stories).values():
        inside = (words + offset >= words[0]) & (words + offset <= words[-1])
        found[words[inside]] = values[words[inside] + offset]
    return found


def spillover(
    values: Float[np.ndarray, "m p"], stories: features.Labels, num_previous: int
) -> Float[np.ndarray, "m q"]:
    """Return each word's values, followed by those of the words before it, the nearest first.

    Args:
      values: as of `neighbour`.
      stories: likewise.
      num_previous: how many words back.

    Raises:
      ValueError: as `neighbour`.
    """
    lags = range(num_previous + 1)
    return np.concatenate([neighbour(values, stories, -lag) for lag in lags], axis=1)


def _without(stories, words):
    """Yield the words that remain when a story is left out, story by story."""
    labels = np.asarray(stories)
    found = dict.fromkeys(labels.tolist())
    for story in found if len(found) > 1 else ():
        yield words[labels != story]


def jackknife(
    value: float, left_out: Float[np.ndarray, " g"], num: int, *, is_correlation: bool = False
) -> Estimate:
    """Return a value with the interval of `resampling.jackknife` over stories.

    Args:
      value: of all stories.
      left_out: of all stories but one, for each; empty where there is one alone.
      num: observations behind the value.
      is_correlation: lay the interval out on the scale of Fisher's z, as of a reliability, too.
    """
    g = len(left_out)
    if g < 2:
        return Estimate(value, np.nan, np.nan, num, 1)
    low, high = resampling.jackknife(np.asarray(value), left_out, is_correlation=is_correlation)
    return Estimate(value, float(low), float(high), num, g)


def check_finite(**arrays: Float[np.ndarray, "..."]) -> None:
    """Refuse arrays, given by name, that hold NaN or infinity.

    Raises:
      ValueError: if one does.
    """
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {int((~np.isfinite(values)).sum())} not.")
