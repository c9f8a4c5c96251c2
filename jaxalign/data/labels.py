"""Labels of samples and of targets: what counts as missing, and its refusal."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from jaxalign.errors import InputError

# What a missing number becomes when it is written as text. "NA" and "None" may be names.
_WRITTEN = "nan"


def missing(labels: Collection[Any], *, may_be_nan: bool = False) -> np.ndarray:
    """Return which labels are missing [n]: None, NaN, an empty text, or the text "nan".

    Args:
      labels: one for each sample or target, of any type.
      may_be_nan: the text "nan" is a label, as it is of ids, which may be words.
    """
    lost = ("",) if may_be_nan else ("", _WRITTEN)
    found = np.asarray(labels)
    if found.dtype.kind in "iub":
        return np.zeros(len(found), bool)
    if found.dtype.kind in "US":
        return np.isin(np.char.strip(found.astype(str)), lost)
    texts = [isinstance(x, str) and x.strip() in lost for x in labels]
    return np.asarray(pd.isna(np.asarray(labels, object)), bool) | np.array(texts, bool)


def refuse_missing(
    what: str,
    labels: Collection[Any],
    entry: str = "entry",
    *,
    may_be_nan: bool = False,
) -> None:
    """Refuse labels of which some are missing: no fold or mean can tell where these belong.

    Args:
      what: whose labels they are, for the message: "responses: run".
      labels: one for each entry.
      entry: what has a label: "sample", "column of Y".
      may_be_nan: see `missing`.

    Raises:
      InputError: with how many are missing, and where the first is.
    """
    lost = missing(labels, may_be_nan=may_be_nan)
    if lost.any():
        first = int(np.argmax(lost))
        raise InputError(
            f"{what} must name every {entry}, but {int(lost.sum())} of {len(lost)} are missing "
            f"(NaN, None or empty), the first at {first} (counted from 0): name them, or leave "
            "these out."
        )
