"""Natural Stories: how often its words occur in Google Books, in the years from 1990.

A word with a hyphen is counted as its parts in a row.

Source: Futrell et al. (2021), Language Resources and Evaluation 55, 63-77. Licence CC BY-NC-SA 4.0.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.data.formats import tables
from jaxalign.errors import InputError

FILE = "naturalstories/freqs/freqs-1.tsv"


def log_frequency(root: pathlib.Path, stimulus_id: Sequence[str]) -> Float[np.ndarray, " m"]:
    """Natural logarithm of one more than the count of each word: some names do not occur.

    A line has code, order, token, count and the count of the context; a code is story.zone.part,
    where the part `word` is the token without punctuation at its ends. Ten tokens that end with a
    full stop of their own (Mr.) have only the part `whole`.

    Args:
      root: data root.
      stimulus_id: words, by their code `story.zone`.

    Returns:
      Nothing, not even an entry for each word, where the file is not there.

    Raises:
      InputError: if the file is malformed, or lacks a word.
    """
    path = root / FILE
    if not path.is_file():
        return np.empty(0)
    counts = {}
    for line in tables.lines(path):
        cells = line.split("\t")
        if len(cells) != 5:
            raise InputError(f"{path}: lines must have 5 cells, found {len(cells)} in {line!r}.")
        code, _, part = cells[0].rpartition(".")
        if part == "word" or (part == "whole" and code not in counts):
            try:
                counts[code] = int(cells[3])
            except ValueError as error:
                raise InputError(
                    f"{path}: the count of {cells[0]} must be a whole number, found {cells[3]!r}."
                ) from error
    if missing := [name for name in stimulus_id if name not in counts]:
        raise InputError(f"{path} must have a count for each word, found none for {missing[0]}.")
    return np.log([1 + counts[name] for name in stimulus_id])
