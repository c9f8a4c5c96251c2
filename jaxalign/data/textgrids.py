"""Intervals of Praat's TextGrids, long or short."""

import pathlib
import re

from praatio import textgrid
from praatio.utilities.errors import PraatioException

from jaxalign.errors import InputError

Interval = tuple[float, float, str]  # start and end in seconds, label

# How many entries a tier says that it has.
_LONG = re.compile(r"(?:intervals|points): size = (\d+)")
_SHORT = re.compile(r'"(?:IntervalTier|TextTier)"\s+"(?:[^"]|"")*"\s+\S+\s+\S+\s+(\d+)')


def read(path: pathlib.Path, tier: str | int) -> list[Interval]:
    """Read the intervals of a tier, pauses included.

    Args:
      path: the TextGrid.
      tier: its name, or its place from 0.

    Raises:
      InputError: if it is no TextGrid, ends early, has no such tier, or intervals overlap.
    """
    try:
        return _intervals(path, tier)
    except (PraatioException, KeyError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        which = f"a tier {tier!r}" if isinstance(tier, str) else f"at least {tier + 1} tiers"
        raise InputError(f"{path} must be a TextGrid with {which}: {reason}") from error


def _intervals(path: pathlib.Path, tier: str | int) -> list[Interval]:
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")
    name = tier if isinstance(tier, str) else grid.tierNames[tier]
    intervals = [tuple(x) for x in grid.getTier(name).entries]
    if intervals and len(intervals[0]) != 3:
        raise ValueError("the tier holds points, not intervals.")
    # The parser takes a file that ends between two intervals for a whole one.
    found = sum(len(grid.getTier(name).entries) for name in grid.tierNames)
    text = _text(path)
    declared = [int(size) for size in _LONG.findall(text) or _SHORT.findall(text)]
    if found != sum(declared):
        raise ValueError(f"it says that it has {sum(declared)} intervals, and has {found}.")
    return intervals


def _text(path: pathlib.Path) -> str:
    """Read as the parser does: UTF-16 where a byte order mark says so, else UTF-8."""
    try:
        return path.read_text(encoding="utf-16")
    except UnicodeError:
        return path.read_text(encoding="utf-8")
