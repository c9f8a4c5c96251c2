"""Rows of a public table of scores: what finished runs found, and what people send as CSV."""

import io
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.results import finished, target_tables

# Scores can be compared where all of these are the same.
COMPARABLE = ("dataset", "protocol", "folds_hash")
NUMBERS = ("raw", "raw_low", "raw_high", "ceiling", "ceiling_low", "ceiling_high", "score")
NUMBERS += ("unclipped",)
_GIVEN = (*COMPARABLE, "model", "submitted_by", "jaxalign")  # what no row may lack
COLUMNS = (*COMPARABLE, "model", "control_of", "instruction", *NUMBERS, "num_nan", "layers")
COLUMNS += ("submitted_by", "jaxalign", "commit", "fingerprint")
# A model is sent once by a person for the same data, protocol and folds.
KEY = [*COMPARABLE, "model", "control_of", "instruction", "submitted_by"]
_BOUNDS = tuple(
    pair
    for x in ("raw", "ceiling")
    for pair in ((f"{x}_low", x), (x, f"{x}_high"), (f"{x}_low", f"{x}_high"))
)


def of_run(workdir: Place, submitted_by: str) -> pd.DataFrame:
    """Return a row for each network and control that a run has scored under a protocol.

    Args:
      workdir: of the run; with a report these are the scores that it shows.
      submitted_by: who sends them.

    Raises:
      InputError: if there are none, or a file has changed since it was made.
    """
    found = []
    for folder, kind in target_tables.folders(workdir).items():
        known = run_dir.marker(folder).get("alignment") if kind == "scores" else None
        if not known:
            continue
        path = folder / finished.ROWS
        run_dir.check_whole(path)
        row = rows_lib.read(path).iloc[0]
        found.append(
            {x: known[x] for x in ("protocol", "folds_hash", "model", "control_of", "num_nan")}
            | {x: known[x] for x in NUMBERS}
            | {
                "dataset": row.dataset,
                "instruction": row.instruction,
                "layers": " ".join(map(str, known["layers"])),
                "submitted_by": submitted_by,
                "jaxalign": json.loads(row.versions)["jaxalign"],
                "commit": row.git_commit,
                "fingerprint": folder.name,
            }
        )
    if not found:
        raise InputError(
            f"workdir {workdir} must hold finished scores under a protocol "
            "(--config.encode.protocol): found none."
        )
    return pd.DataFrame(found, columns=list(COLUMNS))


def read(path: pathlib.Path) -> pd.DataFrame:
    """Read a file that somebody sends, and check every row of it.

    Raises:
      InputError: if it cannot be read, lacks a column or has one too many, a number is none or
        infinite, an interval does not hold its value, or a row comes twice. An empty number is
        undefined.
    """
    try:
        table = pd.read_csv(
            io.StringIO(path.read_text(encoding="utf-8")), dtype=str, keep_default_na=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a CSV file in UTF-8: {error}.") from error
    for name, kind in ((COLUMNS, "lacks"), (table.columns, "must not have")):
        other = table.columns if name is COLUMNS else COLUMNS
        if wrong := [x for x in name if x not in other]:
            raise InputError(f"{path} {kind} column {wrong[0]!r}; it has {', '.join(COLUMNS)}.")
    if table.empty:
        raise InputError(f"{path} must hold at least one row, found none.")
    columns = {x: pd.Series(table[x]) for x in COLUMNS}
    columns |= {x: _numbers(columns[x], f"{path}: {x}") for x in (*NUMBERS, "num_nan")}
    found = pd.DataFrame(columns)
    for i, row in enumerate(found.to_dict("records")):
        if reason := _fault(row):
            raise InputError(f"{path}, row {i + 1}: {reason}.")
    return gather([(str(path), found)])


def _numbers(column: pd.Series, where: str) -> pd.Series:
    found = pd.Series(pd.to_numeric(column.replace("", "nan"), errors="coerce"), dtype=float)
    wrong = (found.isna() & ~column.str.lower().isin(["", "nan"])) | np.isinf(found)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InputError(
            f"{where} must hold numbers, or nothing where undefined, got {column.iloc[i]!r} in "
            f"row {i + 1}."
        )
    return found


def _fault(row):
    """Say what is wrong with a row; "" if nothing is."""
    for name in _GIVEN:
        if not row[name].strip():
            return f"{name} must not be empty"
    if not re.fullmatch(r"[0-9a-f]{8,64}", row["folds_hash"]):
        return f"folds_hash must be the hash of folds that a run writes, got {row['folds_hash']!r}"
    for low, high in _BOUNDS:
        if row[low] > row[high]:
            return f"{low} must not be above {high}, got {row[low]:g} and {row[high]:g}"
    if not row["num_nan"] >= 0 or row["num_nan"] % 1:
        return f"num_nan must count scores that are undefined, got {row['num_nan']:g}"
    return ""


def gather(parts: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Put rows from several places together, the best of those that can be compared first.

    Args:
      parts: where rows come from, and the rows.

    Raises:
      InputError: if a row comes twice.
    """
    table = pd.concat([part.assign(_of=name) for name, part in parts], ignore_index=True)
    again = table.duplicated(KEY)
    if again.any():
        row = table[again].iloc[0]
        first = table[(table[KEY] == row[KEY]).all(axis=1)].iloc[0]
        places = f"{first['_of']} and {row['_of']}" if first["_of"] != row["_of"] else row["_of"]
        raise InputError(
            f"{row.model} on {row.dataset} under {row.protocol} by {row.submitted_by} must come "
            f"once, got two rows in {places}."
        )
    order = [*COMPARABLE, "raw", "model", "control_of", "instruction", "submitted_by"]
    ascending = [x != "raw" for x in order]
    found = table.sort_values(order, ascending=ascending, na_position="last", kind="stable")
    return found.drop(columns="_of").reset_index(drop=True)


def find(places: Sequence[str], submitted_by: str) -> pd.DataFrame:
    """Read what places hold: work directories of runs, CSV files, folders of CSV files.

    Args:
      places: paths; work directories may be in buckets.
      submitted_by: who sends what runs hold.

    Raises:
      InputError: if one is nothing of these; see also `of_run`, `read` and `gather`.
    """
    parts = []
    for given in places:
        path = pathlib.Path(given)
        files = [path] if path.is_file() else sorted(path.glob("*.csv")) if path.is_dir() else []
        if (place.at(given) / "encode").is_dir():
            parts.append((given, of_run(place.at(given), submitted_by)))
        elif files:
            parts += [(str(file), read(file)) for file in files]
        else:
            raise InputError(
                f"{given} must be the work directory of a run, a CSV file or a folder of such "
                "files: found nothing of these."
            )
    return gather(parts)


def write(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Write rows as CSV, the same rows always as the same bytes; nothing where undefined."""
    whole = table.assign(num_nan=table.num_nan.astype(int))
    run_dir.write_atomic(place.at(path), whole.to_csv(index=False, lineterminator="\n").encode())
