"""Rows of ceilings -> charts, what the run prints, and the page."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.reporting import charts, html, tables
from jaxalign.reporting.charts import Chart, Panels, marks, tip
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

# What each kind means, in the order of tables: kinds over subjects, then of single subjects.
KINDS = {
    "isc_leave_one_out": "ISC, each subject with the mean of the others",
    "isc_pairwise": "ISC, pairs of subjects",
    "leave_one_subject_out": "leave-one-subject-out, on the test blocks of models",
    "split_half": "split-half reliability of the group's mean (Spearman-Brown)",
    "split_half_root": "its root: what a model can correlate with the group's mean",
    "extrapolated": "extrapolated to infinitely many subjects, v0 (1 - exp(-x / tau0))",
    "extrapolated_reliability": "extrapolated, v0 sqrt((x - 1) / (x - 1 + tau0))",
    "ncsnr": "ratio of signal and noise, from repeats",
    "noise_ceiling": "share of variance of averaged repeats that the stimulus explains",
    "explainable_variance": "share of variance of single repeats that the stimulus explains",
    "ncsnr_published": "ratio of signal and noise, as published with the responses",
    "noise_ceiling_published": "share of variance that follows from it, of the means over trials",
    "noise_ceiling_root": "its root: what a model can correlate with these means",
    "signal": "noiseless signal with the responses (simulated: the true ceiling)",
}
COLOURS = {
    "isc_leave_one_out": "#0072B2",
    "isc_pairwise": "#56B4E9",
    "leave_one_subject_out": "#009E73",
    "split_half": "#999999",
    "split_half_root": charts.INK,
    "extrapolated": "#D55E00",
    "extrapolated_reliability": "#CC79A7",
    "ncsnr": "#E69F00",
    "noise_ceiling": "#B4436C",
    "explainable_variance": "#44AA99",
    "ncsnr_published": "#F5C242",
    "noise_ceiling_published": "#D98CA6",
    "noise_ceiling_root": "#882255",
    "signal": "#7B6FD0",
}
ISC = ("isc_leave_one_out", "isc_pairwise")
LEVEL = 0.05  # of the false discovery rate, in counts of targets
COLUMNS = ("kind", "scale", "roi", "subject", "value", "ci_low", "ci_high", "interval", "p")
COLUMNS += ("p_adjusted", "num_subjects", "num_targets", "num_undefined")


def of_rois(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind and ROI: the value over subjects, or the mean of single subjects.

    Args:
      rows: in the schema of `io.rows.CEILINGS`.

    Returns:
      The columns `COLUMNS`. Where a kind has no row of the group (repeats), its values are means
      over subjects, without an interval unless there is one subject.
    """
    whole = rows[rows.target == ""]
    found = []
    for kind in [x for x in KINDS if x in set(whole.kind)]:
        kept = whole[whole.kind == kind]
        group = kept[kept.subject == tables.GROUP]
        if len(group):
            found.append(group)
            continue
        for _, part in kept.groupby("roi", sort=False):
            one = part.iloc[:1].copy()
            if len(part) > 1:
                one["subject"] = f"mean of {len(part)}"
                one["value"] = part.value.mean()
                one[["ci_low", "ci_high"]] = np.nan
                one["interval"] = ""
                one["num_subjects"] = int(part.value.notna().sum())
                for name in ("num_targets", "num_undefined"):
                    one[name] = int(part[name].sum())
            found.append(one)
    return pd.concat(found, ignore_index=True)[list(COLUMNS)]


def remarks(rows: pd.DataFrame, left_out: Sequence[str]) -> list[str]:
    """Say what is undefined and why, and in how many targets subjects agree.

    Args:
      rows: ceilings.
      left_out: subjects who are constant.
    """
    found = []
    if left_out:
        found.append(
            f"Left out, {len(left_out)} subjects, because every target is constant: "
            f"{', '.join(left_out)}."
        )
    for kind in [x for x in ISC if x in set(rows.kind)]:
        kept = rows[(rows.kind == kind) & (rows.subject == tables.GROUP) & (rows.target != "")]
        kept = kept[kept.p_adjusted.notna()]
        if len(kept):
            below = int((kept.p_adjusted <= LEVEL).sum())
            found.append(
                f"{kind}: {below} of {len(kept)} targets at a false discovery rate of {LEVEL} "
                f"(Benjamini-Hochberg); from {kept.value.min():.3f} to {kept.value.max():.3f}."
            )
    undefined = rows[rows.value.isna()]
    for (kind, reason), kept in undefined.groupby(["kind", "remark"], sort=False):
        what = "ROIs" if (kept.target == "").all() else "values"
        found.append(f"{kind}: {len(kept)} {what} undefined, {reason or 'of unknown cause'}.")
    partial = rows[rows.value.notna() & (rows.remark != "") & (rows.subject == tables.GROUP)]
    for one in partial.itertuples():
        found.append(f"{one.kind} in {one.roi}: {one.remark}.")
    return found


