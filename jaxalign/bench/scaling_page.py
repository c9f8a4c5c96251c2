"""Rows of the scaling bench -> tables, what the run prints, and the page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxalign.bench import solver_page
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

AXES = {
    "n": "samples",
    "p": "features",
    "v": "targets",
    "layers": "layers of a network",
    "models": "networks",
}
COSTS = ("flop", "cpu_seconds", "seconds")
_DEVICES = """\
Constant work on each simulated device. program: the solver's targets, or passes of a network, of
which the mesh says whether rows of the batch (data) or layers (model) are divided. collectives: of
the compiled programs, those of a loop once. Devices share the cores of one machine: seconds
of all cores (cpu_seconds) grow with their number, and say nothing of what they would take apart."""
_SIZES = """\
Cost ~ size^exponent along each axis, by least squares of the logarithms, the other sizes staying
where they are. flop: counted from the sizes and from how many penalties were tried; cpu_seconds: of
all cores; memory: most that the process held at the largest size, over that at the smallest."""


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """Fit each cost ~ size^exponent.

    Args:
      rows: of `scaling.measure`; of an axis with one size there is nothing to fit.

    Returns:
      A row for each axis: what it is, its sizes, an exponent for each of `COSTS`, and `memory`, the
      ratio of peaks.
    """
    found = []
    for axis, points in rows[rows.axis != "devices"].groupby("axis", sort=False):
        points = points.sort_values("size")
        if len(points) < 2:
            continue
        size = np.log(points["size"].astype(float))
        sizes = f"{points['size'].iloc[0]} to {points['size'].iloc[-1]}"
        slopes = {x: float(np.polyfit(size, np.log(points[x]), 1)[0]) for x in COSTS}
        memory = float(points.peak_bytes.iloc[-1] / points.peak_bytes.iloc[0])
        found.append({"axis": AXES[str(axis)], "sizes": sizes, **slopes, "memory": memory})
    return pd.DataFrame(found, columns=["axis", "sizes", *COSTS, "memory"])


def page(machine: Mapping[str, Any], rows: pd.DataFrame, provenance: str) -> Page:
    """Lay what was measured on a machine out as a page.

    Args:
      machine: see `solver_page.heading`.
      rows: of all points.
      provenance: preformatted text.
    """
    text = [solver_page.heading(machine).replace("Nested ridge", "Scaling", 1)]
    sections = []
    devices = rows[rows.axis == "devices"]
    if len(devices):
        shown = _of_devices(devices)
        text.append(f"{_DEVICES}\n\n{shown.to_string(index=False)}")
        sections.append(Section("Devices", tables=[(_DEVICES.replace("\n", " "), shown)]))
    fits = exponents(rows)
    if len(fits):
        shown = fits.copy()
        for name in (*COSTS, "memory"):
            shown[name] = fits[name].map("{:.2f}".format)
        text.append(f"{_SIZES}\n\n{shown.to_string(index=False)}")
        sections.append(Section("Sizes", tables=[(_SIZES.replace("\n", " "), shown)]))
    return Page(
        title="How cost grows",
        lead=text[0],
        sections=sections,
        tables={"points": rows},
        summary="\n\n".join(text) + "\n",
        provenance=provenance,
        unprinted=("points",),
    )


def _of_devices(rows: pd.DataFrame) -> pd.DataFrame:
    number = rows["data"] * rows["model"]
    return pd.DataFrame(
        {
            "program": rows.program,
            "devices": number,
            "mesh": [f"({a}, {b})" for a, b in zip(rows["data"], rows["model"], strict=True)],
            "collectives": rows.collectives,
            "flop of each": (rows.flop / number).map("{:.3g}".format),
            "seconds": rows.seconds.map("{:.3g}".format),
            "cpu_seconds": rows.cpu_seconds.map("{:.3g}".format),
        }
    ).sort_values(["program", "mesh"], ascending=[False, True], kind="stable")
