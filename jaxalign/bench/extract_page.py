"""Rows of the extraction bench -> tables, remarks, what the run prints, and the page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from jaxalign.bench import solver_page
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

OURS = "jaxalign"
TORCH = "torch"

_FORWARDS = """\
Hidden states of all layers for one batch of tokens. Times are median, least and most, in seconds;
solvers take turns in one process. ratio: torch's median over the solver's. difference: largest, of
any entry, relative to the largest entry."""
_STORIES = """\
Vectors of all parts of stories (mean over a part's tokens, all layers), from text to arrays on the
host. torch: a loop that encodes the text up to each part anew, one at a time, cut on the left where
it does not fit. scale: where it is not 1, only some parts were timed, and the times are multiplied
by it, in proportion to tokens. tokens: of all passes. ratio: torch's time over the solver's.
difference: as above, on the parts that torch was timed on; a dash where contexts differ."""
_DEPTHS = "Compilation of the forward pass of all layers; ratio: over the shortest."
_LOADINGS = "Peak memory of the host while weights load, beyond what the process had before; MB."
_ANSWERS = """\
Answers of a model of images and text with random weights to instructions about a batch of images:
to one, and to all, in turns. ratio: least time over the least of one instruction."""
_TIMES = {"median": "median_s", "min": "min_s", "max": "max_s"}


def heading(machine: Mapping[str, Any]) -> str:
    """Name the machine and the versions in one line; see `solver_page.heading`."""
    return solver_page.heading(machine).replace("Nested ridge", "Extraction", 1)


_KINDS = (
    ("forwards", _FORWARDS, ("network", "length", "num_tokens", "solver", "tokens_per_s")),
    (
        "stories",
        _STORIES,
        ("network", "unit", "num_parts", "solver", "context", "num_tokens", "scale"),
    ),
    ("depths", _DEPTHS, ("network", "num_layers")),
    ("loadings", _LOADINGS, ("network", "weights_mb", "peak_mb")),
    ("answers", _ANSWERS, ("network", "sizes", "num_images", "instructions", "num_new")),
)


def page(machine: Mapping[str, Any], rows: pd.DataFrame, provenance: str) -> Page:
    """Lay what was timed on a machine out as a page: a table and bars for each kind of case.

    Args:
      machine: see `heading`.
      rows: of all cases.
      provenance: preformatted text.
    """
    text, sections = [heading(machine)], []
    for kind, legend, columns in _KINDS:
        part = rows[rows.kind == kind]
        if len(part):
            table, said = _table(part, columns, kind != "loadings"), _bars(part, kind)
            text += [f"{legend}\n\n{table.to_string(index=False)}", *said]
            caption = legend.replace("\n", " ")
            sections.append(Section(kind.capitalize(), text=said, tables=[(caption, table)]))
    warnings = disturbed(rows)
    first = [Section("What to know first", text=warnings)] if warnings else []
    return Page(
        title="Times of extraction",
        lead=text[0],
        sections=[*first, *sections],
        tables={"cases": rows},
        summary="\n\n".join([*text, *warnings]) + "\n",
        provenance=provenance,
        unprinted=("cases",),
    )


def _table(rows: pd.DataFrame, columns: tuple[str, ...], timed: bool) -> pd.DataFrame:
    table = {"case": rows.name}
    for name in columns:
        values = rows[name]
        table[name] = values.map(_number) if values.dtype.kind in "fi" else values
    if timed:
        table["runs"] = rows.num_repeats.map(_number)
        table |= {name: rows[column].map(_number) for name, column in _TIMES.items()}
    table["ratio"] = rows.ratio.map("{:.2f}".format)
    if "difference" in rows and rows.difference.notna().any():
        table["difference"] = rows.difference.map(lambda x: "–" if pd.isna(x) else f"{x:.1e}")
    return pd.DataFrame(table)


def _number(value: int | float) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def _bars(rows: pd.DataFrame, kind: str) -> list[str]:
    """Say of each case whether it reaches what it should."""
    at_most = kind in ("depths", "loadings", "answers")
    if at_most:
        rows = rows.loc[rows.groupby("name").ratio.idxmax()]
    lines = []
    for row in rows[rows.bar.notna()].rename(columns={"name": "case"}).itertuples():
        met = row.ratio <= row.bar if at_most else row.ratio >= row.bar
        what = f"{row.case} {row.context}" if kind == "stories" else row.case
        lines.append(
            f"{what}: {row.ratio:.2f}, to be {'at most' if at_most else 'at least'} {row.bar:g}: "
            f"{'met' if met else 'NOT MET'}"
        )
    return ["\n".join(lines)] if lines else []


def disturbed(rows: pd.DataFrame) -> list[str]:
    """Warn of times during which other processes were busy."""
    if "others_cores" not in rows:
        return []
    # The kernel counts in hundredths of a second: below a tenth in all, nothing can be said.
    taken = rows.others_cores * rows.median_s / rows.scale * rows.num_repeats
    bad = rows[(rows.others_cores > solver_page.BUSY_CORES) & (taken > 0.1)]
    return [
        f"DISTURBED: other processes used {row.others_cores:.2f} cores while {row.solver} was "
        f"timed on {row.case}: these times and ratios are not valid."
        for row in bad.rename(columns={"name": "case"}).itertuples()
    ]
