"""Names in the rows of the behaviour stage, and charts of these rows."""

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.literature.protocols import OWN_READING
from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, Panels, marks, tip

CORRELATION = "futrell2018-pearsonr"
OWN_CORRELATION = f"{CORRELATION}{OWN_READING}"  # of the words that begin sentences, too
CORRELATIONS = (CORRELATION, OWN_CORRELATION)
GAIN = "delta_log_likelihood"
BASELINE = "control"  # in the place of a context: what the regressions' baseline is made of
MEAN = "mean"
HELD_OUT = "held_out_story"
_CONTROLS = {
    "length": charts.COLOURS["length"],
    "log_frequency": charts.COLOURS["frequency"],
    "position": charts.COLOURS["shifted"],
}
# What the marks of gains say, and their shapes: a stroke, and a circle.
_STORY, _IN_SAMPLE, _WHOLE = "a held-out story", "in sample", "all held-out stories"
_SHAPES = {_IN_SAMPLE: "M0,-2L0,2", _STORY: "circle"}


def name(row) -> str:
    """Name the source of a row's surprisal; an untrained network has the name of its model too."""
    if row.control_of:
        return f"{row.model} {row.control_of}"
    return row.model


def who(row) -> str:
    """Say how times were aligned, and how many participants they are of."""
    people = f"{row.num_participants} participants" if row.num_participants else "means"
    return f"{row.alignment} alignment, {people}"


def signed(offset: int) -> str:
    """Return an offset in words as text."""
    return f"{offset:+d}" if offset else "0"


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Add a label for each source, and a title for each data set."""
    label = rows.model.where(rows.control_of == "", rows.model + " of " + rows.control_of)
    title = [f"{row.dataset}\n{who(row)}".replace(", ", "\n") for row in rows.itertuples()]
    return rows.assign(source=label, panel=title)


def _colours(scores: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each source, the same in all charts."""
    rows = _labelled(scores).drop_duplicates("source")
    is_network = (rows.control_of == "") & (rows.context != BASELINE)
    networks = charts.networks(rows[is_network].model)
    untrained = charts.untrained(networks)
    return {
        x.source: networks.get(x.model) or untrained.get(x.control_of) or _CONTROLS[x.model]
        for x in rows.itertuples()
    }


def _y(colours: dict[str, str]) -> alt.Y:
    axis = alt.Axis(labelLimit=155, ticks=False)
    return alt.Y("source:N", sort=list(colours), title=None, axis=axis)


def correlations(scores: pd.DataFrame) -> Chart:
    """Draw |r| of every source of surprisal and of the controls, a panel for each data set.

    Args:
      scores: rows of the stage behavior.
    """
    colours = _colours(scores)
    data = _labelled(scores[scores.measure.isin(CORRELATIONS) & (scores.offset == 0)])
    data = data.rename(columns={"value": "abs_r"})
    columns = ["panel", "source", "r", "abs_r", "ci_low", "ci_high", "num_words"]
    data = data[[*columns, "ceiling", "ceiling_low", "ceiling_high"]]
    panels = list(dict.fromkeys(data.panel))
    chart = marks.bars(
        data,
        alt.X("abs_r:Q", title="|r| with mean reading times", axis=alt.Axis(tickCount=4)),
        _y(colours),
        alt.Color("source:N", scale=charts.scale(colours), legend=None),
        [tip("source", digits=""), tip("abs_r", "|r|"), tip("r"), tip("num_words", digits="d")],
    ).properties(height=charts.height(len(colours), 22))
    chart = charts.facet(chart, "panel", panels)
    text = (
        "Bars: absolute correlation with mean reading times of each model's surprisal and of "
        "controls, a panel for each data set, with intervals over stories and the ceiling where "
        "it is defined (dotted; grey: its interval)."
    )
    layout = Panels(len(panels), 150, left=155)
    title = "Correlation with reading times"
    return charts.finish("correlations", title, text, chart, data, layout)


