"""Charts along trainings: scores and losses of arms against steps and against targets seen."""

import altair as alt
import pandas as pd

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, marks, tip

_X = {"step": "steps", "target_tokens": "target tokens seen"}


def of_run(points: pd.DataFrame, unit: str) -> list[Chart]:
    """Draw scores against steps and target tokens, and the loss and MMLU where they are known.

    Args:
      points: as `findings.training.of_run` gives them.
      unit: title of the axis of scores.
    """
    found = []
    several = len(points[["dataset", "base"]].drop_duplicates()) > 1
    for (dataset, base), part in points.groupby(["dataset", "base"], sort=False):
        data = part.rename(columns={"seed_low": "ci_low", "seed_high": "ci_high"})
        what = f"{base} on {dataset}"
        drawn = [_lines(data, "score", x, unit) for x in _X]
        data = data.assign(ci_low=float("nan"), ci_high=float("nan"))
        drawn += [
            _lines(data, y, "step", title)
            for y, title in (("loss", "loss, nats per target"), ("mmlu", "MMLU"))
            if data[y].notna().any()
        ]
        for chart in drawn:
            name = f"{chart.name}_{base}_{dataset}" if several else chart.name
            found.append(charts.among_others(chart, what)._replace(name=name))
    return found


def _lines(data: pd.DataFrame, y: str, x: str, title: str) -> Chart:
    """Draw a line for each arm, with a band from the least to the largest seed."""
    columns = ["arm", "step", "target_tokens", "num_seeds", y, "ci_low", "ci_high"]
    data = data[columns].sort_values(["arm", x])
    has_band = data.ci_low.notna().any()
    ends = charts.limits(data[y], data.ci_low, data.ci_high) if y == "mmlu" else None
    scale = charts.axis(ends) if ends else alt.Scale(zero=False)
    base = alt.Chart().encode(
        # Steps and tokens double from point to point, and begin at 0.
        x=alt.X(f"{x}:Q", title=_X[x], scale=alt.Scale(type="symlog", constant=1)),
        y=alt.Y(f"{y}:Q", title=title, scale=scale),
        color=alt.Color(
            "arm:N", scale=charts.families(data.arm)[0], legend=charts.line_legend("arm")
        ),
    )
    tips = [
        tip("arm", digits=""),
        tip("step", digits="d"),
        tip("target_tokens", digits=",.0f"),
        tip(y),
        tip("num_seeds", "seeds", "d"),
    ]
    if has_band:
        tips += [tip("ci_low", "least seed"), tip("ci_high", "largest seed")]
    chart = alt.layer(*marks.lines(data, base, tips)).properties(
        width="container", height=260, data=charts.DATA
    )
    band = ", the band from the least to the largest seed" if has_band else ""
    text = f"Lines: {title} of each arm against {_X[x]}, mean over seeds{band}."
    heading = f"{y if y != 'mmlu' else 'MMLU'} against {_X[x]}"
    name = f"along_{y}" if x == "step" else f"along_{y}_targets"
    return charts.finish(name, heading[0].upper() + heading[1:], text, chart, data)
