"""Charts over many models: scores against their properties, pairs, and correlations."""

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, Panels, tip

TUNED, VANILLA, UNKNOWN = "instruction-tuned", "vanilla", "not said"
ALL = "all models shown"
_LEAST = 3  # models of a trend


def kind(tuned: pd.Series) -> pd.Series:
    """Put into words whether models are tuned, from true, false and undefined."""
    return tuned.map({True: TUNED, False: VANILLA}).fillna(UNKNOWN)


def scatter(
    table: pd.DataFrame, x: str, *, title: str, label: str, log: bool = False
) -> Chart | None:
    """Draw scores against a property of models, one panel per data set, with least-squares lines.

    The dashed line is over all models shown and the others are within families, so that a relation
    that holds only between families can be seen.

    Args:
      table: `model`, `dataset`, `score`, `family`, `tuned` and the property; one row per model and
        data set.
      x: the property's column.
      title: of the chart.
      label: of the property's axis.
      log: whether the axis is logarithmic; lines are then straight in its logarithm.

    Returns:
      The chart; None if fewer than three models have the property and a score.
    """
    shown = table[["dataset", "model", "family", "tuned", x, "score"]].dropna(subset=[x, "score"])
    shown = shown[(shown[x] > 0) | (not log)]
    if shown.model.nunique() < _LEAST:
        return None
    shown = shown.assign(kind=kind(shown.tuned), family=shown.family.replace("", "unknown"))
    shown = shown.drop(columns="tuned").assign(_amount=shown[x].map(_amount))
    lines = _trends(shown, x, log)
    data = pd.concat([shown.assign(_drawn=False), lines.assign(_drawn=True)])
    colours, shapes = charts.families(shown.family)
    pick = alt.selection_point(fields=["family"], bind="legend", name=f"family_{x}")
    scale = alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(zero=False)
    amount = "replace(format(datum.value, '~s'), 'G', 'B')"  # ten billion is 10B, not 10G
    axis = alt.Axis(labelExpr=amount, tickCount=5) if log else alt.Axis(tickCount=5)
    base = alt.Chart().encode(
        x=alt.X(f"{x}:Q", scale=scale, axis=axis, title=label),
        y=alt.Y("score:Q", scale=alt.Scale(zero=False, padding=8), title="alignment (raw)"),
    )
    legend = alt.Legend(title="family (filled: tuned, hollow: vanilla)", symbolOpacity=1)
    points = (
        base.transform_filter("!datum._drawn")
        .mark_point(size=90, strokeWidth=1.8)
        .encode(
            stroke=alt.Stroke("family:N", scale=colours, legend=legend),
            fill=alt.Fill("family:N", scale=colours, legend=legend),
            shape=alt.Shape("family:N", scale=shapes, legend=legend),
            fillOpacity=alt.condition(f"datum.kind == '{VANILLA}'", alt.value(0), alt.value(0.85)),
            opacity=alt.condition(pick, alt.value(1), alt.value(0.1)),
            tooltip=[
                tip("model", digits=""),
                tip("family", digits=""),
                tip("kind", digits=""),
                tip("_amount", label, "") if log else tip(x, label),
                tip("score"),
                tip("dataset", "data set", ""),
            ],
        )
        .add_params(pick)
    )
    within = (
        base.transform_filter(f"datum._drawn && datum.family != '{ALL}'")
        .mark_line(strokeWidth=2, aria=False)
        .encode(
            stroke=alt.Stroke("family:N", scale=colours, legend=legend),
            opacity=alt.condition(pick, alt.value(0.75), alt.value(0.05)),
        )
    )
    pooled = (
        base.transform_filter(f"datum._drawn && datum.family == '{ALL}'")
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, opacity=0.7, stroke=charts.INK, aria=False)
        .encode()
    )
    order = list(dict.fromkeys(shown.dataset))
    chart = charts.facet(alt.layer(pooled, within, points), "dataset", order)
    chart = chart.resolve_scale(y="independent")
    text = (
        f"Scatter plot of alignment against {label}, a panel for each of {', '.join(order)}; "
        f"{shown.model.nunique()} models in {shown.family.nunique()} families. Dashed: least "
        "squares over all models shown; lines in colour: within families of three and more. "
        + _slopes(lines, order)
    )
    panels = Panels(len(order), 250, each=62)
    return charts.finish(f"scatter_{x}", title, text, chart, data, panels)


