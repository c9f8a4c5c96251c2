"""Charts of layers and regions: a model next to its controls and under its ceiling."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting import charts, tables
from jaxalign.reporting.charts import Chart, Panels, marks, tip

_LEVELS = {"group": "mean response of the group", "subjects": "participants: mean, 95 % interval"}


class Lines(NamedTuple):
    """Numbers of a network and its controls against layers.

    Attributes:
      data: `level`, `roi`, `features`, `layer`, `score`, `ci_low`, `ci_high`, `ceiling`; whether
        features have layers (`_layered`), and whether they are the network's (`_network`).
      model: the network.
      unit: title of the axis of scores.
      ends: the least and the largest number of each level, over all networks of the page.
    """

    data: pd.DataFrame
    model: str
    unit: str
    ends: Mapping[str, tuple[float, float] | None]


def ends(drawn: Iterable[pd.DataFrame]) -> dict[str, tuple[float, float] | None]:
    """Return the least and the largest number of each level, for the axes of all networks.

    Args:
      drawn: as of `Lines`.
    """
    every = pd.concat(drawn)
    return {
        str(level): charts.limits(x.score, x.ci_low, x.ci_high, x.ceiling.where(x._network))
        for level, x in every.groupby("level", sort=False)
    }


def layer_profiles(rows: pd.DataFrame, models: Sequence[str]) -> list[Chart]:
    """Draw scores against layers, a panel for each region: the group's, and the subjects'.

    Args:
      rows: score rows of one data set.
      models: the networks; the controls of each come along, and all have the same axes.

    Returns:
      A chart for each network with layers and a defined score.
    """
    found = {}
    for model in models:
        own = rows[(rows.model == model) & (rows.control_of == "") | (rows.control_of == model)]
        data = _profiles(own)
        # A panel of a region where nothing is defined would have axes alone.
        data = data[_is_defined(data, ["level", "roi"])]
        if (data._layered & data._network & data.score.notna()).any():
            found[model] = data
    shared = ends(found.values()) if found else {}
    unit = charts.metric(rows)
    return [_layers_of(rows, Lines(data, model, unit, shared)) for model, data in found.items()]


def _is_defined(data: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Whether any score with the same keys is defined."""
    return data.score.notna().groupby([data[x] for x in keys]).transform("any")


def _layers_of(rows: pd.DataFrame, lines: Lines) -> Chart:
    """Draw the layers of one network."""
    data, model = lines.data, lines.model
    network = data[data._network]
    part = rows[(rows.model == model) & (rows.control_of == "")]
    best = part[part.score.notna()]
    heights = best.groupby(["roi", "layer"]).score.mean().unstack("layer")
    peaks = ", ".join(f"{roi} {layer}" for roi, layer in heights.idxmax(axis=1).items())
    text = (
        f"Lines: scores of {model} against its layers, a panel for each of "
        f"{', '.join(dict.fromkeys(data.roi))}; controls with layers as lines, without layers as "
        f"dashed levels{'; dotted: noise ceiling' if network.ceiling.notna().any() else ''}."
    )
    if peaks:
        text += f" Highest mean at layer: {peaks}."
    title = f"Scores against layers: {model}"
    return profiles(lines, f"layers_{model}", title, text)


def profiles(lines: Lines, name: str, title: str, text: str) -> Chart:
    """Draw numbers against layers: a row of panels for each level, a panel for each region.

    Args:
      lines: the numbers, of which some are defined.
      name: of the chart's files.
      title: its heading.
      text: its alternative text.
    """
    data, model = lines.data, lines.model
    names = [model, *(x for x in dict.fromkeys(data.features) if x != model)]
    rois, levels = list(dict.fromkeys(data.roi)), list(dict.fromkeys(data.level))
    has_ceiling = data[data._network].ceiling.notna().any()
    pick = alt.selection_point(fields=["features"], bind="legend", name="features")
    colour = alt.Color(
        "features:N",
        scale=charts.features(names, model),
        legend=charts.line_legend(
            f"model and controls{' (dotted: noise ceiling)' if has_ceiling else ''}", columns=2
        ),
    )
    base = alt.Chart().encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d", tickCount=6)),
        color=colour,
    )
    parts = []
    for level in levels:
        y = alt.Y("score:Q", title=lines.unit, scale=charts.axis(lines.ends.get(level)))
        parts.append(_level(data[data.level == level], rois, base.encode(y=y), pick))
    chart = alt.vconcat(*parts, data=charts.DATA).resolve_scale(color="shared")
    done = charts.finish(name, title, text, chart, data, Panels(len(rois), 190, left=60))
    # One legend picks in all rows of panels; altair names no views inside facets for that.
    views = [f"points {level}" for level in levels]
    return done._replace(
        spec=dict(done.spec) | {"params": [pick.param.to_dict() | {"views": views}]}
    )


