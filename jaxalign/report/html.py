"""Tables and figures -> one self-contained HTML page."""

import base64
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import pandas as pd

TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")


class Section(NamedTuple):
    """A heading with text, tables and figures under it."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[tuple[str, pd.DataFrame]] = ()  # caption, table
    figures: Sequence[tuple[str, bytes]] = ()  # alternative text, SVG


def page(title: str, lead: str, sections: Sequence[Section], provenance: str) -> str:
    """Render the page; figures are embedded, and nothing is fetched.

    Args:
      title: heading of the page.
      lead: what was found, in a sentence or two.
      sections: in order.
      provenance: preformatted text at the end.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    environment.filters["data_uri"] = lambda svg: (
        "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    )
    environment.tests["number"] = lambda x: isinstance(x, int | float)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, lead=lead, sections=sections, provenance=provenance)


def cell(value: object) -> str:
    """Return a table cell: three decimals, and a dash for what is undefined."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}"
    return str(value)
