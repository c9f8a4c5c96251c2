"""What all charts share: the Vega-Lite specification, alternative text, colours, SVG and PDF."""

import contextlib
import functools
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from jaxalign.io import files
from jaxalign.reporting.charts import labels, pdf_order

SCRIPTS = "~/.cache/jaxalign/scripts"  # where what pages are drawn with is kept

DATA = alt.NamedData("table")

# Of families, which no order is meant by: Okabe and Ito (2008), which is colour-blind safe, in the
# order of contrast with both a white and a dark ground, each with a shape of its own.
FAMILY_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C7AE6",
    "#8A8A8A",
)
FAMILY_SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
# The network and each control keep theirs everywhere; legible on white and on a dark ground.
COLOURS = {
    "network": "#0072B2",
    "layer 0": "#4C9AD6",
    "untrained": "#E69F00",
    "shifted": "#8E8E8E",
    "word_rate": "#D55E00",
    "word_length": "#CC79A7",
    "position": "#009E73",
    "static_embedding": "#56B4E9",
    "random_embedding": "#B5A300",
    "shuffled": "#A9A9A9",
    "length": "#A6761D",
    "sentence_length": "#B4436C",
    "sentence_position": "#3E9B5F",
    "frequency": "#7B6FD0",
    "word_vectors": "#44AA99",
    "oasm": "#AA4499",
    "pixels": "#C56A2D",
    "luminance": "#6C8EBF",
    "color": "#D9589B",
    "gabor": "#4F9D9D",
    "instruction_alone": "#9A7B4F",
    "answer_length": "#7F9F3F",
    "answer_words": "#5B6FA8",
}
# Networks in turn, where several have a colour each next to those of controls.
NETWORKS = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#44AA99")
# What scores are called on axes, by the column `metric`.
METRICS = {
    "pearson_r": "Pearson r",
    "abs_pearson_r": "|r|",
    "abs pearson r": "|r|",
    "normalised pearson r": "normalised r",
    "r2": "R2",
    "cka": "CKA",
}
OTHER = "#8A8A8A"  # a control that is not known by name
INK = "currentColor"  # of the page: charts follow its theme without being drawn again

_LABEL_LIMIT, _TITLE_LIMIT = 220.0, 260.0  # pixels
_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
_AXIS = {"domainOpacity": 0.4, "gridColor": INK, "gridOpacity": 0.1, "tickColor": INK}
_AXIS |= {"tickOpacity": 0.4, "domainColor": INK, "titleFontWeight": 500, "titlePadding": 8}
# What the page gives to every chart, and `svg` too.
CONFIG: dict[str, Any] = {
    "background": None,
    "font": _FONT,
    "view": {"stroke": None, "continuousHeight": 260},
    "axis": _TEXT | _AXIS | {"labelLimit": _LABEL_LIMIT},
    "legend": _TEXT
    | {"orient": "top", "symbolStrokeWidth": 2, "labelLimit": _LABEL_LIMIT, "titleLimit": 0}
    | {"offset": 10},
    "header": _TEXT | {"labelFontSize": 13, "labelFontWeight": 600, "labelLimit": 400},
    "title": {"color": INK, "subtitleColor": INK, "anchor": "start", "fontSize": 13},
    "text": {"color": INK},
    "rule": {"color": INK},
}
_PAPER = CONFIG | {"font": "Helvetica, Arial, Liberation Sans, sans-serif"}
_PAPER_WIDTH = 560
_WIDER = 0.18  # by how much a text of DejaVu Sans is wider than one of Arial


