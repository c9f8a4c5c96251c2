"""Names on axes and in legends: cut where there is no room, and never so that two look alike."""

import json
import unicodedata
from collections.abc import Iterable
from typing import Any

import pandas as pd

_GUIDES = {"x": "axis", "y": "axis"}
_GUIDES |= dict.fromkeys(("color", "fill", "stroke", "shape", "strokeDash"), "legend")
_WIDTHS = {True: 12.0, False: 6.6}  # pixels of a character at 12 px: a wide one, or another
_SPARE = 1.3  # what a name takes where its characters are wider than these


def tell_apart(spec: Any, table: pd.DataFrame, limit: float) -> Any:
    """Cut names of axes and legends that are too long in their middle.

    Vega cuts at the end, and two models of one family would have the same label.

    Args:
      spec: Vega-Lite, or a part of it.
      table: the rows that are drawn.
      limit: width that axes and legends have which set none, in pixels.
    """
    if isinstance(spec, list):
        return [tell_apart(part, table, limit) for part in spec]
    if not isinstance(spec, dict):
        return spec
    found = {name: tell_apart(part, table, limit) for name, part in spec.items()}
    for channel, guide in _GUIDES.items():
        coded = found.get("encoding", {}).get(channel)
        if isinstance(coded, dict) and coded.get("type") == "nominal":
            found["encoding"][channel] = _cut(coded, guide, table, limit)
    return found


def _cut(coded: dict, guide: str, table: pd.DataFrame, limit: float) -> dict:
    options = coded.get(guide, {})
    if options is None or "labelExpr" in options or coded.get("field") not in table:
        return coded
    room = float(options.get("labelLimit", limit))
    short = shortened(table[coded["field"]].dropna().astype(str), room)
    changed = {name: label for name, label in short.items() if name != label}
    if not changed:
        return coded
    names, cut = (json.dumps(list(x)) for x in (changed, changed.values()))
    told = f"{cut}[indexof({names}, datum.label)] || datum.label"
    return coded | {guide: options | {"labelExpr": told, "labelLimit": _SPARE * room}}


def shortened(names: Iterable[str], room: float) -> dict[str, str]:
    """Return a label for each name, no two of them alike.

    Args:
      names: whole.
      room: width of a label in pixels.
    """
    every = list(dict.fromkeys(names))
    found = {name: name for name in every if width(name) <= room}
    taken = set(found)
    for name in every:
        if name not in found:
            label, number = _middle(name, room), 1
            while label in taken:
                number += 1
                label = f"{_middle(name, room - width(f' {number}'))} {number}"
            found[name] = label
            taken.add(label)
    return {name: found[name] for name in every}


def _middle(name: str, room: float) -> str:
    """Leave out the middle of a name, so that it fits."""
    kept = len(name)
    while kept > 2 and width(name[: (kept + 1) // 2] + "…" + name[-(kept // 2) :]) > room:
        kept -= 1
    return name[: (kept + 1) // 2] + "…" + name[-(kept // 2) :]


def width(text: str) -> float:
    """Return how wide a text is at 12 px, in pixels, as far as its characters tell."""
    return sum((_WIDTHS[unicodedata.east_asian_width(x) in "WF"] for x in text), start=0.0)
