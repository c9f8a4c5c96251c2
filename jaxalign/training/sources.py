"""Instruction data by name or path: where files lie, and what stands in for absent ones."""

import pathlib
from typing import NamedTuple

import numpy as np

from jaxalign.errors import InputError
from jaxalign.training import arms
from jaxalign.training.encoding import Counts, Encoded


class Published(NamedTuple):
    """Instruction data that everyone must fetch themselves.

    Attributes:
      num_rows: that were published.
      mean_tokens: of a row in Alpaca's template, prompt and response; a guess.
      where: to get it, and its licence.
    """

    num_rows: int
    mean_tokens: int
    where: str


# Files below the data root. Source: tatsu-lab/stanford_alpaca, README.md and DATA_LICENSE.
PUBLISHED = {
    "alpaca/alpaca_data.json": Published(
        52_002,
        120,
        "alpaca_data.json of github.com/tatsu-lab/stanford_alpaca, CC BY-NC 4.0",
    )
}


def locate(name: str, data_root: pathlib.Path | None) -> pathlib.Path:
    """Return the file of a name: a path, or one below the data root.

    Raises:
      InputError: if there is none, saying where it is to be put.
    """
    path = pathlib.Path(name)
    if path.is_file() or path.is_absolute():
        return path  # what is not there is refused when it is read
    below = None if data_root is None else data_root / name
    if below is not None and below.is_file():
        return below
    if name in PUBLISHED:
        root = "the data root (--data_root, JAXALIGN_DATA)" if data_root is None else data_root
        raise InputError(
            f"{name} must lie below {root}: put {PUBLISHED[name].where}, there, or fetch it with "
            "--download."
        )
    also = "" if below is None else f", nor at {below}"
    raise InputError(f"instruction data must lie at {path}: there is no such file{also}.")


def is_absent(name: str, data_root: pathlib.Path | None) -> bool:
    """Return whether published data are not here, and `stand_in` can be priced in their place.

    Args:
      name, data_root: as of `locate`.
    """
    if name not in PUBLISHED or pathlib.Path(name).is_file():
        return False
    return data_root is None or not (data_root / name).is_file()


def describe(name: str) -> str:
    """Say what is assumed of published data that are not here."""
    found = PUBLISHED[name]
    return (
        f"{name} is not here: {found.num_rows} rows as published, of {found.mean_tokens} tokens on "
        "average (a guess), half of them learned"
    )


def stand_in(name: str, arm_name: str, max_length: int) -> tuple[list[Encoded], Counts]:
    """Return rows of guessed lengths in the place of published data, for prices alone.

    Args:
      name: key of `PUBLISHED`.
      arm_name: key of `arms.ARMS`; without prompts rows are half as long.
      max_length: tokens of a row at most.

    Raises:
      InputError: if there is no such arm.
    """
    arm, known = arms.find(arm_name), PUBLISHED[name]
    # Lengths of texts are spread as the exponential of a normal distribution, here of deviation .6.
    drawn = np.random.default_rng(0).normal(size=known.num_rows)
    mean = known.mean_tokens / (2 if arm.prompt == "nothing" else 1)
    lengths = np.clip(mean * np.exp(0.6 * drawn - 0.18), 4, max_length).astype(int)
    empty, rows = np.zeros(0, np.int32), []
    for length in lengths:
        first = 1 if arm.learns_all or arm.prompt == "nothing" else length // 2
        rows.append(Encoded(np.zeros(length, np.int32), np.arange(length) >= first, empty))
    counts = Counts(
        rows=len(rows),
        tokens=int(lengths.sum()),
        targets=sum(int(x.learned.sum()) for x in rows),
    )
    return rows, counts
