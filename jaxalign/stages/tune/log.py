"""The log of a training: a line for each step, with what was measured and how fast it was."""

import io
import math
import pathlib
import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.io import run_dir

COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "target_tokens",
    "seconds",
    "tokens_per_s",
    "share_of_peak",
)


class Line(NamedTuple):
    """One step, the first of which is 1; loss and gradient are those before its update."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    target_tokens: int


class Log:
    """Lines that are appended to a file as steps end."""

    def __init__(self, path: pathlib.Path, first: pd.DataFrame, peak: float):
        """Begin behind the steps that are kept.

        Args:
          path: of the file, which holds these lines and no others then.
          first: lines of an earlier run, see `read`.
          peak: operations that the devices reach in one second at most; NaN: it is not known.
        """
        text = first.to_csv(index=False, lineterminator="\n")
        run_dir.write_atomic(path, text.encode())
        self._file = open(path, "a", encoding="utf-8")
        self._peak, self._since = peak, time.monotonic()

    def start(self) -> None:
        """Take the time from here on: what compiles or is saved is no time of a step."""
        self._since = time.monotonic()

    def add(self, line: Line, flop: float) -> None:
        """Write the line of a step that has just ended.

        Args:
          line: what is known of it.
          flop: operations of it that count for the share of the peak.
        """
        now = time.monotonic()
        taken = max(now - self._since, 1e-9)
        self._since = now
        speed = (f"{taken:.4f}", f"{line.tokens / taken:.1f}", _share(flop / taken, self._peak))
        # The shortest digits that give the same float32.
        numbers = (str(np.float32(x)) for x in line[1:4])
        values = (line.step, *numbers, line.tokens, line.target_tokens, *speed)
        self._file.write(",".join(map(str, values)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _share(rate: float, peak: float) -> str:
    return "" if math.isnan(peak) else f"{rate / peak:.4g}"


def read(path: pathlib.Path, num: int) -> pd.DataFrame | None:
    """Return the lines of the first steps as they were written; None where they are not all there.

    Args:
      path: of the file.
      num: of steps.
    """
    if not num:
        return pd.DataFrame(columns=list(COLUMNS))
    if not path.is_file():
        return None
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    try:
        found = pd.read_csv(io.StringIO(whole), dtype=str, keep_default_na=False, nrows=num)
    except (ValueError, pd.errors.ParserError):
        return None
    same = list(found.columns) == list(COLUMNS)
    return found if same and found.step.tolist() == [str(i + 1) for i in range(num)] else None
