"""Rows of the solver bench -> a table, remarks, charts and the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.bench.phases import PHASES
from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, Panels, tip
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

OURS = "jaxalign"
HIMALAYA = ("himalaya_ridge", "himalaya_kernel")
COLOURS: dict[str, str] = {
    OURS: charts.COLOURS["network"],
    "himalaya_ridge": charts.COLOURS["untrained"],
    "himalaya_kernel": charts.COLOURS["word_rate"],
    "sklearn": charts.COLOURS["position"],
    "every_penalty": charts.COLOURS["length"],
    "numpy": charts.COLOURS["shifted"],
}
BUSY_CORES = 0.1  # used by other processes: more, and times are not to be trusted
AXES = {"n": "samples", "p": "features", "v": "targets", "a": "penalties", "k": "outer folds"}

_LEGEND = """\
Times are median, least and most, in seconds; solvers take turns in one process. ratio: median over
jaxalign's. mean_r: held-out Pearson r, mean over targets and folds. same: share of targets x folds
with jaxalign's penalty; untied: the same without ties (two best inner errors within 1e-4), on the
targets that were checked; max_dr: largest difference of r where penalties are equal. ref_*: the
three against float64 NumPy, on the checked targets."""


def heading(machine: Mapping[str, Any]) -> str:
    """Name the machine and the versions in one line.

    Args:
      machine: `cpu`, `num_cores`, `device`, `num_devices` and `versions`.
    """
    versions = ", ".join(f"{name} {x}" for name, x in machine["versions"].items() if x)
    return (
        f"Nested ridge on {machine['cpu']}, {machine['num_cores']} cores; JAX on "
        f"{machine['num_devices']} x {machine['device']}; {versions}"
    )


def cases(rows: pd.DataFrame) -> str:
    """Lay the rows of all cases out as text, with a legend."""
    return f"{_LEGEND}\n\n{_shown(rows).to_string(index=False)}"


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case": rows.name,
            **{x: rows[x].astype(str) for x in ("n", "p", "v", "a", "k", "search", "solver")},
            "runs": rows.num_repeats.astype(str),
            **{x.removesuffix("_s"): rows[x].map(_seconds) for x in ("median_s", "min_s", "max_s")},
            "ratio": _format(rows, "ratio", "{:.2f}"),
            "mean_r": _format(rows, "mean_r", "{:.5f}"),
            "same": _format(rows, "same_share", "{:.2%}"),
            "untied": _format(rows, "same_untied_share", "{:.2%}"),
            "max_dr": _format(rows, "max_dr", "{:.1e}"),
            "ref_same": _format(rows, "reference_same_share", "{:.2%}"),
            "ref_untied": _format(rows, "reference_same_untied_share", "{:.2%}"),
            "ref_max_dr": _format(rows, "reference_max_dr", "{:.1e}"),
        }
    )


def _format(rows: pd.DataFrame, column: str, form: str) -> pd.Series:
    """Format a column that not every case has; a dash for what is undefined."""
    values = rows[column] if column in rows else pd.Series(np.nan, rows.index)
    return values.map(lambda x: "–" if pd.isna(x) else form.format(x))


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def remarks(rows: pd.DataFrame) -> list[str]:
    """Say of each case what its row in the table does not: peers, compilation, FLOP/s, memory."""
    found = []
    for name, case in rows.groupby("name", sort=False):
        ours = case[case.solver == OURS].iloc[0]
        text = (
            f"{name}: first call {_seconds(ours.first_s)} s, of which compilation "
            f"{_seconds(ours.compile_s)} s; {ours.gflop:.4g} GFLOP at {ours.gflop_per_s:.4g} "
            f"GFLOP/s ({ours.evaluations:.2f} of {ours.a} penalties tried), "
            f"{ours.product_share:.0%} of a float32 matrix product "
            f"({ours.product_gflop_per_s:.4g} GFLOP/s, {ours.product_of}); {_phases(ours)}; peak "
            "memory beyond the inputs "
            f"{ours.peak_mb:.0f} MB, compilation included (planned with them: "
            f"{ours.planned_mb:.0f} MB)"
        )
        if pd.notna(ours.get("device_peak_mb")):
            text += f", on the device {ours.device_peak_mb:.0f} MB with the inputs"
        if ours.on_disk:
            text += "; targets read from disk"
        if ours.held_out:
            text += f"; one test set of {ours.held_out} samples, penalties from {ours.k} inner ones"
        if ours.num_layers > 1:
            text += (
                f"; {ours.num_layers} layers take {_seconds(ours.layers_s)} s, "
                f"{ours.layers_s / ours.median_s:.2f} times one"
            )
        rivals = case[case.solver.isin(HIMALAYA)]
        if len(rivals):
            best = rivals.loc[rivals.median_s.idxmin()]
            text += f"; the faster solver of himalaya ({best.solver}) takes {best.ratio:.2f} times"
            text += " as long"
        found.append(
            f"{text}. {int(ours.num_untied)} of {int(ours.num_checked)} checked targets x folds "
            f"are not ties; {int(ours.num_nan)} scores are undefined."
        )
    return found


def _phases(ours: Any) -> str:
    """Say of each phase how long it took, at which share of the rate of a matrix product."""
    said = []
    for phase in PHASES:
        rate = ours[f"{phase}_gflop_per_s"]
        said.append(
            f"{phase} {_seconds(ours[f'{phase}_s'])} s at {rate / ours.product_gflop_per_s:.0%}"
        )
    return ", ".join(said) + " of that rate"


def disturbed(rows: pd.DataFrame) -> list[str]:
    """Warn of times during which other processes were busy."""
    # The kernel counts in hundredths of a second: below a tenth in all, nothing can be said.
    taken = rows.others_cores * rows.median_s * rows.num_repeats
    bad = rows[(rows.others_cores > BUSY_CORES) & (taken > 0.1)]
    return [
        f"DISTURBED: other processes used {row.others_cores:.2f} cores while {row.solver} was "
        f"timed on {row.case} (n={row.n} p={row.p} v={row.v} a={row.a} k={row.k}): these times and "
        "ratios are not valid."
        for row in bad.rename(columns={"name": "case"}).itertuples()
    ]


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Fit time ~ size^slope along each axis, by least squares of the logarithms.

    Args:
      rows: of one sweep.

    Returns:
      One row per axis and solver: `axis`, `solver`, `slope`, `intercept` (natural logarithms).
    """
    found = []
    for (axis, solver), points in rows.groupby(["axis", "solver"], sort=False):
        slope, intercept = np.polyfit(np.log(points["size"]), np.log(points.median_s), 1)
        found.append((axis, solver, float(slope), float(intercept)))
    return pd.DataFrame(found, columns=["axis", "solver", "slope", "intercept"])