def summary(rows: pd.DataFrame, found: Sequence[str], confidence: float) -> str:
    """Return what the run prints at its end.

    Args:
      rows: ceilings.
      found: from `remarks`.
      confidence: of the intervals.
    """
    table = of_rois(rows)
    lines = [
        "",
        f"Ceilings of {rows.dataset.iloc[0]}: {rows.num_samples.iloc[0]} samples. In brackets: "
        f"{confidence:.0%} intervals.",
    ]
    for kind, kept in table.groupby("kind", sort=False):
        lines += ["", f"{kind}: {KINDS[str(kind)]}"]
        for one in kept.itertuples():
            text = f"  {one.roi:12} undefined"
            if not np.isnan(one.value):
                text = f"  {one.roi:12} {one.value:.3f}"
                if not np.isnan(one.ci_low):
                    text += f" [{one.ci_low:.3f}, {one.ci_high:.3f}] over {one.interval}"
                if not np.isnan(one.p):
                    p = [html.p_value(x) for x in (one.p, one.p_adjusted)]
                    text += f", p {p[0]}, adjusted {p[1]}"
            text += f"; {one.num_targets} targets, {one.num_subjects} subjects"
            lines.append(text)
    return "\n".join([*lines, "", *found]) + "\n"


def draw(rows: pd.DataFrame, curves: pd.DataFrame | None) -> list[Chart]:
    """Draw all charts that the rows allow.

    Args:
      rows: ceilings.
      curves: of the extrapolation, or None.
    """
    drawn = [roi_points(rows), isc_targets(rows)]
    drawn += [extrapolation(rows, curves)] if curves is not None else []
    return [chart for chart in drawn if chart is not None]


def _colour(kinds: pd.Series, **options) -> alt.Color:
    """Return the colours of the kinds that are there, in their order."""
    colours = {kind: COLOURS[kind] for kind in KINDS if kind in set(kinds)}
    return alt.Color("kind:N", scale=charts.scale(colours), **options)


def roi_points(rows: pd.DataFrame) -> Chart | None:
    """Draw every ceiling on the scale of a correlation for each ROI, with its interval.

    Args:
      rows: ceilings.

    Returns:
      The chart; None if no kind is on that scale.
    """
    table = of_rois(rows)
    table = table[(table.scale == "r") & table.value.notna()]
    if table.empty:
        return None
    columns = ["kind", "roi", "subject", "value", "ci_low", "ci_high", "interval", "p_adjusted"]
    data = table[[*columns, "num_subjects", "num_targets"]]
    rois, kinds = list(dict.fromkeys(data.roi)), [x for x in KINDS if x in set(data.kind)]
    place = {
        "y": alt.Y("roi:N", sort=rois, title=None, scale=alt.Scale(paddingInner=0.25)),
        "yOffset": alt.YOffset("kind:N", sort=kinds),
        "color": _colour(data.kind, legend=alt.Legend(title=None, columns=2, symbolOpacity=1)),
    }
    tips = [
        tip("roi", "region", ""),
        tip("kind", digits=""),
        tip("value"),
        tip("interval", "interval over", ""),
        tip("p_adjusted", "adjusted p", ".2~g"),
        tip("num_subjects", "subjects", "d"),
        tip("num_targets", "targets", "d"),
    ]
    chart = marks.points(data, place, alt.X("value:Q", title="correlation"), tips)
    size = charts.height(len(rois), max(14 * len(kinds), 24))
    chart = chart.properties(width="container", height=size, data=charts.DATA)
    text = (
        "Points: every ceiling that is a correlation, in each region, with intervals: "
        f"{', '.join(kinds)}."
    )
    return charts.finish("rois", "Ceilings of each region", text, chart, data)


def isc_targets(rows: pd.DataFrame) -> Chart | None:
    """Draw the ISC of every target in order of size, with intervals; filled if significant.

    Args:
      rows: ceilings.

    Returns:
      The chart; None if there is no ISC.
    """
    kept = rows[(rows.kind == ISC[0]) & (rows.subject == tables.GROUP) & (rows.target != "")]
    kept = kept[kept.value.notna()].sort_values("value", ascending=False, kind="stable")
    if kept.empty:
        return None
    rois = [x for x in dict.fromkeys(rows.roi) if x in set(kept.roi)]
    data = kept[["roi", "target", "value", "ci_low", "ci_high", "p_adjusted"]].assign(
        rank=kept.groupby("roi").cumcount() + 1,
        significant=np.where(kept.p_adjusted <= LEVEL, "yes", "no"),
    )
    place = {
        "x": alt.X(
            "rank:Q",
            title="targets, in order",
            scale=alt.Scale(zero=False, nice=False, padding=12),
            axis=alt.Axis(labels=False, ticks=False, grid=False),
        ),
        "color": alt.value(COLOURS[ISC[0]]),
    }
    tips = [
        tip("roi", "region", ""),
        tip("target", digits=""),
        tip("value", "ISC"),
        tip("p_adjusted", "adjusted p", ".2~g"),
    ]
    *whiskers, dots = marks.points(data, place, alt.Y("value:Q", title="ISC"), tips).layer
    hollow = alt.FieldEqualPredicate(field="significant", equal="no")
    dots = dots.mark_point(size=30, filled=False, strokeWidth=1.5, opacity=1).encode(
        fill=alt.condition(hollow, alt.value(None), alt.value(COLOURS[ISC[0]]))
    )
    zero = alt.Chart().mark_rule(opacity=0.5, aria=False).encode(y=alt.datum(0))
    chart = alt.layer(zero, *whiskers, dots).properties(height=200)
    chart = charts.facet(chart, "roi", rois).resolve_scale(x="independent")
    text = (
        "Points: correlation with the mean of the others of every target, in order of size; "
        f"filled where the adjusted p is at most {LEVEL}."
    )
    title = "ISC of every target (leave one out)"
    return charts.finish("isc", title, text, chart, data, Panels(len(rois), 180, left=60))


