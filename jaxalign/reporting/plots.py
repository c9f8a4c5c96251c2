"""Score rows -> figures, as SVG."""

import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.core import stats
from jaxalign.reporting import tables

# The network and each control keep theirs everywhere. Those of the usual controls are colour-blind
# safe (Okabe and Ito 2008), and so are few others beside them.
COLOURS = {
    "network": "#0072B2",
    "untrained": "#E69F00",
    "shifted": "#999999",
    "word_rate": "#D55E00",
    "word_length": "#CC79A7",
    "position": "#009E73",
    "static_embedding": "#56B4E9",
    "random_embedding": "#F0E442",
    "shuffled": "#C8C8C8",
    "length": "#8C510A",
    "sentence_length": "#882255",
    "sentence_position": "#117733",
    "frequency": "#332288",
    "word_vectors": "#44AA99",
    "oasm": "#AA4499",
    "ceiling": "#000000",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names may hold a dollar sign
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jaxalign",  # the same figure is the same file
}


def layer_profiles(rows: pd.DataFrame, model: str) -> bytes:
    """Draw scores against layers, one column per ROI: group above, subjects below.

    Args:
      rows: score rows of one data set.
      model: the network; its controls come along.

    Returns:
      An SVG.
    """
    own = rows[(rows.model == model) & (rows.control_of == "") | (rows.control_of == model)]
    rois = list(dict.fromkeys(own.roi))
    levels = [
        ("mean response of the group", own[own.subject == tables.GROUP]),
        ("participants (mean, 95 % interval)", own[own.subject != tables.GROUP]),
    ]
    levels = [(title, frame) for title, frame in levels if len(frame)]
    with matplotlib.rc_context(STYLE):
        width = max(2.1 * len(rois) + 1.6, 4.5)
        figure = Figure(figsize=(width, 2.3 * len(levels) + 0.6), layout="constrained")
        axes = figure.subplots(len(levels), len(rois), sharex=True, sharey="row", squeeze=False)
        for axis, roi in zip(axes[0], rois, strict=True):
            axis.set_title(roi)
        for line, (title, frame) in zip(axes, levels, strict=True):
            for axis, roi in zip(line, rois, strict=True):
                profile(axis, frame[frame.roi == roi], model)
            line[0].set_ylabel(f"Pearson r\n{title}")
        for axis in axes[-1]:
            axis.set_xlabel("layer")
        entries = {}
        for axis in axes.flat:  # what one panel lacks another may have
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False)
        return svg(figure)


def profile(axis: Axes, frame: pd.DataFrame, model: str) -> None:
    """Draw scores against layers: a network with its interval, and its controls.

    Args:
      axis: to draw on.
      frame: score rows of one ROI, of the group or of subjects; where scores have no folds, as
        those of similarity, their intervals are over subjects alone.
      model: the network.
    """
    if frame.empty:  # a region that some subject lacks has no group
        return
    num_layers = int(frame.num_layers.max())
    for name, features in frame.groupby("model", sort=False):
        colour = COLOURS["network" if name == model else name]
        scores = features.pivot(index="subject", columns="layer", values="score")
        if int(features.num_layers.max()) == 0:
            axis.axhline(scores[0].mean(), color=colour, lw=1, ls="--", label=name)
            continue
        intervals = [_interval(features[features.layer == layer]) for layer in scores]
        axis.plot(
            scores.columns,
            [x.mean for x in intervals],
            color=colour,
            marker="o",
            ms=3,
            lw=2 if name == model else 1,
            label=name,
        )
        if len(scores) > 1 and name == model:
            low, high = [x.low for x in intervals], [x.high for x in intervals]
            axis.fill_between(scores.columns, low, high, color=colour, alpha=0.15, lw=0)
    ceiling = frame[frame.model == model].ceiling.mean()
    if np.isfinite(ceiling):
        axis.axhline(ceiling, color=COLOURS["ceiling"], lw=1, ls=":", label="noise ceiling")
    axis.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    axis.set_xticks(range(0, num_layers + 1, max(num_layers // 6, 1)))


def _interval(rows: pd.DataFrame) -> stats.Interval:
    if "fold_scores" in rows:
        return tables.interval(rows.fold_scores)
    return stats.mean_interval(rows.score.to_numpy(float))


def roi_bars(rows: pd.DataFrame) -> bytes:
    """Draw each network beside its controls, ROI by ROI, with layers chosen inside the training.

    Bars are means over subjects with 95 % intervals; the band is the interval of the subjects'
    ceilings.

    Args:
      rows: score rows of one data set.

    Returns:
      An SVG.
    """
    scores = tables.nested_layer(rows)
    scores = scores[scores.subject != tables.GROUP]
    models = list(dict.fromkeys(scores[scores.control_of == ""].model))
    rois = list(dict.fromkeys(scores.roi))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(max(1.5 * len(rois) + 2.4, 5), 2.6 * len(models)), layout="constrained"
        )
        axes = figure.subplots(len(models), 1, squeeze=False, sharex=True)[:, 0]
        for axis, model in zip(axes, models, strict=True):
            own = scores[
                (scores.model == model) & (scores.control_of == "") | (scores.control_of == model)
            ]
            names = list(dict.fromkeys(own.model))
            step = 0.8 / len(names)
            for i, name in enumerate(names):
                for x, roi in enumerate(rois):
                    found = tables.interval(own[(own.model == name) & (own.roi == roi)].fold_scores)
                    axis.bar(
                        x - 0.4 + (i + 0.5) * step,
                        found.mean,
                        0.9 * step,
                        yerr=[[found.mean - found.low], [found.high - found.mean]],
                        error_kw={"lw": 0.8},
                        color=COLOURS["network" if name == model else name],
                        label=name if x == 0 else None,
                    )
            for x, roi in enumerate(rois):
                network = own[(own.model == model) & (own.roi == roi)]
                band = tables.interval(network.fold_ceilings)
                if band.n > 1:
                    axis.fill_between(
                        [x - 0.42, x + 0.42], band.low, band.high, color="#000000", alpha=0.25, lw=0
                    )
                    axis.plot([x - 0.42, x + 0.42], [band.mean] * 2, color="#000000", lw=1, ls=":")
            axis.set_xticks(range(len(rois)), rois)
            axis.axhline(0, color="#cccccc", lw=0.8, zorder=0)
            axis.set_ylabel("Pearson r")
            axis.set_title(model, loc="left")
            axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return svg(figure)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