def offsets(scores: pd.DataFrame) -> Chart:
    """Draw r of reading times with the surprisal of words before and after, data set by data set.

    Args:
      scores: rows of the stage behavior.
    """
    rows = scores[scores.measure.isin(CORRELATIONS) & (scores.context != BASELINE)]
    colours = {x: c for x, c in _colours(scores).items() if x in set(_labelled(rows).source)}
    # The interval of |r|, with the sign of r.
    ends = [rows.ci_low * np.sign(rows.r), rows.ci_high * np.sign(rows.r)]
    data = _labelled(rows.assign(ci_low=np.minimum(*ends), ci_high=np.maximum(*ends)))
    data = data[["panel", "source", "offset", "r", "ci_low", "ci_high", "num_words"]]
    panels = list(dict.fromkeys(data.panel))
    axis = alt.Axis(
        values=sorted(set(data.offset)),
        labelExpr="datum.value ? format(datum.value, '+d') : '0'",
        grid=False,
    )
    base = alt.Chart().encode(
        x=alt.X("offset:Q", title="surprisal of the word at", axis=axis),
        y=alt.Y("r:Q", title="Pearson r"),
        color=alt.Color("source:N", scale=charts.scale(colours), legend=charts.line_legend()),
    )
    tips = [tip("source", digits=""), tip("offset", digits="+d"), tip("r"), *charts.INTERVAL]
    chart = alt.layer(*marks.lines(data, base, tips)).properties(height=190)
    chart = charts.facet(chart, "panel", panels)
    text = (
        "Lines: correlation of reading times with the surprisal of words before and after, a panel "
        "for each data set; bands: intervals over stories."
    )
    title = "Which word a time belongs to"
    return charts.finish("offsets", title, text, chart, data, Panels(len(panels), 200, left=60))


def gains(scores: pd.DataFrame, stories: pd.DataFrame) -> Chart:
    """Draw gains in log-likelihood, in nats per 1000 times: held out, by story, and in sample.

    A panel for each data set, and for the times of single participants.

    Args:
      scores: rows of the stage behavior.
      stories: the same, story by story.
    """
    rows = scores[scores.measure == GAIN]
    held_out = stories[(stories.measure == GAIN) & (stories.evaluation == HELD_OUT)]
    kind = rows.evaluation.map(lambda x: _WHOLE if x == HELD_OUT else _IN_SAMPLE)
    data = _labelled(pd.concat([rows.assign(of=kind), held_out.assign(of=_STORY)]))
    is_mean = data.times == MEAN
    data["panel"] += np.where(is_mean, "\nmean times", "\nsingle times")
    columns = ["value", "ci_low", "ci_high"]
    data[columns] *= 1000
    data = data.rename(columns={"value": "gain"})
    data = data[["panel", "source", "of", "story", "gain", "ci_low", "ci_high"]]
    data = data.assign(story=data.story.fillna(""))
    present = set(data.source)
    colours = {x: colour for x, colour in _colours(scores).items() if x in present}
    panels = list(dict.fromkeys(data.panel))
    tips = [tip("source", digits=""), tip("of", digits=""), tip("gain", digits=".2f")]
    bars = marks.bars(
        data[data.of == _WHOLE],
        alt.X("gain:Q", title="nats per 1000 times", axis=alt.Axis(tickCount=4)),
        _y(colours),
        alt.Color("source:N", scale=charts.scale(colours), legend=None),
        tips,
    ).transform_filter(alt.FieldEqualPredicate(field="of", equal=_WHOLE))
    scale = alt.Scale(domain=list(_SHAPES), range=list(_SHAPES.values()))
    legend = alt.Legend(title="bar: all held-out stories, 95 % interval")
    points = (
        alt.Chart()
        .transform_filter(f"datum.of != '{_WHOLE}'")
        .mark_point(size=45, opacity=0.9, strokeWidth=1.5, color=charts.INK)
        .encode(
            x="gain:Q", y=_y(colours), shape=alt.Shape("of:N", scale=scale, legend=legend),
            tooltip=[*tips, tip("story", digits="")],
        )
    )  # fmt: skip
    chart = alt.layer(bars, points).properties(height=charts.height(len(colours), 22))
    chart = charts.facet(chart, "panel", panels)
    text = (
        "Bars: gain of each model's surprisal over the baseline for held-out stories, with "
        "intervals; a circle for each held-out story, a stroke for the gain in sample."
    )
    layout = Panels(len(panels), 150, left=155)
    return charts.finish("gains", "Gain in log-likelihood", text, chart, data, layout)