def slopes_text(rows: pd.DataFrame) -> str:
    """Lay the slopes of one sweep out as text."""
    lines = [f"{rows.name.iloc[0]}: median time against size, and slope of the logarithms"]
    for fit in slopes(rows).itertuples():
        points = rows[(rows.axis == fit.axis) & (rows.solver == fit.solver)]
        times = ", ".join(
            f"{x}: {_seconds(t)} s" for x, t in zip(points["size"], points.median_s, strict=True)
        )
        lines.append(
            f"  {fit.axis} ({AXES[fit.axis]}), {fit.solver}: slope {fit.slope:.2f} ({times})"
        )
    return "\n".join(lines)


def scaling(rows: pd.DataFrame) -> Chart:
    """Draw time against each size of a sweep, on logarithmic axes, with the fitted slopes.

    Marks are medians, bars reach from the least to the most of the repeats.

    Args:
      rows: of one sweep.
    """
    fits = slopes(rows)
    named = rows.merge(fits, on=["axis", "solver"])
    named["fitted_s"] = np.exp(named.intercept) * named["size"].astype(float) ** named.slope
    named["label"] = [f"{x.solver}, slope {x.slope:.2f}" for x in named.itertuples()]
    columns = ["axis", "label", "solver", "size", "median_s", "min_s", "max_s", "fitted_s"]
    data = named[columns].sort_values("size", kind="stable")
    axes = list(dict.fromkeys(rows.axis))
    panels = [
        _panel(data[data.axis == axis], [data.min_s.min(), data.max_s.max()]) for axis in axes
    ]
    chart = alt.concat(*panels, columns=3, data=charts.DATA).resolve_scale(
        color="independent", y="shared"
    )
    title = f"Time against size: {rows.name.iloc[0]}"
    text = (
        "Time of each solver against size, both logarithmic, a panel for each of "
        f"{', '.join(AXES[x] for x in axes)}: medians, bars from the least to the most of the "
        "repeats, and lines of least squares with their slopes."
    )
    name = f"sweep_{rows.name.iloc[0]}"
    return charts.finish(name, title, text, chart, data, Panels(len(axes), 200, each=70))


