"""Values of CKA and RSA -> tables, figures, what the run prints, and sections of the page."""

import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxalign.core.inference import stats
from jaxalign.reporting import html
from jaxalign.reporting import tables as score_tables
from jaxalign.reporting.pages import plots

ALL_LAYERS = -1  # in the place of a layer: units chosen from all of them
MEASURES = {
    "cka": "linear CKA",
    "cka_debiased": "linear CKA, debiased",
    "rsa_pearson": "RSA, 1 - Pearson r",
    "rsa_cosine": "RSA, 1 - cosine",
}
_KEYS = ["dataset", "model", "control_of", "units"]
_BEST = (
    "Best layer of the mean over subjects (of the group's mean response where there is no "
    "subject), a maximum and so optimistic, with a 95 % t interval over subjects; untrained: the "
    "best layer of the same network with random weights."
)
_MATRIX = (
    "Heat map: debiased linear CKA of each layer with each other layer of {}, on the samples that "
    "are compared with the responses."
)


def tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lay values out by layer, and name the best layers.

    Args:
      scores: of the stage similarity, one row per model, layer, subject, ROI and measure.

    Returns:
      `profiles`: for each model, ROI, measure and layer the group's value, and the mean over
      subjects with its interval; `best`: their best layers, beside those of untrained networks.
    """
    found = []
    for key, own in scores.groupby([*_KEYS, "roi", "measure", "layer"], sort=False):
        subjects = own[own.subject != score_tables.GROUP].value.to_numpy(float)
        group = own[own.subject == score_tables.GROUP].value.to_numpy(float)
        interval = stats.mean_interval(subjects)
        found.append(
            dict(zip([*_KEYS, "roi", "measure", "layer"], key, strict=True))
            | {
                "group": float(group[0]) if len(group) else np.nan,
                "subjects_mean": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "num_subjects": interval.n,
            }
        )
    profiles = pd.DataFrame(found)
    return {"profiles": profiles, "best": _best(profiles)}


def _best(profiles: pd.DataFrame) -> pd.DataFrame:
    values = profiles.subjects_mean.where(profiles.subjects_mean.notna(), profiles.group)
    best = {}
    for key, own in profiles.assign(value=values).groupby([*_KEYS, "roi", "measure"], sort=False):
        own = own.dropna(subset="value")
        best[key] = own.loc[own.value.idxmax()] if len(own) else None
    found = []
    for key, row in best.items():
        dataset, model, control_of, units, roi, measure = key
        if control_of:
            continue
        beside = best.get((dataset, "untrained", model, units, roi, measure))
        defined = row is not None
        found.append(
            {
                "dataset": dataset,
                "model": model,
                "units": units,
                "roi": roi,
                "measure": measure,
                "layer": str(row.layer) if defined and row.layer != ALL_LAYERS else "–",
                **{
                    name: float(row[name]) if defined else np.nan
                    for name in ("value", "ci_low", "ci_high", "group")
                },
                "untrained": np.nan if beside is None else float(beside.value),
                "num_subjects": int(row.num_subjects) if defined else 0,
            }
        )
    return pd.DataFrame(found)


def figures(scores: pd.DataFrame, matrix: pd.DataFrame) -> dict[str, bytes]:
    """Draw the profile of each model over layers, and its matrix of layers x layers.

    Args:
      scores: as of `tables`.
      matrix: one row per network and pair of layers; may be empty.
    """
    found = {}
    for model in dict.fromkeys(scores[scores.control_of == ""].model):
        own = scores[(scores.model == model) & (scores.control_of == "")]
        own = pd.concat([own, scores[scores.control_of == model]])
        if (own.layer != ALL_LAYERS).all():
            found[f"profiles_{_file(model)}"] = profiles(own, model)
        pairs = matrix[(matrix.model == model) | (matrix.control_of == model)]
        if len(pairs):
            found[f"layers_{_file(model)}"] = layer_matrix(pairs)
    return found


def _file(model: str) -> str:
    return re.sub(r"[^\w.-]+", "_", model)


def profiles(scores: pd.DataFrame, model: str) -> bytes:
    """Draw similarity against layers: a line of panels per measure, a column per ROI.

    Means over subjects with 95 % intervals, or the group where there is no subject.

    Args:
      scores: of one network, and of the same untrained.
      model: its name.

    Returns:
      An SVG.
    """
    rois, measures = (list(dict.fromkeys(scores[x])) for x in ("roi", "measure"))
    subjects = scores[scores.subject != score_tables.GROUP]
    shown = subjects if len(subjects) else scores
    shown = shown.rename(columns={"value": "score"}).assign(ceiling=np.nan)
    with matplotlib.rc_context(plots.STYLE):
        size = (max(1.8 * len(rois) + 1.8, 4.5), 1.8 * len(measures) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(measures), len(rois), sharex=True, sharey="row", squeeze=False)
        for axis, roi in zip(axes[0], rois, strict=True):
            axis.set_title(roi)
        for line, measure in zip(axes, measures, strict=True):
            for axis, roi in zip(line, rois, strict=True):
                frame = shown[(shown.roi == roi) & (shown.measure == measure)]
                if frame.score.notna().any():
                    plots.profile(axis, frame, model)
                else:
                    axis.text(0.5, 0.5, "undefined", transform=axis.transAxes, ha="center")
            line[0].set_ylabel(MEASURES[measure].replace(", ", "\n"))
        for axis in axes[-1]:
            axis.set_xlabel("layer")
        entries = {}
        for axis in axes.flat:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False)
        return plots.svg(figure)


def layer_matrix(pairs: pd.DataFrame) -> bytes:
    """Draw debiased CKA of layers x layers, of a network and of the same untrained.

    Args:
      pairs: one row per network and pair of layers, either way round.

    Returns:
      An SVG.
    """
    networks = list(pairs.groupby(["model", "control_of"], sort=False))
    num = pairs.layer.nunique()
    with matplotlib.rc_context(plots.STYLE):
        side = min(max(0.36 * num, 2.0), 6.0)
        figure = Figure(figsize=(side * len(networks) + 1.4, side + 0.7), layout="constrained")
        axes = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for axis, ((model, control_of), own) in zip(axes, networks, strict=True):
            values = own.pivot(index="layer", columns="other", values="cka_debiased")
            image = axis.imshow(
                values.to_numpy(), vmin=min(0.0, values.min().min()), vmax=1, origin="lower"
            )
            if num <= 13:
                for (row, column), value in np.ndenumerate(values.to_numpy()):
                    colour = "#000000" if value > 0.6 else "#ffffff"
                    text = f"{value:.2f}".replace("0.", ".", 1)
                    axis.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
            step = max(num // 12, 1)
            ticks = range(0, num, step)
            axis.set_xticks(ticks, values.columns[::step])
            axis.set_yticks(ticks, values.index[::step])
            axis.set_title(f"{model} {control_of}".strip(), loc="left", fontsize=8)
            axis.set_xlabel("layer")
            axis.spines[:].set_visible(False)
        axes[0].set_ylabel("layer")
        figure.colorbar(image, ax=axes, label="linear CKA, debiased", shrink=0.8)
        return plots.svg(figure)


def remarks(table: pd.DataFrame) -> list[str]:
    """Say what is undefined in the values of one network, and why."""
    found = []
    undefined = table[table.value.isna()]
    single = undefined[undefined.measure.str.startswith("rsa") & (undefined.num_targets == 1)]
    if len(single):
        found.append(
            f"RSA is undefined in {len(single[['subject', 'roi']].drop_duplicates())} of "
            f"{len(table[['subject', 'roi']].drop_duplicates())} subjects and ROIs: one target "
            "is no pattern."
        )
    if len(undefined) > len(single):
        found.append(
            f"{len(undefined) - len(single)} of {len(table)} values are undefined: features or "
            "responses are constant, or samples too few."
        )
    return found


def summary(scores: pd.DataFrame) -> str:
    """Name the best layer of each network, ROI and measure, of the group or of subjects."""
    networks = scores.groupby(["model", "control_of"], sort=False)
    return "".join(_summary(f"{m} {of}".strip(), own) for (m, of), own in networks)


def _summary(name: str, table: pd.DataFrame) -> str:
    units = table.units.iloc[0]
    chosen = units != "all"
    what = f"{units} units" if chosen else "best layers"
    lines = ["", f"Similarity of {name} with {table.dataset.iloc[0]}, {what}:"]
    own = table[table.subject == score_tables.GROUP]
    who = "the group's mean response"
    if own.value.isna().all():
        own, who = table[table.subject != score_tables.GROUP], "mean over subjects"
    layers = own.groupby(["roi", "measure", "layer"], sort=False).value.mean().reset_index()
    for roi, part in layers.groupby("roi", sort=False):
        cells = []
        for measure in dict.fromkeys(table.measure):
            values = part[part.measure == measure].set_index("layer").value.dropna()
            where = "" if chosen else f" (layer {values.idxmax()})" if len(values) else ""
            best = f"{values.max():.3f}{where}" if len(values) else "undefined"
            cells.append(f"{measure} {best}")
        lines.append(f"  {roi}: " + ", ".join(cells))
    caution = "" if chosen else "; a maximum over layers is optimistic"
    lines.append(f"  Of {who}{caution}.")
    return "\n".join([*lines, *(f"  {remark}" for remark in remarks(table))]) + "\n"


def lead(best: pd.DataFrame) -> str:
    """Say where the first measure that is defined is highest."""
    defined = best.dropna(subset="value")
    if defined.empty:
        return "No value is defined."
    own = defined[defined.measure == defined.measure.iloc[0]]
    row = own.loc[own.value.idxmax()]
    where = f"layer {row.layer}" if row.units == "all" else f"its {row.units} units"
    beside = "" if np.isnan(row.untrained) else f" (untrained {row.untrained:.3f})"
    return (
        f"On {row.dataset}, {row.model} is most alike {row.roi} by {MEASURES[row.measure]}: "
        f"{row.value:.3f}{beside} at {where}."
    )


def sections(
    scores: pd.DataFrame,
    found: Mapping[str, pd.DataFrame],
    drawn: Mapping[str, bytes],
    left_out: Sequence[str],
) -> list[html.Section]:
    """Return the sections of the page.

    Args:
      scores: as of `tables`.
      found: from `tables`.
      drawn: from `figures`.
      left_out: subjects of whom every target is constant.
    """
    said = [
        f"{f'{model} {of}'.strip()}: {remark}"
        for (model, of), own in scores.groupby(["model", "control_of"], sort=False)
        for remark in remarks(own)
    ]
    if left_out:
        said.insert(0, f"Left out, because every target is constant: {', '.join(left_out)}.")
    row = scores.iloc[0]
    comparisons = ", ".join(x for x in dict.fromkeys(scores.comparison) if x)
    methods = (
        f"{row.num_samples} samples; context {row.context}, tokens pooled by {row.pooling}. "
        "Nothing is fitted, and so nothing is held out. CKA compares inner products of samples; "
        "it grows with the number of units even if nothing is shared, which the debiased form "
        "corrects (Kornblith et al. 2019; Song et al. 2012). RSA compares dissimilarities of "
        f"samples{f' by {comparisons} correlation' if comparisons else ''} "
        "(Kriegeskorte et al. 2008). Samples near in time are alike on both sides, whatever the "
        "text: compare with the untrained network."
    )
    profiles_ = [
        (f"Lines: similarity against layers of {name.removeprefix('profiles_')}.", svg)
        for name, svg in drawn.items()
        if name.startswith("profiles_")
    ]
    matrices = [
        (_MATRIX.format(name.removeprefix("layers_")), svg)
        for name, svg in drawn.items()
        if name.startswith("layers_")
    ]
    return [
        *([html.Section("What to know first", text=said)] if said else []),
        html.Section(
            "Model and brain",
            tables=[(_BEST, found["best"].drop(columns="dataset"))],
            figures=profiles_,
        ),
        *([html.Section("Layers and layers", figures=matrices)] if matrices else []),
        html.Section("Methods", text=[methods]),
    ]
