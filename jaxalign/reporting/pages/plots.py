"""What figures drawn by matplotlib share: colours, style, profiles of layers, SVG."""

import io

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.core.inference import stats
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


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
