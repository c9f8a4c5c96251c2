"""Rows of ceilings -> figures, a summary and one HTML page."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxalign.reporting import html, tables
from jaxalign.reporting.pages import plots

# What each kind says, and where it stands: kinds over subjects, then those of single subjects.
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
    "signal": "noiseless signal with the responses (simulated: the true ceiling)",
}
COLOURS = {
    "isc_leave_one_out": "#0072B2",
    "isc_pairwise": "#56B4E9",
    "leave_one_subject_out": "#009E73",
    "split_half": "#999999",
    "split_half_root": "#000000",
    "extrapolated": "#D55E00",
    "extrapolated_reliability": "#CC79A7",
    "ncsnr": "#E69F00",
    "noise_ceiling": "#882255",
    "explainable_variance": "#44AA99",
    "signal": "#332288",
}
ISC = ("isc_leave_one_out", "isc_pairwise")
LEVEL = 0.05  # of the false discovery rate, in counts of targets
COLUMNS = ("kind", "scale", "roi", "subject", "value", "ci_low", "ci_high", "interval", "p")
COLUMNS += ("p_adjusted", "num_subjects", "num_targets", "num_undefined")


def of_rois(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind and ROI: over subjects, or means over subjects of what each has.

    Args:
      rows: in the schema of `io.rows.CEILINGS`.

    Returns:
      The columns `COLUMNS`. Where a kind has no row of the group (repeats), its values are means
      over subjects, without an interval unless there is one subject.
    """
    whole = rows[rows.target == ""]
    found = []
    for kind in [x for x in KINDS if x in set(whole.kind)]:
        own = whole[whole.kind == kind]
        group = own[own.subject == tables.GROUP]
        if len(group):
            found.append(group)
            continue
        for _, part in own.groupby("roi", sort=False):
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
    """Say what is undefined and why, and how many targets listeners agree in.

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
        own = rows[(rows.kind == kind) & (rows.subject == tables.GROUP) & (rows.target != "")]
        own = own[own.p_adjusted.notna()]
        if len(own):
            below = int((own.p_adjusted <= LEVEL).sum())
            found.append(
                f"{kind}: {below} of {len(own)} targets at a false discovery rate of {LEVEL} "
                f"(Benjamini-Hochberg); from {own.value.min():.3f} to {own.value.max():.3f}."
            )
    undefined = rows[rows.value.isna()]
    for (kind, reason), own in undefined.groupby(["kind", "remark"], sort=False):
        what = "ROIs" if (own.target == "").all() else "values"
        found.append(f"{kind}: {len(own)} {what} undefined, {reason or 'of unknown cause'}.")
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
    for kind, own in table.groupby("kind", sort=False):
        lines += ["", f"{kind}: {KINDS[str(kind)]}"]
        for one in own.itertuples():
            text = f"  {one.roi:12} undefined"
            if not np.isnan(one.value):
                text = f"  {one.roi:12} {one.value:.3f}"
                if not np.isnan(one.ci_low):
                    text += f" [{one.ci_low:.3f}, {one.ci_high:.3f}] over {one.interval}"
                if not np.isnan(one.p):
                    text += f", p {one.p:.4f}, adjusted {one.p_adjusted:.4f}"
            text += f"; {one.num_targets} targets, {one.num_subjects} subjects"
            lines.append(text)
    return "\n".join([*lines, "", *found]) + "\n"


def figures(rows: pd.DataFrame, curves: pd.DataFrame | None) -> dict[str, bytes]:
    """Draw all figures that the rows allow.

    Args:
      rows: ceilings.
      curves: of the extrapolation, or None.

    Returns:
      SVGs by name.
    """
    found = {"rois": roi_points(rows)}
    if set(ISC) & set(rows.kind) and (rows.value.notna() & (rows.target != "")).any():
        found["isc"] = isc_targets(rows)
    if curves is not None:
        found["extrapolation"] = extrapolation(rows, curves)
    return {name: svg for name, svg in found.items() if svg}


def roi_points(rows: pd.DataFrame) -> bytes:
    """Draw every ceiling on the scale of a correlation for each ROI, with its interval.

    Args:
      rows: ceilings.

    Returns:
      An SVG; empty if no kind is on that scale.
    """
    table = of_rois(rows)
    table = table[(table.scale == "r") & table.value.notna()]
    if table.empty:
        return b""
    rois, kinds = list(dict.fromkeys(table.roi)), list(dict.fromkeys(table.kind))
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(max(1.4 * len(rois) + 4.6, 6.5), 3.6), layout="constrained")
        axis = figure.subplots()
        for i, kind in enumerate(kinds):
            own = table[table.kind == kind].set_index("roi").reindex(rois)
            x = np.arange(len(rois)) + 0.7 * ((i + 0.5) / len(kinds) - 0.5)
            error = np.abs(np.stack([own.value - own.ci_low, own.ci_high - own.value]))
            axis.errorbar(
                x, own.value, yerr=error, fmt="o", ms=4, lw=1, color=COLOURS[kind], label=kind
            )
        axis.axhline(0, color="#cccccc", lw=0.8, zorder=0)
        axis.set_xticks(range(len(rois)), rois)
        axis.set_xlim(-0.6, len(rois) - 0.4)
        axis.set_ylabel("correlation")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return plots.svg(figure)


def isc_targets(rows: pd.DataFrame) -> bytes:
    """Draw the ISC of every target in order of size, with intervals; filled if significant.

    Args:
      rows: ceilings.

    Returns:
      An SVG; empty if there is no ISC.
    """
    own = rows[(rows.kind == ISC[0]) & (rows.subject == tables.GROUP) & (rows.target != "")]
    own = own[own.value.notna()]
    if own.empty:
        return b""
    rois = list(dict.fromkeys(own.roi))
    most = own.groupby("roi").size().max()
    with matplotlib.rc_context(plots.STYLE):
        width = min(max((0.05 * most + 0.5) * len(rois) + 1.5, 5), 16)
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.subplots(1, len(rois), sharey=True, squeeze=False)[0]
        for axis, roi in zip(axes, rois, strict=True):
            part = own[own.roi == roi].sort_values("value", ascending=False)
            x = np.arange(len(part))
            axis.vlines(x, part.ci_low, part.ci_high, color=COLOURS[ISC[0]], lw=0.8)
            sure = (part.p_adjusted <= LEVEL).to_numpy()
            for mark, face in ((sure, COLOURS[ISC[0]]), (~sure, "#ffffff")):
                axis.plot(
                    *(x[mark], part.value.to_numpy()[mark], "o"),
                    ms=3,
                    color=COLOURS[ISC[0]],
                    markerfacecolor=face,
                    lw=0,
                )
            axis.axhline(0, color="#cccccc", lw=0.8, zorder=0)
            axis.set_title(roi)
            axis.set_xlabel("targets" if len(part) > 1 else "")
            axis.set_xticks([])
        axes[0].set_ylabel("ISC (leave one out)")
        return plots.svg(figure)


def extrapolation(rows: pd.DataFrame, curves: pd.DataFrame) -> bytes:
    """Draw scores against the number of subjects, fitted curves and where they lead.

    Args:
      rows: ceilings.
      curves: columns kind, roi, num_subjects, what ("scores" or "fitted"), r.

    Returns:
      An SVG, one panel per ROI.
    """
    rois = list(dict.fromkeys(curves.roi))
    whole = rows[(rows.subject == tables.GROUP) & (rows.target == "")]
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(max(2.2 * len(rois) + 2.6, 5.5), 3.2), layout="constrained")
        axes = figure.subplots(1, len(rois), sharey=True, squeeze=False)[0]
        for axis, roi in zip(axes, rois, strict=True):
            for kind in dict.fromkeys(curves.kind):
                own = curves[(curves.roi == roi) & (curves.kind == kind)]
                fitted, scores = (own[own.what == x] for x in ("fitted", "scores"))
                axis.plot(fitted.num_subjects, fitted.r, color=COLOURS[kind], lw=1.2, label=kind)
                axis.plot(scores.num_subjects, scores.r, "o", color="#000000", ms=3)
                end = whole[(whole.kind == kind) & (whole.roi == roi)]
                for one in end.itertuples():
                    axis.axhline(one.value, color=COLOURS[kind], lw=0.8, ls=":")
                    axis.axhspan(one.ci_low, one.ci_high, color=COLOURS[kind], alpha=0.12, lw=0)
            axis.set_xscale("log")
            axis.set_title(roi)
            axis.set_xlabel("subjects")
            largest = curves.num_subjects.max() / 2
            ticks = [x for x in (2, 5, 10, 20, 50, 100, 200) if x <= 2 * largest]
            axis.set_xticks(ticks, [str(x) for x in ticks])
            axis.minorticks_off()
        axes[0].set_ylabel("Pearson r, median over targets")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return plots.svg(figure)


def page(
    rows: pd.DataFrame,
    found: Sequence[str],
    drawn: dict[str, bytes],
    provenance: str,
    confidence: float,
) -> str:
    """Render the page.

    Args:
      rows: ceilings.
      found: from `remarks`.
      drawn: from `figures`.
      provenance: preformatted text.
      confidence: of the intervals.
    """
    dataset = rows.dataset.iloc[0]
    table = of_rois(rows)
    texts = {
        "rois": "Points: every ceiling that is a correlation, in each region, with intervals.",
        "isc": "Points: correlation with the mean of the others of every target, in order of size; "
        f"filled where the adjusted p is at most {LEVEL}.",
        "extrapolation": "Points: how well subjects are predicted from others, against their "
        "number. Lines: fitted curves. Dotted, with a band: where they lead, and its interval.",
    }
    sections = [
        html.Section("What to know first", text=found or ["Nothing is undefined."]),
        html.Section(
            "Regions",
            tables=[(f"Each kind of ceiling. Intervals of {confidence:.0%}.", table)],
            figures=[(texts[name], svg) for name, svg in drawn.items()],
        ),
        html.Section(
            "What each kind means",
            text=[f"{kind}: {KINDS[kind]}." for kind in dict.fromkeys(table.kind)],
        ),
    ]
    lead = (
        f"{dataset}: {rows.num_samples.iloc[0]} samples, {int(table.num_subjects.max())} subjects. "
        "What any model can reach, given how noisy the responses are; nothing is clipped."
    )
    return html.page(f"Noise ceilings: {dataset}", lead, sections, provenance)