def _panel(part: pd.DataFrame, times: list[float]) -> alt.LayerChart:
    axis = part.axis.iloc[0]
    solvers = dict(zip(part.label, part.solver, strict=True))
    colours = {label: COLOURS[solver] for label, solver in solvers.items()}
    legend = charts.line_legend(columns=1)
    base = (
        alt.Chart()
        .transform_filter(alt.FieldEqualPredicate(field="axis", equal=axis))
        .encode(
            # The sizes that were measured, instead of powers of ten.
            x=alt.X(
                "size:Q",
                title=f"{AXES[axis]} ({axis})",
                scale=alt.Scale(type="log", nice=False, padding=10),
                axis=alt.Axis(values=sorted(set(part["size"])), format="d"),
            ),
            color=alt.Color("label:N", scale=charts.scale(colours), legend=legend),
        )
    )
    scale = alt.Scale(type="log", domain=times, nice=False)
    y = alt.Y("median_s:Q", title="time (s)", scale=scale, axis=alt.Axis(tickCount=4))
    whiskers = base.mark_rule(strokeWidth=1.5, aria=False).encode(
        y=alt.Y("min_s:Q", title="time (s)"), y2="max_s:Q"
    )
    lines = base.mark_line(strokeWidth=1.5, aria=False).encode(y="fitted_s:Q")
    points = base.mark_point(filled=True, size=40, opacity=1).encode(
        y=y,
        tooltip=[
            tip("label", "solver", ""),
            tip("size", AXES[axis], "d"),
            tip("median_s", "median, s", ".3~g"),
            tip("min_s", "least, s", ".3~g"),
            tip("max_s", "most, s", ".3~g"),
        ],
    )
    return alt.layer(whiskers, lines, points).properties(height=200)


def page(
    machine: Mapping[str, Any],
    every: pd.DataFrame | None,
    sweeps: Sequence[pd.DataFrame],
    provenance: str,
) -> Page:
    """Lay what was timed on a machine out as a page.

    Args:
      machine: see `heading`.
      every: rows of all cases, if any.
      sweeps: rows of each sweep.
      provenance: preformatted text.
    """
    text, sections, tables = [heading(machine)], [], {}
    if every is not None:
        said = [*disturbed(every), *remarks(every)]
        text += [cases(every), *said]
        tables["cases"] = every
        sections.append(
            Section("Cases", text=said, tables=[(_LEGEND.replace("\n", " "), _shown(every))])
        )
    for rows in sweeps:
        chart = scaling(rows)
        said = disturbed(rows)
        text += [*said, slopes_text(rows)]
        tables[chart.name] = rows
        table = slopes(rows).drop(columns="intercept")
        caption = "Slope of the logarithm of the median time over that of the size."
        sections.append(Section(chart.title, text=said, charts=[chart], tables=[(caption, table)]))
    return Page(
        title="Times of nested ridge",
        lead=text[0],
        sections=sections,
        tables=tables,
        summary="\n\n".join(text) + "\n",
        provenance=provenance,
        unprinted=tuple(tables),
    )
