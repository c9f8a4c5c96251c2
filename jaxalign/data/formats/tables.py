"""Tables of text, read cell by cell as they are written, and refused with their file and column."""

import csv
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.errors import InputError

EMPTY = ("", "n/a")  # cells of numbers that are not known
_OTHERS = {";": "semicolons", "\t": "tabs"}  # what separates the cells of tables that are no CSV


def read(path: pathlib.Path, columns: Sequence[str], *, tabs: bool = False) -> pd.DataFrame:
    """Read a table with a header; every cell is text, and "NA" is a word like any other.

    A row with too many or too few cells is an error, never a shift.

    Args:
      path: the file, UTF-8.
      columns: those that it must have.
      tabs: cells are separated by tabs, and quotation marks are text; else by commas.

    Raises:
      InputError: if it is no such table, lacks a column, or has one twice.
    """
    kind = "table with tabs" if tabs else "CSV table"
    try:
        table = _rows(path, tabs)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must be a {kind}: {error}.") from error
    if repeated := first_repeated(list(table)):
        raise InputError(f"{path} must have a column once, found {repeated!r} twice.")
    for name in columns:
        if name not in table:
            hint = _separated(list(table), tabs)
            raise InputError(f"{path} must have column {name!r}, found {list(table)[:12]}{hint}.")
    return table


def header(path: pathlib.Path) -> list[str]:
    """Return the names of the columns of a CSV, of which nothing else is read.

    Raises:
      InputError: if it has none.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return next(row for row in csv.reader(file, strict=True) if row)
    except StopIteration:
        raise InputError(f"{path} must be a CSV table: it is empty.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must be a CSV table: {error}.") from error


def lines(path: pathlib.Path) -> list[str]:
    """Read the lines of a text.

    Raises:
      InputError: if it is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be text in UTF-8: {error}.") from error


def numbers(
    path: pathlib.Path, table: pd.DataFrame, name: str, *, empty_is_nan: bool = False
) -> Float[np.ndarray, " m"]:
    """Return a column of numbers.

    Args:
      path: where the table comes from.
      table: from `read`.
      name: the column.
      empty_is_nan: whether a cell may be empty, or "n/a", as BIDS writes it.

    Raises:
      InputError: if a cell is no number.
    """
    column = table[name].mask(table[name].isin(EMPTY), "nan") if empty_is_nan else table[name]
    try:
        return column.astype(np.float64).to_numpy()
    except ValueError as error:
        hint = "; decimals follow a point" if re.search(r"'-?\d+,\d+'", str(error)) else ""
        raise InputError(f"{path}: {name} must hold numbers: {error}{hint}.") from error


def first_repeated(items: Sequence):
    """Return the first item that comes a second time, or None."""
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def _separated(names: Sequence[str], tabs: bool) -> str:
    """Say that cells are separated by something else, where one column holds them all."""
    found = next((name for x, name in _OTHERS.items() if len(names) == 1 and x in names[0]), "")
    return f": cells must be separated by commas, found {found}" if found and not tabs else ""


def _rows(path: pathlib.Path, tabs: bool) -> pd.DataFrame:
    with open(path, encoding="utf-8-sig", newline="") as file:
        if tabs:
            found = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            found = csv.reader(file, strict=True)
        rows = [row for row in found if row]
    if not rows:
        raise ValueError("it is empty")
    header = rows.pop(0)
    for i, row in enumerate(rows):
        if len(row) != len(header):
            hint = "" if tabs else "; text that holds a comma is put in quotes"
            raise ValueError(
                f"row {i + 1} must have {len(header)} cells as the header, found {len(row)}{hint}"
            )
    return pd.DataFrame(rows, columns=header, dtype=str)
