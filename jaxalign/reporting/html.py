"""Tables, charts and figures -> one self-contained HTML page."""

import base64
import functools
import importlib.resources
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import pandas as pd

from jaxalign.reporting import charts as charts_lib
from jaxalign.reporting.charts import Chart

TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
STYLE = pathlib.Path(__file__).with_name("page.css")
SCRIPT = pathlib.Path(__file__).with_name("page.js")
_LEAST_ROWS = 8  # of a table that is worth sorting and filtering
LEAST_P = 0.001  # that is written with its digits
_LONG = 40  # characters of a cell whose text may go over several lines


class Figure(NamedTuple):
    """A drawing that another library has made."""

    name: str  # of its files
    alt: str  # what is shown, in a sentence or two
    svg: bytes


class Section(NamedTuple):
    """A heading with text, charts, figures and tables under it."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[tuple[str, pd.DataFrame]] = ()  # caption, table
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()  # how to read what is there; folded away


def page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: str,
    tiles: Sequence[tuple[str, str]] = (),
) -> str:
    """Render the page; scripts and figures are embedded, and nothing is fetched.

    A page without charts has no script.

    Args:
      title: heading of the page.
      lead: what was found, in a sentence or two.
      sections: in order.
      provenance: preformatted text at the end.
      tiles: numbers that stand out at the top, each with what it counts.
    """
    has_charts = any(section.charts for section in sections)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    environment.filters["p_value"] = p_value
    environment.tests["p"] = is_p
    environment.filters["order"] = lambda x: "" if x != x else repr(x)
    environment.filters["data_uri"] = lambda svg: (
        "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    )
    environment.filters["whole"] = whole
    environment.tests["number"] = _is_number
    environment.tests["numeric"] = lambda column: all(_is_number(x) for x in column)
    environment.tests["long"] = lambda x: isinstance(x, str) and len(x) > _LONG
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        lead=lead,
        sections=sections,
        provenance=provenance,
        tiles=tiles,
        charts=has_charts,
        config=charts_lib.CONFIG,
        least_rows=_LEAST_ROWS,
        style=STYLE.read_text(encoding="utf-8"),
        script=SCRIPT.read_text(encoding="utf-8") if has_charts else "",
        vega=charts_lib.bundle() if has_charts else "",
        datatables=_datatables() if has_charts else "",
    )


@functools.cache
def _datatables() -> str:
    """Return DataTables as an ES module."""
    # Of all packages that bundle it, itables has the one file that needs no other.
    bundle = importlib.resources.files("itables") / "html" / "dt_bundle.js"
    return bundle.read_text(encoding="utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of whole numbers into integers; undefined numbers stay as they are.

    Counts that may be undefined are floats in a frame, and need no decimals. Probabilities that
    happen to be all 1 stay numbers.
    """
    found = table.copy()
    for name in table.columns[table.dtypes.map(lambda x: x.kind == "f")]:
        if is_p(name):
            continue
        known = table[name].dropna()
        if len(known) and (known % 1 == 0).all():
            found[name] = integers(table[name])
    return found


def integers(column: pd.Series) -> pd.Series:
    """Turn numbers into integers; undefined numbers stay as they are."""
    return pd.Series([x if x != x else int(x) for x in column], column.index, dtype=object)


def is_p(name: object) -> bool:
    """Whether a column holds p-values: "p", "p_adjusted", "group_p" and the like."""
    return "p" in str(name).split("_")


def p_value(value: object) -> str:
    """Return a p-value as journals print it: three decimals, and "< .001" below .001."""
    if isinstance(value, float) and value < LEAST_P:
        return "< .001"
    return cell(value)


def cell(value: object) -> str:
    """Return a table cell: three decimals, and a dash for what is undefined.

    Integers have no decimals, and floats from 10,000 on neither; those that three decimals would
    show as zero have an exponent.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 1e4 else str(value)
    if isinstance(value, float):
        if value != value:
            return "–"
        if abs(value) >= 1e4:
            return f"{value:,.0f}"
        return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return str(value)
