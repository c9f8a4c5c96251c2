"""Rows of the solver bench -> a table, remarks and figures."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from jaxalign.reporting.pages import plots

OURS = "jaxalign"
HIMALAYA = ("himalaya_ridge", "himalaya_kernel")
COLOURS = {
    OURS: plots.COLOURS["network"],
    "himalaya_ridge": plots.COLOURS["untrained"],
    "himalaya_kernel": plots.COLOURS["word_rate"],
    "sklearn": plots.COLOURS["position"],
    "numpy": plots.COLOURS["shifted"],
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
    table = pd.DataFrame(
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
    return f"{_LEGEND}\n\n{table.to_string(index=False)}"


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
            f"({ours.product_gflop_per_s:.4g} GFLOP/s); peak memory beyond the inputs "
            f"{ours.peak_mb:.0f} MB, compilation included"
        )
        if pd.notna(ours.get("device_peak_mb")):
            text += f", on the device {ours.device_peak_mb:.0f} MB with the inputs"
        if ours.on_disk:
            text += "; targets read from disk"
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


def scaling(rows: pd.DataFrame) -> bytes:
    """Draw time against each size of a sweep, on logarithmic axes, with the fitted slopes.

    Marks are medians, bars reach from the least to the most of the repeats.

    Args:
      rows: of one sweep.

    Returns:
      An SVG.
    """
    axes_names = list(dict.fromkeys(rows.axis))
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(2.4 * len(axes_names) + 0.6, 2.8), layout="constrained")
        panels = figure.subplots(1, len(axes_names), sharey=True, squeeze=False)[0]
        for panel, axis in zip(panels, axes_names, strict=True):
            _panel(panel, rows[rows.axis == axis])
            panel.set_xlabel(f"{AXES[axis]} ({axis})")
        panels[0].set_ylabel("time (s)")
        return plots.svg(figure)


def _panel(panel, rows: pd.DataFrame) -> None:
    for fit in slopes(rows).itertuples():
        points = rows[rows.solver == fit.solver].sort_values("size")
        size, colour = points["size"].to_numpy(float), COLOURS[fit.solver]
        median = points.median_s.to_numpy()
        reach = [median - points.min_s.to_numpy(), points.max_s.to_numpy() - median]
        panel.errorbar(size, median, yerr=reach, color=colour, fmt="o", ms=3, lw=1)
        label = f"{fit.solver}, slope {fit.slope:.2f}"
        fitted = np.exp(fit.intercept) * size**fit.slope
        panel.plot(size, fitted, color=colour, lw=1, label=label)
    panel.set_xscale("log")
    panel.set_yscale("log")
    # The sizes that were measured, instead of powers of ten.
    sizes = sorted(set(rows["size"]))
    panel.set_xticks(sizes, [str(x) for x in sizes], minor=False)
    panel.set_xticks([], minor=True)
    # The default writes powers as formulas, which are not parsed here.
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=7)
