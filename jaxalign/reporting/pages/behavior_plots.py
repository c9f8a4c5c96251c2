"""Scores of reading times -> figures, as SVG."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxalign.reporting import behavior_rows
from jaxalign.reporting.pages import plots

# Networks in turn; published surprisal and further networks take the later ones.
_NETWORKS = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#332288", "#44AA99")
_CONTROLS = {
    "untrained": plots.COLOURS["untrained"],
    "length": plots.COLOURS["length"],
    "log_frequency": plots.COLOURS["frequency"],
    "position": plots.COLOURS["shifted"],
}


def _label(row) -> str:
    return f"{row.model}\nof {row.control_of}" if row.control_of else row.model


def _colours(scores: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each label, the same in all figures."""
    rows = scores.drop_duplicates(["model", "control_of", "context"])
    own = rows[(rows.control_of == "") & (rows.context != behavior_rows.BASELINE)].model
    networks = dict(zip(own, [_NETWORKS[i % len(_NETWORKS)] for i in range(len(own))], strict=True))
    return {
        _label(row): networks[row.model] if row.model in networks else _CONTROLS[row.model]
        for row in rows.itertuples()
    }


def signed(offset: int) -> str:
    """Return an offset in words as text."""
    return f"{offset:+d}" if offset else "0"


def _panels(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return title and rows of each data set."""
    return [
        (f"{dataset}\n{behavior_rows.who(own.iloc[0])}", own)
        for dataset, own in scores.groupby("dataset", sort=False)
    ]


def correlations(scores: pd.DataFrame) -> bytes:
    """Draw |r| of every source of surprisal and of the controls, a panel for each data set.

    Bars have 95 % intervals; the band is the ceiling with its interval, where it is defined.

    Args:
      scores: rows of the stage behavior.

    Returns:
      An SVG.
    """
    colours = _colours(scores)
    rows = scores[(scores.measure == behavior_rows.CORRELATION) & (scores.offset == 0)]
    panels = _panels(rows)
    labels = list(colours)
    with matplotlib.rc_context(plots.STYLE):
        size = (2.7 * len(panels) + 1.2, 0.36 * len(labels) + 1.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (title, own) in zip(axes, panels, strict=True):
            for row in own.itertuples():
                y, reach = labels.index(_label(row)), [row.value - row.ci_low]
                reach = [reach, [row.ci_high - row.value]]
                axis.barh(
                    y, row.value, 0.7, xerr=reach, color=colours[labels[y]], error_kw={"lw": 0.8}
                )
            ceiling = own.iloc[0]
            if np.isfinite(ceiling.ceiling):
                axis.axvline(ceiling.ceiling, color=plots.COLOURS["ceiling"], lw=1, ls=":")
                axis.axvspan(
                    ceiling.ceiling_low, ceiling.ceiling_high, color="#000000", alpha=0.12, lw=0
                )
                axis.annotate(
                    "ceiling",
                    (ceiling.ceiling, 1),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="bottom",
                    fontsize=7,
                )
            axis.set_title(title, loc="left", fontsize=8, pad=14)
            axis.set_xlabel("|r| with mean reading times")
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].invert_yaxis()
        return plots.svg(figure)


def offsets(scores: pd.DataFrame) -> bytes:
    """Draw r of reading times with the surprisal of words before and after, data set by data set.

    Args:
      scores: rows of the stage behavior.

    Returns:
      An SVG.
    """
    colours = _colours(scores)
    rows = scores[
        (scores.measure == behavior_rows.CORRELATION) & (scores.context != behavior_rows.BASELINE)
    ]
    panels = _panels(rows)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(2.5 * len(panels) + 1.6, 2.7), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, own) in zip(axes, panels, strict=True):
            for _, line in own.groupby(["model", "control_of"], sort=False):
                line = line.sort_values("offset")
                label = _label(line.iloc[0])
                # The interval of |r|, with the sign of r.
                ends = [line.ci_low, line.ci_high] * np.sign(line.r).to_numpy()
                axis.plot(line.offset, line.r, color=colours[label], marker="o", ms=3, label=label)
                axis.fill_between(line.offset, *ends, color=colours[label], alpha=0.15, lw=0)
            axis.axhline(0, color="#cccccc", lw=0.8, zorder=0)
            axis.set_xticks(sorted(set(own.offset)), map(signed, sorted(set(own.offset))))
            axis.set_xlabel("surprisal of the word at")
            axis.set_title(title, loc="left", fontsize=8)
        axes[0].set_ylabel("Pearson r")
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside right upper", frameon=False)
        return plots.svg(figure)


def gains(scores: pd.DataFrame, stories: pd.DataFrame) -> bytes:
    """Draw gains in log-likelihood, in nats per 1000 times: held out as bars, in sample as lines.

    A panel for each data set, and for the times of single participants; dots are held-out stories.

    Args:
      scores: rows of the stage behavior.
      stories: the same, story by story.

    Returns:
      An SVG.
    """
    colours = _colours(scores)
    rows = scores[scores.measure == behavior_rows.GAIN]
    labels = [x for x in colours if x in {_label(row) for row in rows.itertuples()}]
    panels = [
        (f"{title}\n{'mean' if times == behavior_rows.MEAN else 'single'} times", own)
        for title, both in _panels(rows)
        for times, own in both.groupby("times", sort=False)
    ]
    dots = stories[
        (stories.measure == behavior_rows.GAIN) & (stories.evaluation == behavior_rows.HELD_OUT)
    ]
    with matplotlib.rc_context(plots.STYLE):
        size = (2.4 * len(panels) + 1.2, 0.4 * len(labels) + 1.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, own) in zip(axes, panels, strict=True):
            first = own.iloc[0]
            beside = dots[(dots.dataset == first.dataset) & (dots.times == first.times)]
            for row in own.itertuples():
                y = labels.index(_label(row))
                if row.evaluation != behavior_rows.HELD_OUT:
                    ends = [y - 0.4, y + 0.4]
                    label = "in sample" if y == 0 else None
                    axis.plot([1000 * row.value] * 2, ends, color="#000000", lw=1.2, label=label)
                    continue
                reach = [[row.value - row.ci_low], [row.ci_high - row.value]]
                axis.barh(
                    y,
                    1000 * row.value,
                    0.7,
                    xerr=1000 * np.array(reach),
                    color=colours[labels[y]],
                    error_kw={"lw": 0.8},
                )
                mine = (beside.model == row.model) & (beside.control_of == row.control_of)
                values = 1000 * beside[mine].value
                label = "held-out stories (bar: all of them)" if y == 0 else None
                places = [y + 0.25] * len(values)
                axis.plot(
                    values,
                    places,
                    "o",
                    color="#555555",
                    ms=4,
                    markeredgecolor="#ffffff",
                    markeredgewidth=0.5,
                    label=label,
                )
            axis.axvline(0, color="#999999", lw=0.8, zorder=0)
            axis.set_title(title, loc="left", fontsize=7)
            axis.set_xlabel("nats per 1000 times")
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].invert_yaxis()
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower left", ncols=2, frameon=False, fontsize=7)
        return plots.svg(figure)
