"""Intervals of Praat's TextGrids in all three of its text formats: long, short, chronological.

Praat reads free-standing numbers, quoted texts and flags such as <exists>, and skips every other
word. Read like that, the long and the short format are one, and the chronological is a second
order of the same. (The library praatio reads no chronological files, and none whose intervals
overlap, which some published ones do by rounding.)

Source: Praat manual, "TextGrid file formats".
"""

import codecs
import pathlib
import re
from collections.abc import Iterator
from typing import TypeVar

from jaxalign.errors import InputError

T = TypeVar("T", str, float)
Interval = tuple[float, float, str]  # start and end in seconds, label

_TOKEN = re.compile(
    r"""
    "(?P<text>(?:[^"]|"")*)"
    | ![^\n]*                                                        # a remark
    | (?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)
    """,
    re.VERBOSE,
)
_CHRONOLOGICAL = "Praat chronological TextGrid text file"
_INTERVALS, _POINTS = "IntervalTier", "TextTier"
_ROUNDING_S = 1e-6


def read(path: pathlib.Path, tier: str | int, *, may_overlap: bool = False) -> list[Interval]:
    """Read the intervals of a tier, pauses included, in the order of the file.

    Args:
      path: the TextGrid.
      tier: its name, or its place from 0.
      may_overlap: whether an interval may begin before the one before it ends.

    Raises:
      InputError: if it is no TextGrid, ends early, has no such tier, or its intervals are out of
        order or overlap.
    """
    which = f"a tier {tier!r}" if isinstance(tier, str) else f"at least {tier + 1} tiers"
    try:
        intervals = _chosen(_tiers(_tokens(path)), tier)
        _check_order(intervals, may_overlap)
    except ValueError as error:
        raise InputError(f"{path} must be a TextGrid with {which}: {error}.") from error
    return intervals


def names(path: pathlib.Path) -> list[str]:
    """Return the names of the tiers, in the order of the file.

    Raises:
      InputError: if it is no TextGrid, or ends early.
    """
    try:
        return [name for _, name, _ in _tiers(_tokens(path))]
    except ValueError as error:
        raise InputError(f"{path} must be a TextGrid: {error}.") from error


def _tokens(path: pathlib.Path) -> Iterator[str | float]:
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for match in _TOKEN.finditer(content.decode("utf-16" if is_utf16 else "utf-8-sig")):
        if match["text"] is not None:
            yield match["text"].replace('""', '"')
        elif match["number"] is not None:
            yield float(match["number"])


def _take(tokens: Iterator[str | float], kind: type[T]) -> T:
    token = next(tokens, None)
    if token is None:
        raise ValueError("it ends early")
    if not isinstance(token, kind):
        wanted = "a text" if kind is str else "a number"
        raise ValueError(f"{wanted} is expected where {token!r} stands")
    return token


def _tiers(tokens: Iterator[str | float]) -> list[tuple[str, str, list[Interval]]]:
    """Return class, name and intervals of each tier; those of points have none."""
    first = _take(tokens, str)
    is_chronological = first == _CHRONOLOGICAL
    if not is_chronological and (first, _take(tokens, str)) != ("ooTextFile", "TextGrid"):
        raise ValueError(f"it begins with {first!r}")
    for _ in ("start", "end"):
        _take(tokens, float)
    num_tiers = int(_take(tokens, float))
    found = []
    ends = []
    for _ in range(num_tiers):
        kind, name = _take(tokens, str), _take(tokens, str)
        if kind not in (_INTERVALS, _POINTS):
            raise ValueError(f"a tier must be {_INTERVALS} or {_POINTS}, found {kind!r}")
        _take(tokens, float)
        ends.append(_take(tokens, float))
        entries = []
        if not is_chronological:
            size = int(_take(tokens, float))
            entries = [_entry(tokens, kind) for _ in range(size)]
        found.append((kind, name, entries))
    if is_chronological:
        _distribute(tokens, found)
        # No number of entries is told; but the intervals of a tier fill it to its end.
        for (kind, _, entries), end in zip(found, ends, strict=True):
            if kind == _INTERVALS and (not entries or entries[-1][1] < end - _ROUNDING_S):
                raise ValueError("it ends early")
    return found


def _entry(tokens: Iterator[str | float], kind: str) -> Interval:
    start = _take(tokens, float)
    end = _take(tokens, float) if kind == _INTERVALS else start
    return start, end, _take(tokens, str)


def _distribute(
    tokens: Iterator[str | float], tiers: list[tuple[str, str, list[Interval]]]
) -> None:
    """Read entries in the order of time, each behind the number of its tier."""
    for number in tokens:
        if not isinstance(number, float) or not 1 <= number <= len(tiers):
            raise ValueError(f"the number of a tier is expected where {number!r} stands")
        kind, _, entries = tiers[int(number) - 1]
        entries.append(_entry(tokens, kind))


def _chosen(tiers: list[tuple[str, str, list[Interval]]], tier: str | int) -> list[Interval]:
    names = [name for _, name, _ in tiers]
    if isinstance(tier, str):
        if tier not in names:
            raise ValueError(f"it has {', '.join(map(repr, names)) or 'none'}")
        tier = names.index(tier)
    if tier >= len(tiers):
        raise ValueError(f"it has {len(tiers)}")
    kind, _, intervals = tiers[tier]
    if kind == _POINTS:
        raise ValueError("the tier holds points, not intervals")
    return intervals


def _check_order(intervals: list[Interval], may_overlap: bool) -> None:
    before = None
    for start, end, label in intervals:
        if end < start:
            raise ValueError(f"{label!r} must end after it begins, {start} s, found {end} s")
        if before is not None:
            limit = before[0] if may_overlap else before[1]
            if start < limit - _ROUNDING_S:
                raise ValueError(
                    f"intervals must not overlap, but {before[2]!r} ends at {before[1]} s and "
                    f"{label!r} begins at {start} s"
                )
        before = (start, end, label)
