"""Charts of shares: what two sets of features explain alone and together."""

import math

import altair as alt
import numpy as np
import pandas as pd
from scipy import optimize

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, Panels, tip

_PARTS = ("unique_first", "shared", "unique_second")
_PART_COLOURS = ("#0072B2", "#009E73", "#E69F00")
_CORNERS = 60  # of a circle
_INVISIBLE = 0.05  # of the union: a negative part up to that is drawn as none


def partition_bars(table: pd.DataFrame, *, name: str, title: str, unit: str) -> Chart | None:
    """Draw what two sets of features explain, alone and together, as one bar for each row.

    Args:
      table: `label` (of the bar), `panel`, `first`, `second` (names of both sets), `unique_first`,
        `shared`, `unique_second`. Parts may be negative, and then lie to the left of zero.
      name: of the chart's files.
      title: its heading.
      unit: of the parts, as "R2 out of sample".

    Returns:
      The chart; None where nothing is defined.
    """
    table = table.dropna(subset=list(_PARTS))
    if table.empty:
        return None
    keys = ["panel", "label", "first", "second"]
    data = table.melt(keys, list(_PARTS), "part", "value")
    data["_order"] = data.part.map(_PARTS.index)
    data["part"] = np.select(
        [data.part == "shared", data.part == "unique_first"],
        ["shared", "only " + data["first"]],
        "only " + data["second"],
    )
    # Two sets that are named alike in all rows give three colours; others are named by their place.
    if len(set(data.part)) > len(_PARTS):
        data["part"] = data._order.map(["only the first", "shared", "only the second"].__getitem__)
    parts = list(dict.fromkeys(data.sort_values("_order", kind="stable").part))
    panels, labels = list(dict.fromkeys(data.panel)), list(dict.fromkeys(data.label))
    chart = (
        alt.Chart()
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X("sum(value):Q", title=unit, axis=alt.Axis(tickCount=4)),
            y=alt.Y("label:N", sort=labels, title=None),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=parts, range=list(_PART_COLOURS)),
                legend=alt.Legend(title="explained by"),
            ),
            order=alt.Order("_order:Q"),
            tooltip=[
                tip("panel", "region", ""),
                tip("label", "of", ""),
                tip("part", "explained by", ""),
                tip("sum(value)", unit),
            ],
        )
        .properties(height=alt.Step(22))
    )
    chart = charts.facet(chart, "panel", panels)
    text = (
        f"Stacked bars, a panel for each of {', '.join(map(str, panels))}: {unit} that only the "
        "first set of features explains, that both do, and that only the second does. "
        + _largest(table)
    )
    layout = Panels(len(panels), 170, left=150, each=20)
    return charts.finish(name, title, text, chart, data, layout)


def _largest(table: pd.DataFrame) -> str:
    row = table.loc[table.shared.idxmax()]
    return f"The largest shared part, {row.shared:.3f}, is that of {row.label} in {row.panel}."