def extrapolation(rows: pd.DataFrame, curves: pd.DataFrame) -> Chart:
    """Draw scores against the number of subjects, fitted curves and where they lead.

    Args:
      rows: ceilings.
      curves: columns kind, roi, num_subjects, what ("scores" or "fitted"), r.
    """
    whole = rows[(rows.subject == tables.GROUP) & (rows.target == "")]
    ends = whole[whole.kind.isin(curves.kind) & whole.roi.isin(curves.roi)]
    ends = ends[["kind", "roi", "value", "ci_low", "ci_high"]].rename(columns={"value": "r"})
    data = pd.concat([curves, ends.assign(what="limit")], ignore_index=True)
    data = data[["kind", "roi", "what", "num_subjects", "r", "ci_low", "ci_high"]]
    rois = list(dict.fromkeys(curves.roi))
    largest = curves.num_subjects.max() / 2
    ticks = [x for x in (2, 5, 10, 20, 50, 100, 200) if x <= 2 * largest]
    what = lambda name: alt.FieldEqualPredicate(field="what", equal=name)
    colour = _colour(curves.kind, legend=charts.line_legend())
    x = alt.X(
        "num_subjects:Q", title="subjects", scale=alt.Scale(type="log"), axis=alt.Axis(values=ticks)
    )
    y = alt.Y("r:Q", title="Pearson r, median over targets")
    tips = [tip("roi", "region", ""), tip("kind", digits=""), tip("r")]
    limit = alt.Chart().transform_filter(what("limit")).encode(color=colour)
    band = limit.mark_rect(opacity=0.13, aria=False).encode(
        y=alt.Y("ci_low:Q", title=y["title"]), y2="ci_high:Q"
    )
    end = limit.mark_rule(strokeDash=[2, 3], strokeWidth=1.5).encode(
        y=y, tooltip=[*tips, *charts.INTERVAL]
    )
    line = (
        alt.Chart()
        .transform_filter(what("fitted"))
        .mark_line(strokeWidth=2, aria=False)
        .encode(x=x, y=y, color=colour)
    )
    dots = (
        alt.Chart()
        .transform_filter(what("scores"))
        .mark_point(filled=True, size=30, opacity=1, color=charts.INK)
        .encode(x=x, y=y, tooltip=[*tips, tip("num_subjects", "subjects", "d")])
    )
    below = marks.drawn((band, ends.ci_low), (end, ends.r))
    chart = alt.layer(*below, line, dots).properties(height=200)
    chart = charts.facet(chart, "roi", rois)
    text = (
        "Points: how well subjects are predicted from others, against their number. Lines: fitted "
        "curves. Dotted, with a band: where they lead, and its interval."
    )
    title = "Extrapolation to infinitely many subjects"
    return charts.finish("extrapolation", title, text, chart, data, Panels(len(rois), 180, left=60))


class Found(NamedTuple):
    """What was found of the ceilings of a data set."""

    rows: pd.DataFrame  # ceilings
    curves: pd.DataFrame | None  # of the extrapolation
    left_out: Sequence[str]  # subjects who are constant
    confidence: float  # of the intervals


def page(found: Found, provenance: str) -> Page:
    """Lay the ceilings of a data set out as a page.

    Args:
      found: all ceilings.
      provenance: preformatted text.
    """
    rows = found.rows
    dataset = rows.dataset.iloc[0]
    table = of_rois(rows)
    said = remarks(rows, found.left_out)
    sections = [
        Section("What to know first", text=said or ["Nothing is undefined."]),
        Section(
            "Regions",
            tables=[(f"Each kind of ceiling. Intervals of {found.confidence:.0%}.", table)],
            charts=draw(rows, found.curves),
        ),
        Section(
            "What each kind means",
            text=[f"{kind}: {KINDS[kind]}." for kind in dict.fromkeys(table.kind)],
        ),
    ]
    lead = (
        f"{dataset}: {rows.num_samples.iloc[0]} samples, {int(table.num_subjects.max())} subjects. "
        "What any model can reach, given how noisy the responses are; nothing is clipped."
    )
    return Page(
        title=f"Noise ceilings: {dataset}",
        lead=lead,
        sections=sections,
        tables={"regions": table},
        summary=summary(rows, said, found.confidence),
        provenance=provenance,
    )
