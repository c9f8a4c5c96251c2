"""Anyone's own data: a directory with `stimuli.csv`, and responses or behaviour or both.

`stimuli.csv` has the columns stimulus_id, text and passage; for words with times onset_s and
offset_s too; and optionally run (else the passage where there are times, and one session for all
where there are none). A word whose time is not known has empty cells, or n/a: it is read in the
context of those that follow, and is in no TR. Where passages have spaces between their parts is
said as `data/formats/joints.py` reads it, and so is the language.

`responses.npz` has one array per attribute of `schema.Responses`; with coordinates (in mm, a row
for each target) and their space, such as MNI152, scores can be drawn on a brain. In its place
`responses.parquet` or `responses.csv` has one row per value or one per sample. A sample is a
stimulus_id, or a time_s (start of the TR) with tr_s; units says what the values are measured in;
run is optional as above.

  long: stimulus_id | time_s, tr_s; [run]; subject, roi, target, value; units
  wide: stimulus_id | time_s, tr_s; [run]; units; and a column `subject/roi/target` per target

`behavior.csv` has one row per reading: stimulus_id, participant, reading_time_ms and
word_in_sentence (from 1). What was not read has no row. Where there are only means, the participant
is "mean".

Where `stimuli.csv` has a column image, or `stimuli.npz` lies in its place, stimuli are images: see
`data/images/listing.py`.

`stimuli.csv` may say more of words, each empty where it is not known: frequency_per_million or
zipf; surprisal_bits_NAME, under a model called NAME; and columns of other numbers, which
`behavior.baseline` may name.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxalign.data import word_columns
from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import joints, tables
from jaxalign.data.images import listing
from jaxalign.data.schema import Behavior, Responses, Stimuli, naming
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError, one_line

REQUIRED = ("stimulus_id", "text", "passage")
TIMES = ("onset_s", "offset_s")
# Other columns say something of words.
STRUCTURE = (*REQUIRED, *TIMES, "run", joints.COLUMN, joints.LANGUAGE, *joints.OFFSETS)
SESSION = "session"
STIMULI, BEHAVIOR = "stimuli.csv", "behavior.csv"
RESPONSES = NPZ, PARQUET, CSV = "responses.npz", "responses.parquet", "responses.csv"
_COLUMN = ("subject", "roi", "target")
_SAMPLE = ("stimulus_id", "time_s", "tr_s", "run", "units")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables(Adapter):
    """A directory with tables of stimuli, and of responses or reading times."""

    name: str = "of one's own"

    def files(self) -> list[pathlib.Path]:
        """Return the files that are there."""
        archive = (self.root / listing.ARCHIVE).is_file()
        if archive and (self.root / STIMULI).is_file():
            raise InputError(
                f"data set {self.root} must hold {STIMULI} or {listing.ARCHIVE}, found both."
            )
        if not archive and not (self.root / STIMULI).is_file():
            raise InputError(
                f"data set {self.root} must hold {STIMULI}: there is no such file{self._others()}."
            )
        names = (*RESPONSES, BEHAVIOR)
        found = [self.root / name for name in names if (self.root / name).is_file()]
        if not found:
            raise InputError(
                f"data set {self.root} must hold {', '.join(RESPONSES)} or {BEHAVIOR}: there is no "
                f"such file{self._others()}."
            )
        recorded = [path.name for path in found if path.name in RESPONSES]
        if len(recorded) > 1:
            raise InputError(
                f"data set {self.root} must hold one file of responses, found "
                f"{' and '.join(recorded)}."
            )
        passages = [x for x in (self.root / joints.PASSAGES,) if x.is_file()]
        return [self.root / (listing.ARCHIVE if archive else STIMULI), *passages, *found]

    def _others(self) -> str:
        """Say what the directory holds instead, for a file may have another name or format."""
        found = sorted(path.name for path in self.root.iterdir())
        return f"; it holds {', '.join(found[:6])}{', ...' * (len(found) > 6)}" if found else ""

    def stimuli(self) -> Stimuli:
        """Read the table of stimuli."""
        return read_stimuli(self.files()[0])

    def responses(self) -> Responses:
        """Read the responses, from the file that is there."""
        path = self._recorded()
        if path is None:
            raise InputError(
                f"data set {self.root} has no responses: it has {STIMULI} and {BEHAVIOR}, and "
                f"lacks {', '.join(RESPONSES)}."
            )
        if path.name == NPZ:
            return Responses.load(path)
        if path.name == PARQUET:
            table = _parquet(path, pq.read_table).to_pandas()
        else:
            table = _typed(path, tables.read(path, ("units",)))
        return _long(path, table) if "value" in table else _wide(path, table)

    def _recorded(self) -> pathlib.Path | None:
        """Return the file of responses."""
        return next((path for path in self.files() if path.name in RESPONSES), None)

    def behavior(self) -> Behavior:
        """Read the reading times; a participant has one for a word, or none."""
        path = self.root / BEHAVIOR
        if path not in self.files():
            raise InputError(f"data set {self.root} has no behavior: it lacks {BEHAVIOR}.")
        return read_behavior(path)

    def word_facts(self) -> WordFacts:
        """Read what the table of stimuli says of words; of images it says nothing."""
        path = self.files()[0]
        if listing.has_images(path):
            return super().word_facts()
        return word_columns.read(path, STRUCTURE)

    def has(self, kind: str) -> bool:
        """Whether there is a file of it."""
        files = {"responses": RESPONSES, "behavior": (BEHAVIOR,)}
        if kind not in files:
            return super().has(kind)
        return any((self.root / name).is_file() for name in files[kind])

    @property
    def has_frequencies(self) -> bool:
        """Whether the table of stimuli has a column of them."""
        path = self.files()[0]
        return not listing.has_images(path) and word_columns.has_frequencies(path)

    @property
    def is_timed(self) -> bool:
        """Whether responses have times; words may have some without it."""
        path = self._recorded()
        if path is None:
            return False
        if path.name == NPZ:
            return Responses.is_file_timed(path)
        if path.name == PARQUET:
            return "time_s" in _parquet(path, pq.read_schema).names
        return "time_s" in tables.header(path)

    @property
    def has_times(self) -> bool:
        """Whether the table of stimuli has times."""
        path = self.files()[0]
        return not listing.has_images(path) and TIMES[0] in tables.read(path, REQUIRED)

    @property
    def has_images(self) -> bool:
        """Whether the stimuli are images."""
        return listing.has_images(self.files()[0])


def read_behavior(path: pathlib.Path) -> Behavior:
    """Read a table of reading times.

    Raises:
      InputError: if a column is missing, a cell is no number, or a reading is there twice.
    """
    names = ("stimulus_id", "participant", "reading_time_ms", "word_in_sentence")
    table = tables.read(path, names)
    time = tables.numbers(path, table, "reading_time_ms")
    place = tables.numbers(path, table, "word_in_sentence")
    words, rows = _distinct(table.filter(["stimulus_id"]))
    people, columns = _distinct(table.filter(["participant"]))
    position = np.zeros(len(words))
    position[rows] = place
    if len(place) and (position[rows] != place).any() or (place % 1 != 0).any():
        raise InputError(
            f"{path}: word_in_sentence must be the same whole number for each row of a stimulus_id."
        )
    values = _filled(path, time, rows, columns, (len(words), len(people)))
    with naming(path):
        return Behavior(
            stimulus_id=words["stimulus_id"].tolist(),
            reading_time_ms=values,
            participant=people["participant"].tolist(),
            word_in_sentence=[int(x) for x in position],
            alignment="as given",
        )


def read_stimuli(path: pathlib.Path) -> Stimuli:
    """Read a table of stimuli.

    Raises:
      InputError: if a column is missing, the times are not numbers, an id is there twice,
        words overlap, it says of spaces what cannot be, or an image is missing.
    """
    if listing.has_images(path):
        content = listing.read(path)
        with naming(path):
            return Stimuli(unit="image", **content)
    table = tables.read(path, REQUIRED)
    if ("onset_s" in table) != ("offset_s" in table):
        raise InputError(f"{path} must have both onset_s and offset_s, or neither.")
    times = {
        name: tables.numbers(path, table, name, empty_is_nan=True)
        for name in TIMES
        if name in table
    }
    if "run" in table:
        run = table["run"].tolist()
    else:
        run = table["passage"].tolist() if times else [SESSION] * len(table)
    with naming(path):
        return Stimuli(
            stimulus_id=table["stimulus_id"].tolist(),
            text=table["text"].tolist(),
            passage=table["passage"].tolist(),
            run=run,
            unit="word" if times else "sentence",
            onset_s=times.get("onset_s", np.empty(0)),
            offset_s=times.get("offset_s", np.empty(0)),
            space_before=joints.spaces(path, table),
            language=joints.language(path, table),
        )


def _parquet(path: pathlib.Path, read: Callable[[pathlib.Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} must be a whole Parquet file: {one_line(error)}.") from error


def _typed(path: pathlib.Path, table: pd.DataFrame) -> pd.DataFrame:
    """Make numbers of the cells of a CSV that are to be numbers; what is not known is NaN."""
    is_number = lambda name: name in ("value", "time_s", "tr_s") or name.count("/") == 2
    found = {
        name: tables.numbers(path, table, name, empty_is_nan=True)
        for name in table
        if is_number(name)
    }
    labels = table.mask(table == "")  # else an empty cell would be a name
    return pd.DataFrame({name: found.get(name, labels[name]) for name in table})


def _long(path: pathlib.Path, table: pd.DataFrame) -> Responses:
    sample = _sample_columns(path, table, (*_COLUMN, "value"))
    _check_numbers(path, table, ["value"])
    samples, rows = _distinct(table.filter(sample))
    labels, columns = _distinct(table.filter(_COLUMN).map(str))
    values = _filled(
        path, table["value"].to_numpy(np.float64), rows, columns, (len(samples), len(labels))
    )
    if np.isnan(values).sum() > table["value"].isna().sum():
        row, column = np.argwhere(np.isnan(values))[0]
        raise InputError(
            f"{path} must have a value of each target for each sample, but "
            f"{'/'.join(labels.iloc[column])} has none for sample {row}."
        )
    return _responses(path, table, samples, labels, values)


def _wide(path: pathlib.Path, table: pd.DataFrame) -> Responses:
    names = [name for name in table if name not in _SAMPLE]
    sample = _sample_columns(path, table, ())
    parts = [str(name).split("/") for name in names]
    wrong = [name for name, x in zip(names, parts, strict=True) if len(x) != 3 or not all(x)]
    if wrong or not names:
        raise InputError(
            f"{path} must have a column 'value' beside {', '.join(_COLUMN)}, or columns that are "
            f"called subject/roi/target; found {wrong[:3] or list(table)}."
        )
    _check_numbers(path, table, names)
    labels = pd.DataFrame(parts, columns=list(_COLUMN))
    values = table.filter(names).to_numpy(np.float64)
    return _responses(path, table, table.filter(sample), labels, values)


def _responses(
    path: pathlib.Path,
    table: pd.DataFrame,
    samples: pd.DataFrame,
    labels: pd.DataFrame,
    values: np.ndarray,
) -> Responses:
    timed = "time_s" in samples
    if timed:
        _check_numbers(path, table, ["tr_s"])
    run = [str(x) for x in samples["run"]] if "run" in samples else [SESSION] * len(samples)
    with naming(path):
        return Responses(
            values=values,
            run=run,
            units=_constant(path, table, "units"),
            subject=labels["subject"].tolist(),
            roi=labels["roi"].tolist(),
            target=labels["target"].tolist(),
            stimulus_id=() if timed else [str(x) for x in samples["stimulus_id"]],
            time_s=samples["time_s"].to_numpy(np.float64) if timed else np.empty(0),
            tr_s=float(_constant(path, table, "tr_s")) if timed else 0.0,
        )


def _sample_columns(path: pathlib.Path, table: pd.DataFrame, others: tuple) -> list[str]:
    """Check which columns there are; return those that tell samples apart."""
    if ("stimulus_id" in table) == ("time_s" in table):
        raise InputError(f"{path} must have column 'stimulus_id' or 'time_s', and not both.")
    timed = "time_s" in table
    for name in ("units", *(("tr_s",) if timed else ()), *others):
        if name not in table:
            raise InputError(f"{path} must have column {name!r}, found {list(table)[:12]}.")
    for name in ("stimulus_id", "run", *others[: len(_COLUMN)]):
        missing = table[name].isna().to_numpy() if name in table else np.zeros(0, bool)
        if missing.any():
            row = int(np.argmax(missing))
            raise InputError(f"{path}: {name} must not be missing, but is in row {row + 1}.")
    if timed:
        _check_numbers(path, table, ["time_s"])
    return ["time_s" if timed else "stimulus_id", *(["run"] if "run" in table else [])]


def _check_numbers(path: pathlib.Path, table: pd.DataFrame, names: list[str]) -> None:
    for name in names:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path}: {name} must hold numbers, found {table[name].dtype}.")


def _constant(path: pathlib.Path, table: pd.DataFrame, name: str) -> str:
    found = [str(x) for x in table[name].unique()]
    if len(found) != 1 or table[name].isna().to_numpy().any():
        raise InputError(f"{path}: {name} must be the same in all rows, found {found[:3]}.")
    return found[0]


def _distinct(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the distinct rows in the order in which they first come, and the place of each row."""
    group = table.groupby(list(table), sort=False, dropna=False).ngroup().to_numpy()
    return table.drop_duplicates(ignore_index=True), group


def _filled(
    path: pathlib.Path,
    value: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """Lay values out as a table; NaN where there is none.

    Raises:
      InputError: if a cell has two.
    """
    cell = rows * shape[1] + columns
    if len(np.unique(cell)) != len(cell):
        twice = int(np.flatnonzero(pd.Series(cell).duplicated())[0])
        raise InputError(f"{path}: row {twice + 1} repeats a sample and a column of another row.")
    values = np.full(shape, np.nan)
    values[rows, columns] = value
    return values
