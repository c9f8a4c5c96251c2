"""Numbers that a paper printed, held against findings from its own tables."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.errors import InputError

COLUMNS = ("quantity", "published", "found", "tolerance", "follows", "remark")
# The key of a finding, and which of its numbers.
_KEY = ["analysis", "subset", "predictor", "outcome", "statistic"]


class Check(NamedTuple):
    """One published number, and the finding that it should follow from."""

    quantity: str
    published: float  # NaN: not printed, ours to add
    tolerance: float
    key: tuple[str, str, str, str, str]  # analysis, subset, predictor, outcome, statistic
    column: str = "value"
    remark: str = ""


def find(findings: pd.DataFrame, key: tuple[str, str, str, str, str]) -> pd.Series:
    """Return the one finding with this analysis, subset, predictor, outcome and statistic.

    Args:
      findings: rows with `findings.rows.COLUMNS`.
      key: the five.

    Raises:
      InputError: if it is not there, or there are several.
    """
    part = findings[(findings[_KEY] == list(key)).all(axis=1)]
    if len(part) != 1:
        raise InputError(
            f"findings must hold {' / '.join(key)} once, found it {len(part)} times; scores, "
            "properties and tables of the paper must all be there, of that paper alone."
        )
    return part.iloc[0]


def row(check: Check, found: float) -> tuple:
    """Return a row of the table; whether it follows is missing where one of both is not known.

    Args:
      check: what was published.
      found: what was found.
    """
    follows = pd.NA
    if not np.isnan([check.published, found]).any():
        # A digit of rounding in the comparison itself must not decide.
        follows = bool(abs(found - check.published) <= check.tolerance + 1e-9)
    return check.quantity, check.published, found, check.tolerance, follows, check.remark


def table(rows: list[tuple]) -> pd.DataFrame:
    """Return rows as a frame.

    Args:
      rows: from `row`.
    """
    found = pd.DataFrame(rows, columns=COLUMNS)
    numbers = dict.fromkeys(("published", "found", "tolerance"), float)
    return found.astype(numbers | {"follows": "boolean"})
