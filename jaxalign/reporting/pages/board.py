"""Rows of many runs and people -> one static page that sorts and filters."""

import altair as alt
import pandas as pd

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, marks, tip
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page
from jaxalign.results.board_rows import COLUMNS, COMPARABLE

TITLE = "Board of scores"
_SHOWN = ("model", "control_of", "instruction", "raw", "raw_low", "raw_high", "ceiling")
_SHOWN += ("of_ceiling", "score", "layers", "num_nan", "submitted_by", "jaxalign", "commit")
_CAPTION = (
    "raw: the score before any division, with a 95 % interval; of_ceiling: raw over the ceiling, "
    "not clipped, so that it may lie above 1; score: what the protocol reports. Undefined is "
    "empty. Of eight rows or more a heading sorts, the field above filters."
)
_HOW = (
    "Scores can be compared where data set, protocol and folds (their hash) are the same; each "
    "such group is a table of its own.",
    "Rows of others are taken as they were sent: whoever has the data can run the protocol again "
    "and compare hash and score.",
    "Ceilings that several rows give for the same group are theirs: they differ where they were "
    "estimated from other subjects or draws.",
)


def page(table: pd.DataFrame) -> Page:
    """Lay rows out.

    Args:
      table: from `board_rows.find`.
    """
    sections, places = [], {}
    for key, rows in table.groupby(list(COMPARABLE), sort=True):
        dataset, protocol, folds = (str(x) for x in key)
        places.setdefault((dataset, protocol), []).append((folds, rows))
    for (dataset, protocol), groups in places.items():
        text = []
        if len(groups) > 1:
            text.append(
                f"Rows come in {len(groups)} divisions into folds, whose scores are not comparable "
                "with each other."
            )
        captions = [f"Folds {folds}. {_CAPTION}" for folds, _ in groups]
        tables = [(x, _shown(rows)) for x, (_, rows) in zip(captions, groups, strict=True)]
        drawn = [_chart(rows, f"{dataset} {protocol} {folds}") for folds, rows in groups]
        title = f"{dataset}, protocol {protocol}"
        sections.append(
            Section(title, text, tables, charts=[x for x in drawn if x is not None], notes=_HOW)
        )
    num = table.groupby(list(COMPARABLE)).ngroups
    networks = table[table.control_of == ""]
    lead = (
        f"{len(networks)} scores of {networks.model.nunique()} models and "
        f"{len(table) - len(networks)} of controls, in {num} {'group' if num == 1 else 'groups'} "
        f"of data set, protocol and folds, from {', '.join(sorted(set(table.submitted_by)))}."
    )
    summary = "\n\n".join(
        f"{section.title}\n{rows.to_string(index=False, na_rep='–')}"
        for section in sections
        for _, rows in section.tables
    )
    return Page(TITLE, lead, sections, {"board": table[list(COLUMNS)]}, f"{lead}\n\n{summary}\n")


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    of_ceiling = rows.raw / rows.ceiling.where(rows.ceiling > 0)
    found = rows.assign(of_ceiling=of_ceiling, num_nan=rows.num_nan.astype(int))[list(_SHOWN)]
    empty = [x for x in ("control_of", "instruction") if (found[x] == "").all()]
    return found.drop(columns=empty)


def _chart(rows: pd.DataFrame, name: str) -> Chart | None:
    """Draw raw scores side by side with their intervals, and each row's ceiling beside it."""
    data = rows[rows.raw.notna()]
    if data.empty:
        return None
    label = data.model + data.control_of.map(lambda x: f" (control of {x})" if x else "")
    label += data.instruction.map(lambda x: f", {x}" if x else "")
    if data.submitted_by.nunique() > 1:
        label += ", " + data.submitted_by
    data = pd.DataFrame(
        {
            "label": label,
            "kind": data.control_of.map(lambda x: "control" if x else "model"),
            "raw": data.raw,
            "ci_low": data.raw_low,
            "ci_high": data.raw_high,
            "ceiling": data.ceiling,
        }
    )
    ends = charts.limits(*(data[x] for x in ("raw", "ci_low", "ci_high", "ceiling")))
    x = alt.X("raw:Q", title="raw score", scale=charts.axis(ends))
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260))
    colours = {"model": charts.COLOURS["network"], "control": charts.OTHER}
    colour = alt.Color("kind:N", scale=charts.scale(colours), legend=None)
    dots = marks.points(data, {"y": y, "color": colour}, x, [tip("label", "model", ""), tip("raw")])
    ceiling = (
        alt.Chart()
        .transform_filter("datum.ceiling != null")
        .mark_tick(thickness=2, color=charts.INK)
        .encode(y=y, x="ceiling:Q", tooltip=[tip("label", "model", ""), tip("ceiling")])
    )
    layers = [dots, *marks.drawn((ceiling, data.ceiling))]
    chart = alt.layer(*layers, data=charts.DATA).properties(height=charts.height(len(data), 22))
    best = data.iloc[0]
    text = (
        f"Points: raw scores of {len(data)} rows with 95 % intervals, the highest first: "
        f"{best.label} {best.raw:.3f}."
    )
    if data.ceiling.notna().any():
        text += " Ticks: noise ceilings."
    return charts.finish(f"board {name}", f"Scores side by side: {name}", text, chart, data)
