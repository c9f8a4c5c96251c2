"""Units that a localiser chose -> tables, charts, what the run prints, and the page."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, Panels, tip
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

COLOURS = {"language": charts.COLOURS["network"], "random": charts.COLOURS["untrained"]}
_ALL = "all"
_NUM_BINS = 40
_SETS = (
    "t: Welch's, of |activation| to sentences against non-words, mean over the units of a set. "
    "Chosen units have a high t on the items that chose them by chance alone, so: units chosen by "
    "every second item (or the rest), their t on those items (half t) and on the others (held out "
    "half t), compared with that of all units that were not chosen. Half the items make t "
    "smaller by about sqrt(2)."
)
_LAYERS = "Units of each layer: how many were chosen, their share of the layer, their mean t."


class Units(NamedTuple):
    """The units of one network, layer by layer; layer 0 is the embedding."""

    t: Float[np.ndarray, "L u"]  # NaN: undefined, or not compared
    language: Bool[np.ndarray, "L u"]
    random: Bool[np.ndarray, "L u"]


def by_layer(
    masks: Mapping[str, Bool[np.ndarray, "L u"]], t: Float[np.ndarray, "L u"]
) -> pd.DataFrame:
    """Count the units of each set in each layer.

    Args:
      masks: by name of the set.
      t: of all units.
    """
    return pd.DataFrame(
        [
            {
                "units": name,
                "layer": layer,
                "num": int(part.sum()),
                "share": float(part.mean()),
                "mean_t": float(t[layer, part].mean()) if part.any() else np.nan,
            }
            for name, mask in masks.items()
            for layer, part in enumerate(mask)
        ]
    )


def sets(layers: pd.DataFrame, networks: Mapping[str, Units]) -> pd.DataFrame:
    """Compare language-selective with random units: one row per network and set.

    Args:
      layers: from `by_layer`, with `half_t_chosen`, `half_t_held_out` and `half_t_rest` (fields of
        `core.localizer.HalfT`), network after network.
      networks: the same networks in their order.
    """
    part = layers.drop_duplicates(["model", "control_of"])
    found = []
    for row, (name, units) in zip(part.itertuples(), networks.items(), strict=True):
        for kind in COLOURS:
            t = units.t[getattr(units, kind)]
            found.append(
                {
                    "model": name,
                    "units": kind,
                    "num": len(t),
                    "mean_t": float(t.mean()),
                    "min_t": float(t.min()),
                    "max_t": float(t.max()),
                    "half_t": row.half_t_chosen if kind == "language" else np.nan,
                    "held_out_half_t": row.half_t_held_out
                    if kind == "language"
                    else row.half_t_rest,
                }
            )
    return pd.DataFrame(found)


def layer_bars(layers: pd.DataFrame) -> Chart:
    """Draw how many units of each set lie in each layer, a panel for each network.

    Args:
      layers: as of `sets`.
    """
    data = layers.assign(network=_network(layers))
    data = data[["network", "units", "layer", "num", "share", "mean_t"]]
    networks = list(dict.fromkeys(data.network))
    most = int(data.num.max())
    counts = list(range(0, most + 1, max(most // 4, 1)))  # Vega's own ticks may be halves
    legend = alt.Legend(title="units")
    chart = (
        alt.Chart()
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("units:N", sort=list(COLOURS)),
            y=alt.Y("num:Q", title="units", axis=alt.Axis(values=counts)),
            color=alt.Color("units:N", scale=charts.scale(COLOURS), legend=legend),
            tooltip=[
                tip("network", digits=""),
                tip("units", digits=""),
                tip("layer", digits="d"),
                tip("num", "number", "d"),
                tip("share", "of the layer", ".1%"),
                tip("mean_t", "mean t", ".2f"),
            ],
        )
        .properties(height=180)
    )
    text = (
        "Bars: language-selective and random units in each layer, a panel for each of "
        f"{', '.join(networks)}."
    )
    chart = charts.facet(chart, "network", networks)
    panels = Panels(len(networks), 220, left=60)
    return charts.finish("layers", "Units in each layer", text, chart, data, panels)


def histograms(networks: Mapping[str, Units]) -> Chart:
    """Draw how t is distributed over all units, and over those of each set.

    Args:
      networks: by name.
    """
    found = []
    for network, units in networks.items():
        every = units.t[~np.isnan(units.t)]
        edges = np.histogram_bin_edges(every, _NUM_BINS)
        for kind, values in (
            (_ALL, every),
            *((x, units.t[getattr(units, x)]) for x in COLOURS),
        ):
            heights, _ = np.histogram(values, edges, density=True)
            found.append(
                pd.DataFrame(
                    # The outline goes down to zero where the last bin ends.
                    {"t_from": edges, "t_to": [*edges[1:], edges[-1]], "density": [*heights, 0.0]}
                ).assign(network=network, units=kind, _drawn=[*[False] * _NUM_BINS, True])
            )
    data = pd.concat(found, ignore_index=True)
    data = data[["network", "units", "t_from", "t_to", "density", "_drawn"]]
    colours = {_ALL: charts.COLOURS["shuffled"]} | COLOURS
    tips = [
        tip("units", digits=""),
        tip("t_from", "t from", ".2f"),
        tip("t_to", "t to", ".2f"),
        tip("density"),
    ]
    base = alt.Chart().encode(
        x=alt.X("t_from:Q", title="t, sentences against non-words"),
        y=alt.Y("density:Q", title="density", axis=alt.Axis(tickCount=4)),
        color=alt.Color("units:N", scale=charts.scale(colours), legend=charts.line_legend("units")),
    )
    bars = (
        base.transform_filter(f"datum.units == '{_ALL}' && !datum._drawn")
        .mark_rect(opacity=0.55)
        .encode(x2="t_to:Q", y2=alt.datum(0), tooltip=tips)
    )
    outlines = base.transform_filter(f"datum.units != '{_ALL}'").mark_line(
        interpolate="step-after", strokeWidth=2, aria=False
    )
    zero = alt.Chart().mark_rule(strokeDash=[2, 3], aria=False).encode(x=alt.datum(0))
    chart = alt.layer(bars, outlines, zero).properties(height=190)
    names = list(networks)
    text = (
        "Histograms: t of all units (filled), of language-selective and of random ones (outlines), "
        f"a panel for each of {', '.join(names)}."
    )
    chart = charts.facet(chart, "network", names)
    return charts.finish(
        "t", "Which t units have", text, chart, data, Panels(len(names), 200, each=60)
    )


def _network(layers: pd.DataFrame) -> pd.Series:
    return (layers.model + " " + layers.control_of).str.strip()


def summary(layers: pd.DataFrame, found: pd.DataFrame, paths: Mapping[str, pathlib.Path]) -> str:
    """Say in a few lines which units were chosen, and where the masks are.

    Args:
      layers: as of `sets`.
      found: from `sets`.
      paths: of each network's masks.
    """
    lines = []
    for (name, path), (_, part) in zip(
        paths.items(), layers.groupby(["model", "control_of"], sort=False), strict=True
    ):
        language, random = (found[(found.model == name) & (found.units == x)] for x in COLOURS)
        language, random = language.iloc[0], random.iloc[0]
        counts = part[part.units == "language"]
        counts = ", ".join(f"{row.layer}: {row.num}" for row in counts.itertuples())
        lines += [
            "",
            f"Language-selective units of {name}: {language.num}, t from {language.min_t:.2f} to "
            f"{language.max_t:.2f} (sentences against non-words, |activation|).",
            f"  Mean t {language.mean_t:.2f}, random units {random.mean_t:.2f}. Chosen by half of "
            f"the items: {language.half_t:.2f} on these, {language.held_out_half_t:.2f} on the "
            f"others (units that were not chosen: {random.held_out_half_t:.2f}).",
            f"  By layer: {counts}.",
            f"  Masks [layer, unit] `language`, `random` (as many of the others), and `t` are in "
            f"{path} of the work directory.",
        ]
    return "\n".join(lines) + "\n"


def lead(found: pd.DataFrame) -> str:
    """Say what was found for the first network."""
    language, random = found.iloc[0], found.iloc[1]
    return (
        f"{language.num} language-selective units of {language.model} have a mean t of "
        f"{language.mean_t:.2f}, as many random ones {random.mean_t:.2f}; chosen by half of the "
        f"items, {language.half_t:.2f} on these and {language.held_out_half_t:.2f} on the others."
    )


class Found(NamedTuple):
    """What was found of all networks."""

    layers: pd.DataFrame  # as of `sets`
    networks: Mapping[str, Units]  # in the same order
    paths: Mapping[str, pathlib.Path]  # of each network's masks
    embedding: bool  # whether units of layer 0 could be chosen


def page(found: Found, provenance: str) -> Page:
    """Lay the units of all networks out as a page.

    Args:
      found: of all networks.
      provenance: preformatted text.
    """
    compared = sets(found.layers, found.networks)
    layers = found.layers.loc[:, lambda x: ~x.columns.str.startswith("half_t")]
    layers = layers.assign(model=_network(layers)).drop(columns="control_of")
    methods = (
        "Welch's t over items of the size of each unit's activation, sentences against strings of "
        "non-words; the units of the largest t over all layers"
        f"{'' if found.embedding else ' above the embedding'} are language-selective, as many of "
        "the others, drawn at random, are their control (AlKhamissi et al. 2025; items in the "
        "format of Fedorenko et al. 2010). A network with random weights has such units too "
        "wherever the two lists differ in their tokens: compare it."
    )
    return Page(
        title="Language-selective units",
        lead=lead(compared),
        sections=[
            Section(
                "Language-selective against random units",
                tables=[(_SETS, compared)],
                charts=[histograms(found.networks)],
            ),
            Section("Layers", tables=[(_LAYERS, layers)], charts=[layer_bars(found.layers)]),
            Section("Methods", text=[methods]),
        ],
        tables={"layers": found.layers, "units": compared},
        summary=summary(found.layers, compared, found.paths),
        provenance=provenance,
        unprinted=("layers",),
    )