def _level(part: pd.DataFrame, rois: list[str], base: alt.Chart, pick) -> alt.FacetChart:
    """Draw one row of panels."""
    level = part.level.iloc[0]
    tips = [
        tip("features", "model or control", ""),
        tip("roi", "region", ""),
        tip("layer", digits="d"),
        tip("score"),
        *charts.INTERVAL,
        tip("ceiling", "noise ceiling"),
    ]
    fade = alt.condition(pick, alt.value(1), alt.value(0.12))
    *band, lines, points = marks.lines(
        part[part._network], base.transform_filter("datum._layered"), tips, fade=fade
    )
    band = [x.transform_filter("datum._network") for x in band]
    flat = (
        base.transform_filter("!datum._layered")
        .mark_rule(strokeDash=[6, 3], strokeWidth=1.6)
        .encode(x=alt.value(0), x2=alt.value("width"), opacity=fade, tooltip=tips)
    )
    ceiling = (
        alt.Chart()
        .transform_filter("datum._network && datum.ceiling != null")
        .mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=charts.INK, aria=False)
        .encode(y="mean(ceiling):Q")
    )
    below = marks.drawn(
        (flat, part.score.mask(part._layered)), (ceiling, part.ceiling.where(part._network))
    )
    chart = alt.layer(*band, *below, lines, points.properties(name=f"points {level}"))
    chart = chart.properties(height=170).transform_filter(
        alt.FieldEqualPredicate(field="level", equal=level)
    )
    return charts.facet(chart, "roi", rois, title=level)