class Chart(NamedTuple):
    """A chart with its title and alternative text.

    `spec` is Vega-Lite whose named data set "table" holds the rows. Columns that begin with an
    underscore, and rows where `_drawn` is true, only serve the drawing and are not listed.
    """

    name: str  # of its files, and its anchor on the page
    title: str
    alt: str  # what is shown, in a sentence or two
    spec: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that are shown, without what only serves the drawing."""
        rows = [row for row in self.spec["datasets"]["table"] if not row.get("_drawn")]
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


class Panels(NamedTuple):
    """How the page divides panels into even rows; widths are in pixels.

    A chart that takes the width there is has no panels.
    """

    num: int = 1
    width: int = 0  # least width of a panel
    left: int = 0  # width for the labels of the first column
    each: int = 0  # width next to every panel


_ALONE = Panels()


def finish(
    name: str, title: str, text: str, chart: Any, table: pd.DataFrame, panels: Panels = _ALONE
) -> Chart:
    """Return a chart with its data.

    Args:
      name: of its files.
      title: its heading.
      text: its alternative text.
      chart: of altair, on `DATA`.
      table: the rows; undefined numbers become null.
      panels: how its panels are divided into rows.
    """
    spec = labels.tell_apart(chart.to_dict(), table, _LABEL_LIMIT)
    spec["description"] = text
    spec["datasets"] = {"table": records(table)}
    num, width, left, each = panels
    spec["usermeta"] = {"panels": num, "panel": width, "left": left, "each": each}
    return Chart(name, title, text, spec)


def facet(
    chart: Any, field: str, names: Sequence[str], *, title: str | None = None, columns: int = 3
) -> Any:
    """Lay a chart out in panels, one for each name; a name may have several lines."""
    # As an expression, because a line break in a heading is not one.
    header = alt.Header(labelExpr="split(datum.label, '\\n')")
    if title is not None:
        title = labels.shortened([title], _TITLE_LIMIT)[title]
    laid = chart.facet(
        facet=alt.Facet(f"{field}:N", title=title, sort=list(names), header=header),
        columns=min(len(names), columns),
        data=DATA,
    )
    # One axis for each column would stand in the last row under places without a panel, too.
    return laid.resolve_axis(x="independent")


def among_others(chart: Chart, what: str, *, lead: str = "") -> Chart:
    """Say what a chart is of, where there are others of its kind.

    Args:
      chart: from `finish`.
      what: such as a data set; "" if it stands alone.
      lead: a sentence that its alternative text begins with, or "".
    """
    text = " ".join(x for x in (lead, f"{what}." if what else "", chart.alt) if x)
    title = f"{chart.title}: {what}" if what else chart.title
    return chart._replace(title=title, alt=text, spec=dict(chart.spec) | {"description": text})


def height(num_rows: int | pd.Series, step: int) -> int:
    """Return the height of a chart of rows in pixels, that of its longest panel.

    Vega-Lite's own steps make it warn on the console where panels differ or follow a width.

    Args:
      num_rows: number of rows, or of those of each panel.
      step: height of a row.
    """
    return step * int(np.max(num_rows))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON holds them: plain values, null where a number is undefined."""
    columns = {
        str(name): [_plain(value) for value in column.tolist()] for name, column in table.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value if isinstance(value, bool | int) else str(value)


def svg(chart: Chart) -> bytes:
    """Draw a chart for paper, the same bytes for the same chart; text stays text."""
    spec = _widen(dict(chart.spec))
    drawn = vl_convert.vegalite_to_svg(spec, config=_PAPER)
    # Vega numbers clips and gradients from the start of the process on.
    numbers: dict[str, str] = {}
    number = lambda x: f"{x[1]}{x[2]}{numbers.setdefault(x[2] + x[3], str(len(numbers)))}"
    drawn = re.sub(r'(id="|url\(#)(clip|gradient_)(\d+)', number, drawn)
    return _with_margin(drawn).encode()


def _with_margin(drawn: str) -> str:
    """Leave room on both sides for fonts that are wider than Arial, where there is none."""
    texts = re.findall(r'<text text-anchor="(\w+)"[^>]*>([^<]*)', drawn)
    wider = lambda ends: max(
        (_WIDER * labels.width(x) for end, x in texts if end in ends), default=0
    )
    left, right = math.ceil(wider(("end", "middle"))), math.ceil(wider(("start", "middle")))
    size = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    if size is None:
        raise ValueError("the drawing has no size")
    width, across = (float(size[i]) + left + right for i in (1, 3))
    box = f'width="{width:g}" height="{size[2]}" viewBox="{-left} 0 {across:g} {size[4]}"'
    return drawn.replace(size[0], box, 1)


def pdf(drawn: bytes) -> bytes:
    """Make a PDF of a drawn chart, in vectors, the same bytes for the same drawing."""
    return pdf_order.in_order(vl_convert.svg_to_pdf(drawn.decode()))


def _widen(spec: Any) -> Any:
    """Replace the width of the page, which paper does not have, by a fixed one."""
    if isinstance(spec, list):
        return [_widen(x) for x in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        k: _PAPER_WIDTH if (k, v) == ("width", "container") else v if k == "datasets" else _widen(v)
        for k, v in spec.items()
    }


@functools.cache
def bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that fetches nothing.

    Bundling takes seconds, so that it is done once for each version on a machine.
    """
    path = pathlib.Path(SCRIPTS, f"vega-{vl_convert.__version__}.js").expanduser()
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    made = vl_convert.javascript_bundle()
    with contextlib.suppress(OSError):  # what cannot be kept is made again
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, made.encode())
    return made


def families(names: Iterable[str]) -> tuple[alt.Scale, alt.Scale]:
    """Return the scales of colours and of shapes of model families.

    Charts of the same families agree in them, whatever else they draw.
    """
    domain = sorted(set(names))
    colours = [FAMILY_COLOURS[i % len(FAMILY_COLOURS)] for i in range(len(domain))]
    shapes = [FAMILY_SHAPES[i % len(FAMILY_SHAPES)] for i in range(len(domain))]
    return alt.Scale(domain=domain, range=colours), alt.Scale(domain=domain, range=shapes)


def features(names: Sequence[str], network: str) -> alt.Scale:
    """Return the scale of colours of a network and its controls."""
    colours = [COLOURS["network"] if x == network else COLOURS.get(x, OTHER) for x in names]
    return alt.Scale(domain=list(names), range=colours)


def networks(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each of several networks."""
    return {name: NETWORKS[i % len(NETWORKS)] for i, name in enumerate(dict.fromkeys(names))}


def untrained(networks: Mapping[str, str]) -> dict[str, str]:
    """Return a colour for each network with random weights.

    Args:
      networks: colours of the trained ones; of several, each untrained one has its network's colour
        half way to grey, so that it can be told from the others.
    """
    if len(networks) == 1:
        return dict.fromkeys(networks, COLOURS["untrained"])
    return {name: _half_grey(colour) for name, colour in networks.items()}


def _half_grey(colour: str) -> str:
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{(x + 0xAA) // 2:02X}" for x in parts)


def metric(rows: pd.DataFrame) -> str:
    """Name what scores are, for axes and legends; "score" where rows are of several metrics.

    Args:
      rows: with the column `metric`.
    """
    names = list(dict.fromkeys(rows.metric))
    return METRICS.get(names[0], names[0].replace("_", " ")) if len(names) == 1 else "score"


def limits(*columns: pd.Series) -> tuple[float, float] | None:
    """Return the least and the largest defined number, with 0 between them; None without any.

    Charts that are compared have the same axes.
    """
    values = np.concatenate([np.asarray(x, float) for x in columns])
    values = values[np.isfinite(values)]
    return (min(0.0, values.min()), max(0.0, values.max())) if len(values) else None


def axis(ends: tuple[float, float] | None) -> alt.Scale:
    """Return the scale of an axis from `limits`."""
    return alt.Scale() if ends is None else alt.Scale(domain=list(map(float, ends)), nice=True)


def scale(ranges: Mapping[str, Any]) -> alt.Scale:
    """Return the scale of names that have a colour, or a dash, each."""
    return alt.Scale(domain=list(ranges), range=list(ranges.values()))


def line_legend(title: str | None = None, **options: Any) -> alt.Legend:
    """Return a legend whose symbols are opaque strokes, though bands are faint."""
    symbol = {"symbolOpacity": 1, "symbolFillColor": None, "symbolType": "stroke"}
    return alt.Legend(title=title, **symbol, **options)


def tip(field: str, title: str = "", digits: str = ".3f") -> alt.Tooltip:
    """Return a line of a tooltip: a number with so many digits, or text where digits are ""."""
    kind = {"type": "quantitative", "format": digits} if digits else {"type": "nominal"}
    return alt.Tooltip(field=field, title=title or field.replace("_", " "), **kind)


INTERVAL = (tip("ci_low", "interval from"), tip("ci_high", "interval to"))
