"""A finding: one statistic with its interval and p, and the reason where it is undefined."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.core.inference.association import Association

COLUMNS = (
    "analysis",
    "subset",
    "predictor",
    "outcome",
    "n",
    "statistic",
    "value",
    "ci_low",
    "ci_high",
    "p",
    "p_adjusted",
)
REMARKS = ("analysis", "subset", "predictor", "outcome", "statistic", "remark")


class Finding(NamedTuple):
    """One statistic, with its interval, its p, and the reason if it is undefined."""

    analysis: str
    subset: str
    predictor: str
    outcome: str
    statistic: str
    found: Association
    family: str = ""  # of tests that are adjusted together; "": it stands alone


def table(found: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as rows with `COLUMNS`.

    `p_adjusted` is by Benjamini and Hochberg over the findings of one analysis that share a family;
    undefined for those that stand alone.

    Args:
      found: in the order of the rows.
    """
    found = list(found)
    rows = pd.DataFrame(
        [(*x[:4], x.found.n, x.statistic, *x.found[:4], np.nan) for x in found], columns=COLUMNS
    )
    numbers = ["value", "ci_low", "ci_high", "p", "p_adjusted"]
    rows = rows.astype({"n": int} | dict.fromkeys(numbers, float))
    families = pd.Series([f"{x.analysis}/{x.family}" if x.family else "" for x in found], dtype=str)
    for _, part in rows[families != ""].groupby(families):
        rows.loc[part.index, "p_adjusted"] = stats.benjamini_hochberg(part.p.to_numpy())
    return rows


def remarks(found: Iterable[Finding]) -> pd.DataFrame:
    """Return why findings are undefined, as rows with `REMARKS`.

    Args:
      found: all findings.
    """
    rows = [(*x[:5], x.found.reason) for x in found if x.found.reason]
    return pd.DataFrame(rows, columns=REMARKS)


def number(value: float, *, n: int, low: float = np.nan, high: float = np.nan) -> Association:
    """Return a number without a test.

    Args:
      value: the number.
      n: what it is over.
      low: end of its interval.
      high: the other end.
    """
    return Association(value, low, high, np.nan, n)
