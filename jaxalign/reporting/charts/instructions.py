"""Charts of instructions: which aligns best where, how many targets each wins, what two share."""

from collections.abc import Iterator, Mapping

import altair as alt
import pandas as pd

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, marks, parts, tip
from jaxalign.reporting.findings import instructions as tables_lib

_UNITS = {"r2_out_of_sample": "R2 out of sample", "normalized_r": "normalised r"}


def _x(rois: pd.Series) -> alt.X:
    axis = alt.Axis(orient="top", labelAngle=-35)
    return alt.X("roi:N", sort=list(dict.fromkeys(rois)), title=None, axis=axis)


def _y(field: str, names: pd.Series) -> alt.Y:
    return alt.Y(f"{field}:N", sort=list(dict.fromkeys(names)), title=None)


def of_run(tables: Mapping[str, pd.DataFrame], *, lead: str = "") -> list[Chart]:
    """Draw all that there is about instructions, for each data set and model.

    Args:
      tables: as `reporting.findings.instructions.of_run` gives them.
      lead: a sentence before each alternative text, as that data are simulated.
    """
    found = []
    every = tables["instruction_map"]
    groups = every.groupby(["dataset", "model"], sort=False)
    for (dataset, model), part in groups:
        of_pair = {
            name: table[(table.dataset == dataset) & (table.model == model)]
            for name, table in tables.items()
        }
        what = f"{model} on {dataset}" if groups.ngroups > 1 else ""
        ends = charts.limits(every[every.dataset == dataset].score)
        drawn = _of_pair(part, of_pair, f"{dataset}_{model}", ends)
        found += [charts.among_others(x, what, lead=lead) for x in drawn if x is not None]
    return found


def _of_pair(
    part: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    name: str,
    ends: tuple[float, float] | None,
) -> Iterator[Chart | None]:
    """Draw what there is of one data set and model."""
    yield scores_map(part, tables["instruction_winners"], name=f"winners_{name}", ends=ends)
    if "instruction_concepts" in tables:
        groups = tables["instruction_concepts"]
        if groups.concept.nunique() > 1:
            yield concepts_map(groups, name=f"concepts_{name}")
    if "instruction_shares" in tables:
        order = list(dict.fromkeys(part.roi))
        shares = tables["instruction_shares"].sort_values(
            "roi", key=lambda x: x.map(order.index), kind="stable"
        )
        yield shares_map(shares, name=f"shares_{name}")
    if "instruction_partition" in tables:
        pairs = tables_lib.side_by_side(tables["instruction_partition"])
        for measure, of_measure in pairs.groupby("measure", sort=False):
            unit = _UNITS.get(str(measure), str(measure).replace("_", " "))
            draw = {"title": f"What two instructions share: {unit}", "unit": unit}
            bars = f"instruction_partition_{measure}_{name}"
            yield parts.partition_bars(of_measure, name=bars, **draw)
            named = of_measure.assign(panel=of_measure.label + ", " + of_measure.roi)
            yield parts.venn(named, name=f"venn_{measure}_{name}", **draw)


def scores_map(
    table: pd.DataFrame,
    winners: pd.DataFrame,
    *,
    name: str,
    ends: tuple[float, float] | None = None,
) -> Chart | None:
    """Draw the score of each instruction in each region, with the winner of each region marked.

    Args:
      table: `label`, `roi`, `score`, `ci_low`, `ci_high`; one row per instruction and region.
      winners: `roi`, `outcome`, `winner_label`, `margin`, `is_clear`; one row per region. A region
        whose outcome is no winner has no mark; a winner whose interval holds 0 a hollow one.
      name: of the chart's files.
      ends: of the colours, where models share them; None: those of the scores.

    Returns:
      The chart; None without a defined score.
    """
    data = table[["label", "roi", "score", "ci_low", "ci_high"]].dropna(subset=["score"])
    if data.empty:
        return None
    won = winners[winners.outcome == tables_lib.WINNER].set_index("roi")
    data = data.rename(columns={"label": "instruction"}).assign(
        winner=[
            row.roi in won.index and won.winner_label[row.roi] == row.label
            for row in table.dropna(subset=["score"]).itertuples()
        ]
    )
    ends = ends or (data.score.min(), data.score.max())
    mark = {roi: "★ " if clear else "☆ " for roi, clear in won.is_clear.items()}
    data["_text"] = [
        f"{mark[row.roi] if row.winner else ''}{_two_digits(row.score)}"
        for row in data.itertuples()
    ]
    base = alt.Chart(charts.DATA).encode(x=_x(winners.roi), y=_y("instruction", data.instruction))
    cells = base.mark_rect(cornerRadius=2).encode(
        color=alt.Color(
            "score:Q",
            scale=alt.Scale(scheme="viridis", domain=list(map(float, ends))),
            legend=alt.Legend(title="mean score"),
        ),
        stroke=alt.condition("datum.winner", alt.value("#D55E00"), alt.value(charts.INK)),
        strokeWidth=alt.condition("datum.winner", alt.value(3), alt.value(0.2)),
        tooltip=[
            tip("instruction", digits=""),
            tip("roi", "region", ""),
            tip("score"),
            *charts.INTERVAL,
            tip("winner", digits=""),
        ],
    )
    numbers = base.mark_text(fontSize=12, aria=False).encode(
        text="_text:N",
        color=alt.condition(f"datum.score > {sum(ends) / 2}", alt.value("#111"), alt.value("#fff")),
    )
    said = []
    for row in winners.itertuples():
        if row.outcome == tables_lib.WINNER:
            clear = "" if row.is_clear else ", whose interval holds 0"
            said.append(f"{row.roi} {row.winner_label} (ahead by {row.margin:.3f}{clear})")
        else:
            said.append(f"{row.roi} {row.outcome}")
    text = (
        "Heat map of mean scores, instructions by regions; a star is the best, a hollow one where "
        f"the interval of its margin holds 0: {'; '.join(said)}."
    )
    size = charts.height(data.instruction.nunique(), 28)
    chart = alt.layer(cells, numbers).properties(width="container", height=size)
    return charts.finish(name, "Which instruction aligns best in each region", text, chart, data)


