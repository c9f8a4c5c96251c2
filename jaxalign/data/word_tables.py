"""Numbers for words out of a file, frequencies or vectors, and their means over parts."""

import csv
import math
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError

# Columns of a frequency table, whatever their case. "FREQcount" and "Zipf-value" are what
# SUBTLEX-US and SUBTLEX-UK call them; where a file has both, Zipf is taken.
WORD = ("word",)
COUNT = ("count", "freqcount")
ZIPF = ("zipf", "zipf-value")


class Table(NamedTuple):
    """Numbers for some words.

    A word is looked up by the first of its spellings (`spellings`) that is listed.
    """

    values: dict[str, Float[np.ndarray, " c"]]
    spellings: Callable[[str], Iterable[str]]
    # Of a word that is not listed; None: such a word has no part in a mean.
    unlisted: Float[np.ndarray, " c"] | None
    width: int


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that hold a table: vectors in an `.npy` have their words in another one.

    Args:
      path: as of `read_frequencies` or `read_vectors`.
    """
    return [path, *([path.with_suffix(".vocab")] if path.suffix == ".npy" else [])]


def words(text: str) -> list[str]:
    """Return the words of a part, without what is neither letter nor digit at either end.

    What has no letter or digit (a dash between spaces) is no word.

    Args:
      text: a part.
    """
    return [stripped for word in text.split() if (stripped := _strip(word))]


def mean(table: Table, stimuli: Stimuli) -> Float[np.ndarray, "m c"]:
    """Average over the words of each part; 0 for a part in which no word has a value.

    Args:
      table: from `read_frequencies` or `read_vectors`.
      stimuli: parts.
    """
    found = np.zeros((len(stimuli), table.width))
    for i, text in enumerate(stimuli.text):
        own = [_find(table, word) for word in words(text)]
        own = [table.unlisted if x is None else x for x in own]
        own = [x for x in own if x is not None]
        if own:
            found[i] = np.mean(own, axis=0)
    return found


def unknown(table: Table, stimuli: Stimuli) -> tuple[list[str], int]:
    """Return the words that are not listed, each as often as it occurs, and the number of all.

    Args:
      table: from `read_frequencies` or `read_vectors`.
      stimuli: parts.
    """
    every = [word for text in stimuli.text for word in words(text)]
    return [word for word in every if _find(table, word) is None], len(every)


def read_frequencies(path: pathlib.Path, stimuli: Stimuli) -> Table:
    """Read how frequent words are, on the Zipf scale: log10 of occurrences in 10^9 words.

    From counts, zipf = log10((count + 1) / (N + V)) + 9 with N the sum of all counts and V the
    number of different words, so that a word that is not listed has a value too. A table of Zipf
    values gives a word that it does not list its least value. Upper and lower case are one word,
    whose occurrences are added up.

    Args:
      path: a table with a header, in columns divided by tabs or commas: `word`, and `count` or
        `zipf`.
      stimuli: what is looked up.

    Raises:
      InputError: if there is no such file, a column is missing, a value is no number or out of
        range, a word is there twice, or no word of the stimuli is listed.

    Source: van Heuven, Mandera, Keuleers and Brysbaert (2014), SUBTLEX-UK, Quarterly Journal of
    Experimental Psychology 67, for the scale and for adding one.
    """
    rows, header = _rows(path)
    word_at, value_at = _column(path, header, WORD), _column(path, header, (*ZIPF, *COUNT))
    zipf = header[value_at].lower() in ZIPF
    seen: set[str] = set()
    per_word: dict[str, float] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} must have {len(header)} cells in each row, found {len(row)} in line "
                f"{line}."
            )
        word, value = row[word_at], _number(row[value_at])
        if not math.isfinite(value) or (value < 0 and not zipf):
            what = "finite numbers" if zipf else "numbers that are not negative"
            raise InputError(
                f"{path}: {header[value_at]} must hold {what}, found {row[value_at]!r} in line "
                f"{line} ({word!r})."
            )
        if word in seen:
            raise InputError(
                f"{path} must list each word once, found {word!r} again in line {line}."
            )
        seen.add(word)
        per_word[word.lower()] = per_word.get(word.lower(), 0.0) + (10**value if zipf else value)
    if not per_word:
        raise InputError(f"{path} must list at least one word, found none.")
    if zipf:
        scale = lambda x: math.log10(x)
        unlisted = min(map(scale, per_word.values()))
    else:
        size = sum(per_word.values()) + len(per_word)
        scale = lambda x: math.log10((x + 1) / size) + 9
        unlisted = scale(0.0)
    wanted = {word.lower() for text in stimuli.text for word in words(text)}
    values = {w: np.array([scale(x)]) for w, x in per_word.items() if w in wanted}
    table = Table(values, lambda word: (word.lower(),), np.array([unlisted]), 1)
    return _checked(table, path)


def read_vectors(path: pathlib.Path, stimuli: Stimuli) -> Table:
    """Read the vectors of the words that occur; a word is sought as it is, then in lower case.

    Args:
      path: text as word2vec (a first line with the numbers of words and dimensions) or GloVe
        (none) writes it, a word and its numbers in each line, divided by spaces; or `NAME.npy`,
        with the words of its rows in the lines of `NAME.vocab`.
      stimuli: what is looked up.

    Raises:
      InputError: if a file is missing, truncated or has lines of another dimension, a vector is
        not finite, a word that occurs is there twice, or no word of the stimuli is listed.
    """
    spellings = lambda word: (word, word.lower())
    wanted = {x for text in stimuli.text for word in words(text) for x in spellings(word)}
    values: dict[str, np.ndarray] = {}
    read = _npy if path.suffix == ".npy" else _text
    for line, word, vector in read(path, wanted):
        if word in values:
            raise InputError(
                f"{path} must list each word once, found {word!r} again in line {line}."
            )
        if not np.isfinite(vector).all():
            raise InputError(f"{path}: vectors must be finite, but that of {word!r} is not.")
        values[word] = vector
    width = len(next(iter(values.values()))) if values else 0
    return _checked(Table(values, spellings, None, width), path)


def _checked(table: Table, path: pathlib.Path) -> Table:
    if not table.values:
        raise InputError(f"{path} must list words of the stimuli, but lists none of them.")
    return table


def _find(table, word):
    return next((table.values[x] for x in table.spellings(word) if x in table.values), None)


def _strip(word):
    kept = [i for i, c in enumerate(word) if c.isalnum()]
    return word[kept[0] : kept[-1] + 1] if kept else ""


def _rows(path: pathlib.Path) -> tuple[Iterator[tuple[int, list[str]]], list[str]]:
    """Return the numbered rows of a table, without empty ones, and its header."""
    try:
        # Not splitlines: a word may hold what Unicode calls the end of a line.
        lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a table in UTF-8: {error}.") from error
    if not lines[0].strip():
        raise InputError(f"{path} must begin with a header, found an empty line.")
    # Among tabs, a quotation mark is a word like any other.
    if "\t" in lines[0]:
        rows = [line.split("\t") for line in lines]
    else:
        rows = list(csv.reader(lines))
    numbered = ((i, row) for i, row in enumerate(rows[1:], 2) if any(row))
    return numbered, [name.strip() for name in rows[0]]


def _column(path: pathlib.Path, header: list[str], names: Collection[str]) -> int:
    lower = [name.lower() for name in header]
    for name in names:
        if lower.count(name) > 1:
            raise InputError(f"{path} must have one column {name!r}, found {lower.count(name)}.")
        if name in lower:
            return lower.index(name)
    raise InputError(f"{path} must have a column {' or '.join(names)}, found {header}.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _text(path: pathlib.Path, wanted: set[str]) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield line, word and vector of each wanted word; all lines are checked for their length."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            first = file.readline().rstrip()
            header = [int(x) for x in first.split(" ") if x.isdecimal()]
            has_header = len(header) == 2 and first.count(" ") == 1
            width = header[1] if has_header else first.count(" ")
            if width < 1:
                raise InputError(f"{path} must begin with a word and its numbers, found {first!r}.")
            if not has_header:
                file.seek(0)
            number = 0
            for number, content in enumerate(file, 1):
                line = content.rstrip()
                at = number + has_header
                if line.count(" ") != width and not _is_phrase(line, width):
                    raise InputError(
                        f"{path} must hold a word and {width} numbers in each line, found "
                        f"{line.count(' ')} after the first in line {at}: cut short, or of "
                        "another dimension."
                    )
                word = line[: line.find(" ")]
                if word in wanted and line.count(" ") == width:
                    yield at, word, _vector(path, at, line.split(" ")[1:])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be word vectors as text in UTF-8: {error}.") from error
    if has_header and number != header[0]:
        raise InputError(f"{path} must hold {header[0]} words, as it says, found {number}.")


def _is_phrase(line: str, width: int) -> bool:
    """Whether the numbers come after a word that holds spaces, of which GloVe's files have some."""
    extra = line.split(" ")[1:-width]
    return bool(extra) and all(math.isnan(_number(x)) for x in extra)


def _vector(path: pathlib.Path, line: int, numbers: list[str]) -> np.ndarray:
    try:
        return np.array(numbers, np.float64)
    except ValueError as error:
        what = f"{path} must hold numbers after the word"
        raise InputError(f"{what}: line {line}, {error}.") from error


def _npy(path: pathlib.Path, wanted: set[str]) -> Iterator[tuple[int, str, np.ndarray]]:
    listed = files(path)[1]
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} must be an .npy array of numbers: {error}.") from error
    if values.ndim != 2 or values.dtype.kind != "f":
        raise InputError(
            f"{path} must hold real numbers, a row for each word, found {values.dtype} of shape "
            f"{values.shape}."
        )
    try:
        vocabulary = listed.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listed} must list the words of {path.name}: {error}.") from error
    if vocabulary[-1] == "":
        vocabulary.pop()
    if len(vocabulary) != len(values):
        raise InputError(
            f"{listed} must hold a word for each row of {path.name} ({len(values)}), found "
            f"{len(vocabulary)}."
        )
    for i, word in enumerate(vocabulary):
        if word.rstrip("\r") in wanted:
            yield i + 1, word.rstrip("\r"), np.asarray(values[i], np.float64)
