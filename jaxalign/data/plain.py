"""Anyone's own data: a directory with `stimuli.csv` and `responses.npz`.

`stimuli.csv` has the columns stimulus_id, text and passage; for words with times onset_s and
offset_s too; and optionally run (else the passage where there are times, and one session for all
where there are none). `responses.npz` has one array per attribute of `schema.Responses`.
"""

import csv
import pathlib

import numpy as np
import pandas as pd

from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError

REQUIRED = ("stimulus_id", "text", "passage")
TIMES = ("onset_s", "offset_s")
SESSION = "session"


def files(root: pathlib.Path) -> list[pathlib.Path]:
    """Return both files.

    Args:
      root: the directory.

    Raises:
      InputError: if one is missing.
    """
    paths = [root / "stimuli.csv", root / "responses.npz"]
    for path in paths:
        if not path.is_file():
            raise InputError(f"data set {root} must hold {path.name}: there is no such file.")
    return paths


def stimuli(root: pathlib.Path) -> Stimuli:
    """Read the table of stimuli.

    Raises:
      InputError: if a column is missing, or the times are not numbers.
    """
    path = files(root)[0]
    try:
        table = _table(path)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} must be a CSV table: {error}.") from error
    for name in REQUIRED:
        if name not in table:
            raise InputError(f"{path} must have column {name!r}, found {list(table)}.")
    if ("onset_s" in table) != ("offset_s" in table):
        raise InputError(f"{path} must have both onset_s and offset_s, or neither.")
    times = {}
    for name in TIMES:
        if name in table:
            try:
                times[name] = table[name].astype(np.float64).to_numpy()
            except ValueError as error:
                raise InputError(f"{path}: {name} must hold numbers: {error}.") from error
    if "run" in table:
        run = table["run"].tolist()
    else:
        run = table["passage"].tolist() if times else [SESSION] * len(table)
    return Stimuli(
        stimulus_id=table["stimulus_id"].tolist(),
        text=table["text"].tolist(),
        passage=table["passage"].tolist(),
        run=run,
        unit="word" if times else "sentence",
        **times,
    )


def _table(path: pathlib.Path) -> pd.DataFrame:
    """Read a CSV of text; a row with too many or too few cells is an error, never a shift."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    if not rows:
        raise ValueError("it is empty")
    header = rows.pop(0)
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"row {i + 1} must have {len(header)} cells as the header, found {len(row)}; "
                "text that holds a comma is put in quotes"
            )
    return pd.DataFrame(rows, columns=header, dtype=str)


def responses(root: pathlib.Path) -> Responses:
    """Read the responses."""
    return Responses.load(files(root)[1])
