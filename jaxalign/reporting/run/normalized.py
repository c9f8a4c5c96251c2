"""Scores divided by published ceilings -> a table of models and regions, and its chart."""

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, marks, tip

CAPTION = (
    "Score of each target divided by its published noise ceiling, the mean over the targets of an "
    "ROI, then over subjects (Student's t interval of two or more). Targets with too low a ceiling "
    "(num below floor) and those without score or ceiling (num undefined) are in no mean. Controls "
    "stand below the model that they are of."
)
_KEYS = ["dataset", "model", "control_of", "instruction", "pooling", "protocol", "roi"]


def means(table: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Average over subjects.

    Args:
      table: rows of `results.normalized.by_subject_and_roi`, of all models and controls.
      labels: short names of instructions.

    Returns:
      One row per data set, model or control, instruction and ROI: `name`, what a chart calls it;
      `normalized` with its interval over subjects; raw `score` and `ceiling` of the targets that
      count; numbers of targets.
    """
    rows = []
    for key, part in table.groupby(_KEYS, sort=False):
        place = dict(zip(_KEYS, key, strict=True))
        found = stats.mean_interval(part.normalized.to_numpy(float))
        code = labels.get(place["instruction"], place["instruction"])
        of = place["control_of"]
        name = f"{of}: {place['model']}" if of else place["model"]
        sums = ("num_targets", "num_below_floor", "num_undefined")
        rows.append(
            place
            | {"name": f"{name}, {code}" if code else name}
            | {"normalized": found.mean, "ci_low": found.low, "ci_high": found.high}
            | {x: float(part[x].mean()) for x in ("score", "ceiling")}
            | {x: int(part[x].sum()) for x in sums}
            | {"num_subjects": found.n}
        )
    columns = [*_KEYS, "name", "normalized", "ci_low", "ci_high", "score", "ceiling"]
    columns += ["num_targets", "num_below_floor", "num_undefined", "num_subjects"]
    return pd.DataFrame(rows, columns=columns)


def shown(table: pd.DataFrame, instruction: str) -> pd.DataFrame:
    """Keep of models that were given several instructions the one that stands for them.

    Args:
      table: from `means`.
      instruction: that stands for all.
    """
    models = table.control_of.where(table.control_of != "", table.model)
    several = table.groupby([table.dataset, models]).instruction.transform("nunique") > 1
    return table[~several | (table.instruction == instruction)]


def heat_map(table: pd.DataFrame, *, name: str) -> Chart | None:
    """Draw normalised scores, models and controls by regions.

    Args:
      table: from `shown`, of one data set.
      name: of the chart's files.

    Returns:
      The chart; None where no score is defined.
    """
    data = table[["name", "roi", "normalized", "score", "ceiling"]]
    data = data.rename(columns={"name": "features"})
    # A control that is the same beside every model is drawn once for each: they tell apart whose.
    defined = data.dropna(subset=["normalized"])
    if defined.empty:
        return None
    ends = [float(np.min(defined.normalized)), float(np.max(defined.normalized))]
    axis = alt.Axis(orient="top", labelAngle=-35)
    chart = marks.heat_map(
        alt.X("roi:N", sort=list(dict.fromkeys(data.roi)), title=None, axis=axis),
        alt.Y("features:N", sort=list(dict.fromkeys(data.features)), title=None),
        alt.Color(
            "normalized:Q",
            scale=alt.Scale(scheme="viridis", domain=ends),
            legend=alt.Legend(title="normalised r"),
        ),
        alt.Text("normalized:Q", format=".2f"),
        [
            tip("features", digits=""),
            tip("roi", "region", ""),
            tip("normalized"),
            tip("score"),
            tip("ceiling", "noise ceiling"),
        ],
        middle=sum(ends) / 2,
    )
    best = defined.loc[defined.groupby("roi", sort=False).normalized.idxmax()]
    said = ", ".join(
        f"{row.roi} {row.features} ({row.normalized:.3f})" for row in best.itertuples()
    )
    lost = dict.fromkeys(data.features[data.normalized.isna()])
    text = f"Heat map of normalised scores, models and controls by regions. Highest: {said}."
    if lost:
        text += f" Undefined: {', '.join(lost)}."
    size = charts.height(defined.features.nunique(), 24)
    chart = chart.properties(width="container", height=size, data=charts.DATA)
    return charts.finish(name, "Normalised alignment of models and controls", text, chart, defined)
