"""How a table of stimuli says where its passages have spaces, and in which language they are."""

import pathlib

import numpy as np
import pandas as pd

from jaxalign.data.formats import tables
from jaxalign.errors import InputError

COLUMN, LANGUAGE = "space_before", "language"
OFFSETS = ("start_char", "end_char")
PASSAGES = "passages.csv"
_YES, _NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))


def spaces(path: pathlib.Path, table: pd.DataFrame) -> list[bool]:
    """Read whether there is white space before each part.

    Said in one of three ways: a column `space_before` (0 or 1); the columns `start_char` and
    `end_char`, offsets of each part in its passage; or the file `passages.csv` next to the table,
    with the columns passage and text, in which the parts are found one after the other.

    Args:
      path: of the table.
      table: with text and passage.

    Returns:
      True for the first part of each passage; nothing where nothing is said.

    Raises:
      InputError: if it is said in two ways, a cell is none of these, or the parts are not in the
        text of their passage in their order.
    """
    beside = path.with_name(PASSAGES)
    said = [COLUMN] if COLUMN in table else []
    said += [name for name in OFFSETS[:1] if any(x in table for x in OFFSETS)]
    said += [PASSAGES] if beside.is_file() else []
    if len(said) > 1:
        raise InputError(f"{path}: spaces must be said in one way, found {' and '.join(said)}.")
    if not said:
        return []
    read = {COLUMN: _column, OFFSETS[0]: _offsets, PASSAGES: _passages}[said[0]]
    found = np.array(read(path, table), bool)
    found[_firsts(table)] = True
    return found.tolist()


def language(path: pathlib.Path, table: pd.DataFrame) -> str:
    """Read the language of the text, from a column that has the same in every row; "": not said.

    Raises:
      InputError: if there are several.
    """
    found = list(dict.fromkeys(table[LANGUAGE])) if LANGUAGE in table else [""]
    if len(found) > 1:
        raise InputError(f"{path}: {LANGUAGE} must be the same in all rows, found {found[:3]}.")
    return found[0]


def _firsts(table: pd.DataFrame) -> np.ndarray:
    passage = table["passage"].to_numpy()
    return np.r_[True, passage[1:] != passage[:-1]]


def _column(path: pathlib.Path, table: pd.DataFrame) -> list[bool]:
    cells = [x.strip().lower() for x in table[COLUMN]]
    if wrong := [x for x in cells if x not in _YES | _NO]:
        raise InputError(f"{path}: {COLUMN} must be 0 or 1, found {wrong[0]!r}.")
    return [x in _YES for x in cells]


def _offsets(path: pathlib.Path, table: pd.DataFrame) -> np.ndarray:
    for name in OFFSETS:
        if name not in table:
            raise InputError(f"{path} must have both {' and '.join(OFFSETS)}, or neither.")
    start, stop = (tables.numbers(path, table, name) for name in OFFSETS)
    gap = np.r_[1.0, start[1:] - stop[:-1]]
    wrong = ~(start < stop) | (~(gap >= 0) & ~_firsts(table))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{path}: {' and '.join(OFFSETS)} must advance within a passage, but in row {at + 1} "
            f"are {start[at]:g} and {stop[at]:g}."
        )
    return gap > 0


def _passages(path: pathlib.Path, table: pd.DataFrame) -> list[bool]:
    beside = path.with_name(PASSAGES)
    read = tables.read(beside, ("passage", "text"))
    if repeated := tables.first_repeated(read["passage"].tolist()):
        raise InputError(f"{beside}: passage must be unique, found {repeated!r} twice.")
    texts = dict(zip(read["passage"], read["text"], strict=True))
    found, at = [], 0
    rows = zip(table["text"], table["passage"], _firsts(table), strict=True)
    for i, (part, passage, is_first) in enumerate(rows):
        if passage not in texts:
            raise InputError(f"{beside} must hold every passage: {passage!r} is missing.")
        begin = 0 if is_first else at
        place = texts[passage].find(part.strip(), begin)
        if place < 0 or (not is_first and texts[passage][begin:place].strip()):
            raise InputError(
                f"{beside}: passage {passage!r} must hold the parts of {path.name} one after the "
                f"other, with white space alone between them: row {i + 1}, {part!r}, does not "
                f"follow at character {begin}."
            )
        found.append(place > begin)
        at = place + len(part.strip())
    return found