def venn(table: pd.DataFrame, *, name: str, title: str, unit: str) -> Chart | None:
    """Draw two circles for each row, whose areas and overlap are what is explained.

    Args:
      table: `panel`, `first`, `second`, `unique_first`, `shared`, `unique_second`. No area is
        negative: a row with a negative part has no circles, unless the part is below a twentieth of
        the union, too little to be seen. Numbers are written as they are, with or
        without an area.
      name: of the chart's files.
      title: its heading.
      unit: of the parts.

    Returns:
      The chart; None where nothing is defined.
    """
    table = table.dropna(subset=list(_PARTS)).reset_index(drop=True)
    if table.empty:
        return None
    union = table[list(_PARTS)].sum(axis=1)
    drawn = (table[list(_PARTS)].min(axis=1) >= -_INVISIBLE * union) & (union > 0)
    total = table[list(_PARTS)].clip(lower=0).sum(axis=1)[drawn].max()
    found = []
    for i, row in table.iterrows():
        shape = _circles(row, total) if drawn[i] else []
        found += [{"panel": row.panel, "_drawn": True} | x for x in shape]
        spots = _spots(row, total) if drawn[i] else (-0.75, 0, 0.75)
        texts = (f"only {row['first']}", "shared", f"only {row['second']}")
        for part, spot, text in zip(_PARTS, spots, texts, strict=True):
            found.append(
                {"panel": row.panel, "part": text, "value": row[part], "_x": spot, "_y": 0.0}
                | {"_drawn": False, "_text": f"{row[part]:.3f}"}
            )
    data = pd.DataFrame(found)
    panels = list(dict.fromkeys(data.panel))
    scale = alt.Scale(domain=[-1.15, 1.15], nice=False)
    base = alt.Chart().encode(
        x=alt.X("_x:Q", scale=scale, axis=None), y=alt.Y("_y:Q", scale=scale, axis=None)
    )
    sides = alt.Scale(domain=["first", "second"], range=[_PART_COLOURS[0], _PART_COLOURS[2]])
    circles = (
        base.transform_filter("datum._drawn")
        .mark_line(
            filled=True,
            fillOpacity=0.3,
            strokeWidth=2,
            interpolate="linear-closed",
            aria=False,
        )
        .encode(
            fill=alt.Fill("_side:N", scale=sides, legend=None),
            stroke=alt.Stroke("_side:N", scale=sides, legend=None),
            order="_corner:Q",
        )
    )
    numbers = (
        base.transform_filter("!datum._drawn")
        .mark_text(fontSize=12, fontWeight=600)
        .encode(text="_text:N", tooltip=[tip("part", digits=""), tip("value", unit)])
    )
    chart = alt.layer(circles, numbers).properties(width=190, height=190)
    chart = charts.facet(chart, "panel", panels, columns=4)
    negative = int((~drawn).sum())
    alike = table["first"].nunique() == table["second"].nunique() == 1
    names = ("the first", "the second")
    if alike:
        names = (table["first"].iloc[0], table["second"].iloc[0])
    text = (
        f"Two overlapping circles for each of {_named(panels)}: areas are {unit} of "
        f"{names[0]} (left) and {names[1]} (right), the overlap is what both explain."
        + (f" {negative} have a large negative part, and no circles." if negative else "")
    )
    layout = Panels(len(panels), 190, each=20)
    return charts.finish(name, title, text, chart, data, layout)


def _named(panels: list) -> str:
    return ", ".join(map(str, panels)) if len(panels) <= 6 else f"{len(panels)} panels"


def _circles(row: pd.Series, total: float) -> list[dict]:
    """Return the corners of both circles; all areas are in units of the largest union."""
    areas, (left, right) = _layout(row, total)
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    found = []
    for side, area, centre in zip(("first", "second"), areas, (left, right), strict=True):
        radius = math.sqrt(area / np.pi)
        for i, angle in enumerate(angles):
            x, y = centre + radius * np.cos(angle), radius * np.sin(angle)
            found.append({"_side": side, "_corner": i, "_x": 1.6 * x, "_y": 1.6 * y})
    return found


def _spots(row: pd.Series, total: float) -> tuple[float, float, float]:
    """Return where the numbers stand: in the middle of the three parts, or next to the circles."""
    areas, (left, right) = _layout(row, total)
    r = np.sqrt(areas / np.pi)
    edges = (left - r[0], right - r[1], left + r[0], right + r[1])
    spots = [(edges[0] + edges[1]) / 2, (edges[1] + edges[2]) / 2, (edges[2] + edges[3]) / 2]
    gap = 0.16  # half a number
    if edges[1] - edges[0] < gap:
        spots[0] = min(edges[:2]) - gap
    if edges[3] - edges[2] < gap:
        spots[2] = max(edges[2:]) + gap
    return tuple(1.6 * float(x) for x in spots)


def _layout(row: pd.Series, total: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the areas of both circles and their centres."""
    first, shared, second = (max(row[part], 0.0) / total for part in _PARTS)
    areas = np.array([first + shared, second + shared])
    return areas, _centres(areas, shared)


def overlap(d: float, first: float, second: float) -> float:
    """Return the area that two circles share.

    Args:
      d: distance of their centres.
      first: radius of one.
      second: radius of the other.

    Source: the area of a lens, as a sum of two segments of circles.
    """
    if d >= first + second:
        return 0.0
    if d <= abs(first - second):
        return math.pi * min(first, second) ** 2
    area = 0.0
    for r, s in ((first, second), (second, first)):
        x = (d**2 + r**2 - s**2) / (2 * d)
        area += r**2 * math.acos(x / r) - x * math.sqrt(max(r**2 - x**2, 0.0))
    return area


def _centres(areas: np.ndarray, shared: float) -> tuple[float, float]:
    """Return where the centres lie, so that the circles overlap by what is shared."""
    first, second = np.sqrt(areas / np.pi)
    low, high = abs(first - second), first + second
    gap = lambda d: overlap(d, first, second) - shared
    if gap(low) <= 0:
        d = low
    elif shared <= 0:
        d = high
    else:
        d = optimize.brentq(gap, low, high)
    # The union lies in the middle.
    left = -(d + second - first) / 2
    return left, left + d