def _amount(value: float) -> str:
    """Return a number of parameters or tokens as people write it, with three digits: "6.74B"."""
    for power, letter in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g}{letter}"
    return f"{value:.3g}"


def _trends(shown: pd.DataFrame, x: str, log: bool) -> pd.DataFrame:
    """Return the ends of the lines of least squares, over all models and within families."""
    found = []
    for dataset, part in shown.groupby("dataset", sort=False):
        groups = dict(list(part.groupby("family", sort=True)))
        if len(groups) > 1:
            groups = {ALL: part} | groups
        for family, of_group in groups.items():
            at = np.log10(of_group[x]) if log else of_group[x]
            if at.nunique() < _LEAST:
                continue
            slope, intercept = np.polyfit(at, of_group.score, 1)
            for end in (at.min(), at.max()):
                value = 10**end if log else end
                row = {"dataset": dataset, "family": family, x: value}
                found.append(row | {"score": intercept + slope * end})
    return pd.DataFrame(found, columns=["dataset", "family", x, "score"])


def _slopes(lines: pd.DataFrame, datasets: list[str]) -> str:
    """Say which lines rise and which fall, on the first data set."""
    part = lines[lines.dataset == datasets[0]]
    ends = part.groupby("family", sort=False).score.agg(["first", "last"])
    said = [
        f"{family} {'rises' if row['last'] > row['first'] else 'falls'}"
        for family, row in ends.iterrows()
    ]
    return f"On {datasets[0]}: {', '.join(said)}." if said else ""


def pairs(table: pd.DataFrame) -> Chart | None:
    """Draw each tuned model and the model it was made from, joined by an arrow.

    Args:
      table: `model`, `base`, `dataset`, `score`, `family`, `tuned`; a base that has no score on the
        data set has no arrow there.

    Returns:
      The chart; None without any pair.
    """
    scores = table.set_index(["dataset", "model"]).score
    # Whether a model is tuned may be unknown, which is neither.
    tuned = table[table.tuned.map(lambda x: x is True) & (table.base != "")]
    at = pd.MultiIndex.from_frame(tuned[["dataset", "base"]])
    part = tuned.assign(vanilla_score=scores.reindex(at).to_numpy())
    part = part.dropna(subset=["score", "vanilla_score"])
    if part.empty:
        return None
    part = part.rename(columns={"score": "tuned_score"})
    part["gain_percent"] = 100 * (part.tuned_score / part.vanilla_score - 1)
    part["change"] = np.where(part.tuned_score >= part.vanilla_score, "gain", "loss")
    # From the least base to the best of a family, as on the first data set.
    first = table[table.dataset == table.dataset.iloc[0]].set_index("model").score
    part["_rank"] = part.base.map(first).fillna(np.inf)
    part = part.sort_values(["family", "_rank", "base", "model"], kind="stable")
    columns = ["dataset", "family", "model", "base", "vanilla_score", "tuned_score", "gain_percent"]
    data = part[[*columns, "change"]]
    names = list(dict.fromkeys(data.model))
    datasets = [x for x in dict.fromkeys(table.dataset) if x in set(data.dataset)]
    base = alt.Chart().encode(
        y=alt.Y("model:N", sort=names, title=None, axis=alt.Axis(grid=True, labelLimit=150)),
        color=alt.Color(
            "change:N",
            scale=alt.Scale(domain=["gain", "loss"], range=["#0072B2", "#D55E00"]),
            legend=alt.Legend(title="tuned against vanilla"),
        ),
        tooltip=[
            tip("model", "tuned", ""),
            tip("base", "vanilla", ""),
            tip("vanilla_score"),
            tip("tuned_score"),
            tip("gain_percent", digits="+.1f"),
            tip("dataset", "data set", ""),
        ],
    )
    x = alt.X("vanilla_score:Q", title="alignment (raw)", scale=alt.Scale(zero=False, padding=8))
    shafts = base.mark_rule(strokeWidth=2.5).encode(x=x, x2="tuned_score:Q")
    tails = base.mark_point(size=45, strokeWidth=2, filled=False).encode(x=x)
    heads = base.mark_point(size=90, filled=True, opacity=1).encode(
        x="tuned_score:Q",
        shape=alt.Shape(
            "change:N",
            scale=alt.Scale(domain=["gain", "loss"], range=["triangle-right", "triangle-left"]),
            legend=alt.Legend(title="tuned against vanilla"),
        ),
    )
    size = charts.height(data.groupby("dataset").model.nunique(), 18)
    chart = charts.facet(
        alt.layer(shafts, tails, heads).properties(height=size), "dataset", datasets, columns=2
    ).resolve_scale(x="independent", y="independent")
    means = data.groupby("dataset", sort=False).gain_percent.agg(["mean", "size"])
    said = "; ".join(
        f"{name} {means['mean'][name]:+.1f} % over {means['size'][name]} pairs" for name in datasets
    )
    text = (
        "Arrows from the score of each vanilla model (circle) to that of the model tuned from it "
        f"(triangle), a panel for each data set. Mean gain: {said}."
    )
    title = "What instruction tuning changes"
    panels = Panels(len(datasets), 150, each=165)
    return charts.finish("pairs", title, text, chart, data, panels)