def concepts_map(table: pd.DataFrame, *, name: str) -> Chart | None:
    """Draw the mean score of instructions that ask for the same, in each region.

    Args:
      table: `concept`, `roi`, `score`, `normalized`, `instructions`; one row per group and region.
      name: of the chart's files.

    Returns:
      The chart; None without a defined score.
    """
    data = table[["concept", "roi", "score", "normalized", "instructions"]]
    data = data.dropna(subset=["score"])
    if data.empty:
        return None
    chart = marks.heat_map(
        _x(table.roi),
        _y("concept", data.concept),
        alt.Color(
            "score:Q", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(title="mean score")
        ),
        alt.Text("score:Q", format=".2f"),
        [
            tip("concept", digits=""),
            tip("roi", "region", ""),
            tip("score"),
            tip("normalized"),
            tip("instructions", digits=""),
        ],
        middle=(data.score.min() + data.score.max()) / 2,
    )
    best = data.loc[data.groupby("roi", sort=False).score.idxmax()]
    said = ", ".join(f"{row.roi} {row.concept} ({row.score:.3f})" for row in best.itertuples())
    groups = data.drop_duplicates("concept")
    of = "; ".join(f"{row.concept}: {row.instructions}" for row in groups.itertuples())
    text = (
        f"Heat map of mean scores of instructions that ask for the same ({of}), by regions. "
        f"Highest in each region: {said}."
    )
    size = charts.height(data.concept.nunique(), 28)
    chart = chart.properties(width="container", height=size, data=charts.DATA)
    return charts.finish(name, "What instructions ask for, and regions", text, chart, data)


def _two_digits(score: float) -> str:
    """Return a score with two decimals, and more where they would show what is not 0 as 0."""
    return f"{score:.2f}" if abs(score) >= 0.005 or score == 0 else f"{score:.1g}"


def shares_map(table: pd.DataFrame, *, name: str) -> Chart | None:
    """Draw the share of targets that each instruction wins in each region.

    Args:
      table: `label`, `roi`, `share`, `ci_low`, `ci_high`, `num_targets`; one row per instruction
        and region, and per other outcome. Outcomes that no target has are left out.
      name: of the chart's files.

    Returns:
      The chart; None without a target.
    """
    data = table[["label", "roi", "share", "ci_low", "ci_high", "num_targets"]].copy()
    data = data[data.groupby("label").num_targets.transform("sum") > 0]
    data = data.rename(columns={"label": "winner"}).dropna(subset=["share"])
    if data.empty:
        return None
    # As the sentence has it: Vega rounds halves upward, Python to even.
    data["_text"] = [f"{x:.0%}" for x in data.share]
    chart = marks.heat_map(
        _x(table.roi),
        _y("winner", data.winner),
        alt.Color(
            "share:Q",
            scale=alt.Scale(scheme="viridis", domain=[0, 1]),
            legend=alt.Legend(title="share of voxels", format=".0%"),
        ),
        alt.Text("_text:N"),
        [
            tip("winner", digits=""),
            tip("roi", "region", ""),
            tip("share", digits=".1%"),
            tip("ci_low", "interval from", ".1%"),
            tip("ci_high", "interval to", ".1%"),
            tip("num_targets", "voxels", "d"),
        ],
        middle=0.5,
    )
    best = data.loc[data.groupby("roi", sort=False).share.idxmax()]
    said = ", ".join(f"{row.roi} {row.winner} ({row.share:.0%})" for row in best.itertuples())
    text = (
        "Heat map of the share of voxels that each instruction predicts best, mean over subjects; "
        f"none: no score above 0. Largest share in each region: {said}."
    )
    size = charts.height(data.winner.nunique(), 28)
    chart = chart.properties(width="container", height=size, data=charts.DATA)
    title = "Share of voxels that each instruction wins"
    return charts.finish(name, title, text, chart, data)
