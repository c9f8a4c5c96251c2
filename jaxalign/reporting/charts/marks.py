"""What several charts draw: bars with intervals, lines with bands, maps of numbers."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from jaxalign.reporting import charts
from jaxalign.reporting.charts import tip

# Vega warns on the console of a layer that has no mark; so each is drawn only where it has one.


def drawn(*layers: tuple[Any, pd.Series]) -> list[Any]:
    """Keep the layers whose column has a defined number."""
    return [layer for layer, values in layers if values.notna().any()]


def bars(rows: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color, tips: Sequence) -> Any:
    """Draw a bar for each row, with its interval, over the ceiling where there is one.

    Args:
      rows: with `ci_low` and `ci_high`, and maybe `ceiling`, `ceiling_low` and `ceiling_high`,
        which are the same in all rows of a panel.
      x: the numbers.
      y: the names.
      colour: of the bars.
      tips: lines of the tooltip; the interval comes last.
    """
    base = alt.Chart().encode(y=y)
    lines = [*tips, *charts.INTERVAL]
    below, above = [], []
    if "ceiling" in rows:
        lines.append(tip("ceiling", "noise ceiling"))
        band = (
            alt.Chart()
            .transform_filter("datum.ceiling_low != null")
            .mark_rect(opacity=0.13, color=charts.INK, aria=False)
            .encode(x=alt.X("mean(ceiling_low):Q", title=x["title"]), x2="mean(ceiling_high):Q")
        )
        middle = (
            alt.Chart()
            .transform_filter("datum.ceiling != null")
            .mark_rule(strokeDash=[2, 3], strokeWidth=1.5, aria=False)
            .encode(x="mean(ceiling):Q")
        )
        below, above = drawn((band, rows.ceiling_low)), drawn((middle, rows.ceiling))
    filled = base.mark_bar(cornerRadiusEnd=2).encode(x=x, color=colour, tooltip=lines)
    whiskers = (
        base.transform_filter("datum.ci_low != null")
        .mark_rule(strokeWidth=1.4, aria=False)
        .encode(x="ci_low:Q", x2="ci_high:Q")
    )
    return alt.layer(*below, filled, *drawn((whiskers, rows.ci_low)), *above)


def points(rows: pd.DataFrame, place: dict[str, Any], value: Any, tips: Sequence) -> Any:
    """Draw a point for each row with its interval; intervals run along the axis of the value.

    Args:
      rows: with `ci_low` and `ci_high`.
      place: encodings of all marks, colours among them.
      value: the encoding of the numbers, `alt.X` or `alt.Y`.
      tips: lines of the tooltip; the interval comes last.
    """
    axis = "x" if isinstance(value, alt.X) else "y"
    base = alt.Chart().encode(**place)
    ends = {axis: type(value)("ci_low:Q", title=value["title"]), f"{axis}2": "ci_high:Q"}
    whiskers = (
        base.transform_filter("datum.ci_low != null")
        .mark_rule(strokeWidth=1.6, opacity=0.6, aria=False)
        .encode(**ends)
    )
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(
        **{axis: value}, tooltip=[*tips, *charts.INTERVAL]
    )
    return alt.layer(*drawn((whiskers, rows.ci_low)), dots)


def lines(rows: pd.DataFrame, base: alt.Chart, tips: Sequence, *, fade: Any = None) -> Any:
    """Draw lines through points, with a band where there are intervals.

    Args:
      rows: with `ci_low` and `ci_high`.
      base: with x, y and colour.
      tips: lines of the tooltip.
      fade: opacity of lines and points, where a legend can pick some; or None.
    """
    band = (
        base.transform_filter("datum.ci_low != null")
        .mark_area(opacity=0.18, aria=False)
        .encode(y=alt.Y("ci_low:Q", title=base.encoding.y["title"]), y2="ci_high:Q")
    )
    line = base.mark_line(strokeWidth=2, aria=False)
    dots = base.mark_point(filled=True, size=36, opacity=1).encode(tooltip=list(tips))
    if fade is not None:
        line, dots = line.encode(opacity=fade), dots.encode(opacity=fade)
    return [*drawn((band, rows.ci_low)), line, dots]


def heat_map(
    x: alt.X, y: alt.Y, colour: alt.Color, text: alt.Text, tips: Sequence, *, middle: float
) -> Any:
    """Draw numbers as cells with their text.

    Args:
      x: columns.
      y: rows.
      colour: the numbers.
      text: of a cell.
      tips: lines of the tooltip.
      middle: number from which the ground is bright, and the text dark.
    """
    base = alt.Chart().encode(x=x, y=y)
    cells = base.mark_rect(stroke=charts.INK, strokeOpacity=0.15, cornerRadius=2).encode(
        color=colour, tooltip=list(tips)
    )
    field = colour["shorthand"].partition(":")[0]
    numbers = base.mark_text(fontSize=12, aria=False).encode(
        text=text,
        color=alt.condition(f"datum.{field} > {middle}", alt.value("#111"), alt.value("#fff")),
    )
    return alt.layer(cells, numbers)
