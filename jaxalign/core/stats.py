"""Intervals for means and paired differences over subjects."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


class Interval(NamedTuple):
    """A mean, its confidence interval, and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> Interval:
    """Mean of independent values with Student's t interval; values that are NaN are left out.

    The interval is NaN with fewer than two values.

    Args:
      values: one per subject.
      confidence: coverage.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Interval(mean, mean - float(half), mean + float(half), n)
