"""Units that a localiser chose -> tables, figures, a summary, and sections of the page."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxalign.reporting import html
from jaxalign.reporting.pages import plots

COLOURS = {"language": plots.COLOURS["network"], "random": plots.COLOURS["untrained"]}
_SETS = (
    "t: Welch's, of |activation| to sentences against non-words, mean over the units of a set. "
    "Chosen units have a high t on the items that chose them by chance alone, so: units chosen by "
    "every second item (or the rest), their t on those items (half t) and on the others (held out "
    "half t), beside which stands that of all units that were not chosen. Half the items make t "
    "smaller by about sqrt(2)."
)
_LAYERS = "Units of each layer: how many were chosen, their share of the layer, their mean t."


class Units(NamedTuple):
    """Of one network, layer by layer; layer 0 is the embedding."""

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
                "num": int(own.sum()),
                "share": float(own.mean()),
                "mean_t": float(t[layer, own].mean()) if own.any() else np.nan,
            }
            for name, mask in masks.items()
            for layer, own in enumerate(mask)
        ]
    )


def sets(layers: pd.DataFrame, networks: Mapping[str, Units]) -> pd.DataFrame:
    """Compare language-selective with random units: one row per network and set.

    Args:
      layers: from `by_layer`, with `half_t_chosen`, `half_t_held_out` and `half_t_rest` (fields of
        `core.localizer.HalfT`), network after network.
      networks: the same networks in their order.
    """
    own = layers.drop_duplicates(["model", "control_of"])
    found = []
    for row, (name, units) in zip(own.itertuples(), networks.items(), strict=True):
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


def layer_bars(networks: Mapping[str, Units]) -> bytes:
    """Draw how many units of each set lie in each layer, a panel for each network.

    Args:
      networks: by name.

    Returns:
      An SVG.
    """
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(3 * len(networks) + 1, 2.5), layout="constrained")
        axes = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for axis, (name, units) in zip(axes, networks.items(), strict=True):
            places = np.arange(len(units.t))
            for i, (kind, colour) in enumerate(COLOURS.items()):
                counts = getattr(units, kind).sum(axis=1)
                axis.bar(places - 0.2 + 0.4 * i, counts, 0.38, color=colour, label=kind)
            axis.set_title(name, loc="left", fontsize=8)
            axis.set_xlabel("layer")
            axis.set_xticks(places[:: max(len(places) // 8, 1)])
        axes[0].set_ylabel("units")
        axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return plots.svg(figure)


def histograms(networks: Mapping[str, Units]) -> bytes:
    """Draw how t is distributed over all units, and over those of each set.

    Args:
      networks: by name.

    Returns:
      An SVG.
    """
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(3 * len(networks) + 1, 2.5), layout="constrained")
        axes = figure.subplots(1, len(networks), squeeze=False)[0]
        for axis, (name, units) in zip(axes, networks.items(), strict=True):
            every = units.t[~np.isnan(units.t)]
            edges = np.histogram_bin_edges(every, 40)
            axis.hist(every, edges, density=True, color="#c8c8c8", label="all")
            for kind, colour in COLOURS.items():
                own = units.t[getattr(units, kind)]
                axis.hist(
                    own, edges, density=True, histtype="step", lw=1.5, color=colour, label=kind
                )
            axis.axvline(0, color="#000000", lw=0.8, ls=":")
            axis.set_title(name, loc="left", fontsize=8)
            axis.set_xlabel("t, sentences against non-words")
        axes[0].set_ylabel("density")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return plots.svg(figure)


def summary(layers: pd.DataFrame, found: pd.DataFrame, paths: Mapping[str, pathlib.Path]) -> str:
    """Say in a few lines which units were chosen, and where the masks are.

    Args:
      layers: as of `sets`.
      found: from `sets`.
      paths: of each network's masks.
    """
    lines = []
    for (name, path), (_, own) in zip(
        paths.items(), layers.groupby(["model", "control_of"], sort=False), strict=True
    ):
        language, random = (found[(found.model == name) & (found.units == x)] for x in COLOURS)
        language, random = language.iloc[0], random.iloc[0]
        counts = own[own.units == "language"]
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
            f"{path}.",
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


def sections(
    found: Mapping[str, pd.DataFrame], drawn: Mapping[str, bytes], *, embedding: bool
) -> list[html.Section]:
    """Return the sections of the page.

    Args:
      found: `layers` and `units`.
      drawn: `layers` and `t`.
      embedding: whether units of layer 0 could be chosen.
    """
    layers = found["layers"].loc[:, lambda x: ~x.columns.str.startswith("half_t")]
    layers = layers.assign(model=(layers.model + " " + layers.control_of).str.strip())
    return [
        html.Section(
            "Language-selective against random units",
            tables=[(_SETS, found["units"])],
            figures=[
                (
                    "Histograms: t of all units, of language-selective and of random ones, a "
                    "panel for each network.",
                    drawn["t"],
                )
            ],
        ),
        html.Section(
            "Layers",
            tables=[(_LAYERS, layers.drop(columns="control_of"))],
            figures=[
                (
                    "Bars: language-selective and random units in each layer, a panel for each "
                    "network.",
                    drawn["layers"],
                )
            ],
        ),
        html.Section(
            "Methods",
            text=[
                "Welch's t over items of the size of each unit's activation, sentences against "
                "strings of non-words; the units of the largest t over all layers"
                f"{'' if embedding else ' above the embedding'} are language-selective, as many "
                "of the others, drawn at random, are their control (AlKhamissi et al. 2025; items "
                "in the format of Fedorenko et al. 2010). A network with random weights has such "
                "units too wherever the two lists differ in their tokens: compare it."
            ],
        ),
    ]