def forest(table: pd.DataFrame) -> Chart | None:
    """Draw correlations with their intervals: over all models and within families.

    Args:
      table: rows of findings whose statistic is Pearson's r: `subset`, `predictor`, `outcome`,
        `n`, `value`, `ci_low`, `ci_high`, `p_adjusted`, `scope`, "pooled" or "within a family",
        and `relation`, what the predictor is called.

    Returns:
      The chart; None without a row.
    """
    table = table.dropna(subset=["value"])
    if table.empty:
        return None
    label = table.subset + " (n = " + table.n.astype(int).astype(str) + ")"
    columns = ["relation", "subset", "n", "value", "ci_low", "ci_high", "p_adjusted", "scope"]
    data = table[columns].assign(label=label)
    relations = list(dict.fromkeys(table.relation))
    outcome = ", ".join(dict.fromkeys(table.outcome))
    base = alt.Chart().encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=170)),
        color=alt.Color(
            "scope:N",
            scale=alt.Scale(
                domain=["pooled", "within a family"], range=[charts.INK, charts.FAMILY_COLOURS[1]]
            ),
            legend=alt.Legend(title=None),
        ),
        tooltip=[
            tip("relation", digits=""),
            tip("subset", digits=""),
            tip("n", "models", "d"),
            tip("value", "correlation"),
            *charts.INTERVAL,
            tip("p_adjusted", "adjusted p", ".2~g"),
        ],
    )
    x = alt.Scale(domain=[-1, 1])
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        x=alt.X("ci_low:Q", scale=x, title="correlation"),
        x2="ci_high:Q",
    )
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x="value:Q",
        shape=alt.Shape(
            "scope:N",
            scale=alt.Scale(domain=["pooled", "within a family"], range=["diamond", "circle"]),
            legend=alt.Legend(title=None),
        ),
    )
    zero = alt.Chart().mark_rule(opacity=0.5, aria=False).encode(x=alt.datum(0))
    size = charts.height(data.groupby("relation").label.nunique(), 20)
    chart = charts.facet(
        alt.layer(zero, bars, dots).properties(height=size), "relation", relations, columns=2
    ).resolve_scale(y="independent")
    text = (
        f"Pearson correlations of alignment ({outcome}) with {', '.join(relations)}, and 95 % "
        "intervals: over all models of a subset (diamonds), and within each family (circles). "
        "Where these differ, the pooled one speaks of differences between families."
    )
    title = f"Correlations with alignment ({outcome}), pooled and within families"
    panels = Panels(len(relations), 130, each=185)
    return charts.finish("correlations", title, text, chart, data, panels)