def _profiles(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per level, region, features and layer, with an interval over subjects."""
    found = []
    levels = {"group": rows[rows.subject == tables.GROUP]}
    levels["subjects"] = rows[rows.subject != tables.GROUP]
    for level, frame in levels.items():
        keys = ["roi", "model", "control_of", "layer"]
        for (roi, name, control_of, layer), part in frame.groupby(keys, sort=False):
            is_r = tables.are_correlations(part)
            interval = tables.interval(part.fold_scores, is_correlation=is_r)
            alone = len(part) < 2  # folds alone: of the group, and of a single subject
            found.append(
                {
                    "level": _LEVELS[level],
                    "roi": roi,
                    "features": name,
                    "layer": layer,
                    "score": interval.mean,
                    "ci_low": np.nan if alone else interval.low,
                    "ci_high": np.nan if alone else interval.high,
                    "ceiling": part.ceiling.mean(),
                    "_layered": int(part.num_layers.max()) > 0,
                    "_network": control_of == "",
                }
            )
    return pd.DataFrame(found).sort_values(["roi", "features", "layer"], kind="stable")


def depth(rows: pd.DataFrame) -> Chart | None:
    """Draw the networks of a run against relative depth, a panel for each region.

    Args:
      rows: score rows of one data set.

    Returns:
      The chart; None unless two networks have layers.
    """
    part = rows[(rows.control_of == "") & (rows.num_layers > 0) & (rows.layer >= 0)]
    if part.model.nunique() < 2:
        return None
    people = part[part.subject != tables.GROUP]
    part = people if len(people) else part
    keys = ["roi", "model", "layer", "num_layers"]
    data = part.groupby(keys, sort=False).score.mean().reset_index()
    data["relative_depth"] = data.layer / data.num_layers
    data = data[_is_defined(data, ["roi"])]
    if data.empty:
        return None
    rois = list(dict.fromkeys(data.roi))
    colours, shapes = charts.families(data.model)
    base = alt.Chart().encode(
        x=alt.X("relative_depth:Q", title="relative depth (0: embedding, 1: last layer)"),
        y=alt.Y("score:Q", title=charts.metric(part)),
        color=alt.Color("model:N", scale=colours, legend=alt.Legend(title="model")),
    )
    lines = base.mark_line(strokeWidth=2, aria=False)
    points = base.mark_point(filled=True, size=40, opacity=1).encode(
        shape=alt.Shape("model:N", scale=shapes, legend=alt.Legend(title="model")),
        tooltip=[
            tip("model", digits=""),
            tip("roi", "region", ""),
            tip("layer", digits="d"),
            tip("num_layers", "of layers", "d"),
            tip("score"),
        ],
    )
    chart = charts.facet(alt.layer(lines, points).properties(height=170), "roi", rois)
    text = (
        f"Lines: mean score over participants of {', '.join(dict.fromkeys(data.model))} against "
        f"relative depth, a panel for each of {', '.join(rois)}."
    )
    title = "Networks of different depth"
    return charts.finish("depth", title, text, chart, data, Panels(len(rois), 190, left=60))


def roi_bars(rows: pd.DataFrame) -> Chart | None:
    """Draw each network and its controls in each region, layers chosen inside the training data.

    Bars are means over subjects with 95 % intervals; the band is the interval of the subjects'
    ceilings.

    Args:
      rows: score rows of one data set.

    Returns:
      The chart; None where no subject has a defined score.
    """
    rows = rows[rows.subject != tables.GROUP]
    if not (rows.control_of == "").any():
        return None
    scores = tables.nested_layer(rows)
    models = list(dict.fromkeys(scores[scores.control_of == ""].model))
    data = _bars(scores, models)
    data = data[_is_defined(data, ["model", "roi"])]
    if data.empty:
        return None
    models, rois = list(dict.fromkeys(data.model)), list(dict.fromkeys(data.roi))
    names = list(dict.fromkeys(data.features))
    colours = {
        x: charts.COLOURS["network"] if x in models else charts.COLOURS.get(x, charts.OTHER)
        for x in names
    }
    colour = alt.Color("features:N", scale=charts.scale(colours), legend=None)
    ends = charts.limits(
        *(data[x] for x in ("score", "ci_low", "ci_high", "ceiling", "ceiling_low", "ceiling_high"))
    )
    x = alt.X(
        "score:Q", title=charts.metric(rows), axis=alt.Axis(tickCount=4), scale=charts.axis(ends)
    )
    parts = [_bars_of(data[data.model == model], rois, x, colour) for model in models]
    text = (
        f"Bars: mean score over subjects of {', '.join(models)} and of the controls of each, a "
        f"panel for each of {', '.join(rois)}"
    )
    if data.ci_low.notna().any():
        text += ", with 95 % intervals"
    title = "Regions: models and their controls"
    if data.ceiling.notna().any():
        title += ", under their ceilings"
        text += "; grey bands: intervals of the subjects' noise ceilings, dotted: their mean"
    text += "."
    chart = alt.vconcat(*parts, data=charts.DATA)
    return charts.finish("rois", title, text, chart, data, Panels(len(rois), 150, each=150))


def _bars(scores: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    found, is_r = [], tables.are_correlations(scores)
    for model in models:
        part = scores[(scores.model == model) & (scores.control_of == "")]
        ceilings = {
            roi: tables.interval(x.fold_ceilings, is_correlation=True)
            for roi, x in part.groupby("roi")
        }
        both = pd.concat([part, scores[scores.control_of == model]])
        for (name, roi), x in both.groupby(["model", "roi"], sort=False):
            interval = tables.interval(x.fold_scores, is_correlation=is_r)
            band = ceilings.get(roi, stats.Interval(np.nan, np.nan, np.nan, 0))
            found.append(
                {
                    "model": model,
                    "roi": roi,
                    "features": name,
                    "score": interval.mean,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "num_subjects": interval.n,
                    "ceiling": band.mean,
                    "ceiling_low": band.low,
                    "ceiling_high": band.high,
                }
            )
    return pd.DataFrame(found)


def _bars_of(part: pd.DataFrame, rois: list[str], x: alt.X, colour: alt.Color) -> alt.FacetChart:
    """Draw the panels of one network."""
    model = part.model.iloc[0]
    rois = [roi for roi in rois if roi in set(part.roi)]
    names = list(dict.fromkeys(part.features))
    chart = marks.bars(
        part,
        x,
        alt.Y("features:N", sort=names, title=None, axis=alt.Axis(labelLimit=140, ticks=False)),
        colour,
        [
            tip("features", "model or control", ""),
            tip("roi", "region", ""),
            tip("score"),
            tip("num_subjects", "subjects", "d"),
        ],
    )
    chart = chart.properties(
        height=charts.height(part.groupby("roi").features.nunique(), 15)
    ).transform_filter(alt.FieldEqualPredicate(field="model", equal=model))
    return charts.facet(chart, "roi", rois, title=model).resolve_scale(y="independent")


def roi_matrix(table: pd.DataFrame, name: str, title: str) -> Chart | None:
    """Draw the score of each model in each region as a heat map.

    Args:
      table: `model`, `roi`, `metric`, `score`, `ceiling`; one row per model and region.
      name: of the chart's files.
      title: its heading.

    Returns:
      The chart; None unless there are two regions and two models.
    """
    data = table[["model", "roi", "score", "ceiling"]].dropna(subset=["score"])
    if data.model.nunique() < 2 or data.roi.nunique() < 2:
        return None
    legend = alt.Legend(title=charts.metric(table))
    chart = marks.heat_map(
        alt.X("roi:N", sort=None, title=None, axis=alt.Axis(orient="top", labelAngle=-35)),
        alt.Y("model:N", sort=None, title=None),
        alt.Color("score:Q", scale=alt.Scale(scheme="viridis"), legend=legend),
        alt.Text("score:Q", format=".2f"),
        [
            tip("model", digits=""),
            tip("roi", "region", ""),
            tip("score"),
            tip("ceiling", "noise ceiling"),
        ],
        middle=(data.score.min() + data.score.max()) / 2,
    )
    best = data.loc[data.groupby("roi", sort=False).score.idxmax()]
    said = ", ".join(f"{row.roi} {row.model} ({row.score:.3f})" for row in best.itertuples())
    text = f"Heat map of scores, models by regions. Highest in each region: {said}."
    size = charts.height(data.model.nunique(), 28)
    chart = chart.properties(width="container", height=size, data=charts.DATA)
    return charts.finish(name, title, text, chart, data)
