"""What a table of stimuli says of its words beside their text: frequency, surprisal, and more."""

import pathlib
from collections.abc import Collection

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.data.formats import tables
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError

ID = "stimulus_id"
SURPRISAL = "surprisal_bits_"  # and behind it whose surprisal it is
PER_MILLION, ZIPF = "frequency_per_million", "zipf"  # of which a table has one


def read(path: pathlib.Path, others: Collection[str]) -> WordFacts:
    """Read the columns of a table that say something of words; an empty cell is unknown.

    Columns that hold numbers and are none of these are facts under their own names.

    Args:
      path: a CSV with a column `stimulus_id`.
      others: columns that mean something else.

    Raises:
      InputError: if a column of surprisal does not name its unit, there are two of frequency, or a
        value is no number, or none that it may be.
    """
    table = tables.read(path, (ID,))
    surprisal, columns = {}, {}
    for name in table:
        if name in (ID, PER_MILLION, ZIPF, *others):
            continue
        if name.startswith("surprisal"):
            if not name.startswith(SURPRISAL) or name == SURPRISAL:
                raise InputError(
                    f"{path}: column {name!r} must say its unit and whose surprisal it is, as "
                    f"{SURPRISAL}NAME does."
                )
            surprisal[name.removeprefix(SURPRISAL)] = _numbers(path, table, name, least=0.0)
        elif _is_numeric(table[name].to_numpy()):
            columns[name] = _numbers(path, table, name)
    return WordFacts(
        stimulus_id=table[ID].tolist(),
        log_frequency=_log_frequency(path, table),
        surprisal_bits=surprisal,
        columns=columns,
    )


def has_frequencies(path: pathlib.Path) -> bool:
    """Say whether a table has a column of frequencies."""
    return bool({PER_MILLION, ZIPF} & set(tables.read(path, (ID,))))


def _log_frequency(path: pathlib.Path, table: pd.DataFrame) -> Float[np.ndarray, " f"]:
    if PER_MILLION in table and ZIPF in table:
        raise InputError(
            f"{path} must have one column of frequencies, found {PER_MILLION}, {ZIPF}."
        )
    if ZIPF in table:  # log10 of occurrences in 10^9 words
        return np.log(10) * _numbers(path, table, ZIPF)
    if PER_MILLION in table:
        found = _numbers(path, table, PER_MILLION, least=0.0)
        if (found == 0).any():
            raise InputError(
                f"{path}: {PER_MILLION} must be positive, and empty where it is not known, found 0 "
                f"for {table[ID].iloc[int(np.argmax(found == 0))]!r} ({int((found == 0).sum())} "
                "such)."
            )
        return np.log(1000 * found)  # in 10^9 words, as zipf
    return np.empty(0)


def _is_numeric(cells: np.ndarray) -> bool:
    """Whether every cell is a number or empty, and one is a number; else it is a remark."""
    given = cells[~np.isin(cells, tables.EMPTY)]
    found = np.asarray(pd.to_numeric(pd.Series(given), errors="coerce"), np.float64)
    return len(found) > 0 and not np.isnan(found).any()


def _numbers(
    path: pathlib.Path, table: pd.DataFrame, name: str, *, least: float = -np.inf
) -> Float[np.ndarray, " m"]:
    found = tables.numbers(path, table, name, empty_is_nan=True)
    bad = np.isinf(found) | (found < least)
    if bad.any():
        first = int(np.argmax(bad))
        limit = "" if np.isinf(least) else f" and >= {least:g}"
        raise InputError(
            f"{path}: {name} must be finite{limit}, and empty where it is not known, found "
            f"{found[first]} for {table[ID].iloc[first]!r} ({int(bad.sum())} such)."
        )
    return found
