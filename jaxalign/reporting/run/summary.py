"""The words of a report: remarks, captions, the summary as text, the first sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxalign.reporting import html, tables
from jaxalign.reporting.findings import PRINTED, Found
from jaxalign.reporting.findings.gains import MEAN_OF_DATASETS
from jaxalign.reporting.findings.model_scores import AVERAGE, BEHAVIORAL
from jaxalign.reporting.run import comparisons

GROUP_AND_SUBJECTS = (
    "Group: best layer and its score. Subjects: layer chosen inside the training data."
)
CHECKS = "Published numbers that do not follow from the published tables."
ALIGNMENT = (
    "The one score of the protocol over all subjects: what it reports, the raw score, the ceiling; "
    "of a shuffled protocol also the raw score in contiguous folds of the same data."
)
MARGINS = (
    "Best layer by the mean over subjects, and its margin over the second, with a 95 % interval; "
    "both are picked on the scores shown."
)
CONTROLS = (
    "Layers chosen inside the training data. Subjects: mean of the paired differences, 95 % "
    "interval. Group best: highest score of any layer, a maximum, and so never below layer 0."
)
BEYOND = (
    "R2 out of sample, raw (negative values are not clipped), of the network alone, of all "
    "controls together, and of both with a penalty for each; at the layer that explains most of "
    "the group, a maximum and so optimistic. omega: percent of the network's that the controls "
    "explain too."
)
ORDERS = {
    "shift": "Orders: responses shifted circularly within each run, which keeps their "
    "autocorrelation. Exact for stationary runs.",
    "block": "Orders: blocks of neighbouring samples permuted within each run. What crosses the "
    "edge of a block is lost, so blocks must be long compared with the autocorrelation.",
    "row": "Orders: samples permuted within each run, as if they were independent. For time series "
    "such tests reject far too often.",
}
MODELS = (
    "Layers chosen inside the training data. First minus second, mean over subjects, 95 % interval "
    "over subjects and folds; paired t and Wilcoxon tests over subjects, d_z and rank-biserial "
    "correlation, adjusted over regions by Benjamini-Hochberg; p_over_pairs: p by Holm over the "
    "pairs of a region."
)
SIGNIFICANCE = (
    "Largest score of any layer, against the largest of any layer with responses in each other "
    "order, everything fitted anew. p_adjusted: Benjamini-Hochberg over regions; of single "
    "subjects over subjects and regions, significant at .05. No p is less than 1 / (1 + "
    "num_orders)."
)


def remarks(
    rows: pd.DataFrame,
    left_out: Sequence[str],
    planted: Mapping[str, Any] | None,
    layers: pd.DataFrame,
) -> list[str]:
    """Say in sentences what the tables of an encoding run do not show.

    Args:
      rows: its score rows.
      left_out: subjects without a score.
      planted: settings of a simulation: model, layer and noise_sd; None of real responses.
      layers: margins of layers, as `tables.layer_margins` gives them.
    """
    subjects = [s for s in dict.fromkeys(rows.subject) if s != tables.GROUP]
    said = []
    if left_out:
        said.append(
            f"Left out, {len(left_out)} of {len(subjects) + len(left_out)} subjects, because "
            f"every target is constant: {', '.join(left_out)}."
        )
    if planted is not None:
        said += _planted(rows, planted, layers)
    undefined = int(rows.num_nan.sum())
    if undefined:
        said.append(
            f"{undefined} scores of a target in a fold are undefined; a target with one of them "
            "enters no mean over targets, and a fold without any defined score makes the row's "
            "choice of a layer undefined."
        )
    if len(subjects) == 1:
        said.append(
            f"There is one column of subjects, {subjects[0]!r}: so no group, and no ceiling over "
            "subjects."
        )
    elif tables.GROUP not in set(rows.subject):
        said.append(
            "There is no group, and ceilings are undefined, because no target is there in every "
            "subject under the same roi and name."
        )
    edges = rows[(rows.control_of == "") & (rows.subject != tables.GROUP)]
    # Of a single penalty, each choice is at both ends.
    if not ((edges.alpha_low_share == 1) & (edges.alpha_high_share == 1)).all():
        said.append(
            "Penalties chosen at the ends of the grid, networks only: "
            f"{edges.alpha_low_share.mean():.1%} at the smallest, "
            f"{edges.alpha_high_share.mean():.1%} at the largest."
        )
    return said


def _planted(rows: pd.DataFrame, settings: Mapping[str, Any], layers: pd.DataFrame) -> list[str]:
    model, layer = settings["model"], settings["layer"]
    remarks = [
        f"Planted: layer {layer} of {model}; weights drawn alike for all units, none of them or of "
        f"the leading components preferred; noise {settings['noise_sd']} times the signal."
    ]
    for best in layers[layers.model == model].itertuples():
        hit = "the planted layer" if best.best_layer == layer else f"NOT the planted layer {layer}"
        remarks.append(
            f"Best layer: {best.best_layer} ({hit}), mean {_letter(rows)} over "
            f"{best.num_subjects} participants {best.best_score:.3f}; margin over the second, "
            f"layer {best.second_layer} ({best.second_score:.3f}): "
            f"{best.margin:.3f}{_between(best)}, a 95 % interval over "
            "folds and participants, who share the signal."
        )
    # Ceilings are properties of the responses: any row of a participant has them.
    part = rows[rows.subject != tables.GROUP].drop_duplicates(["subject", "roi"])
    remarks.append(
        f"Planted ceiling (noiseless signal against responses): {part.signal_ceiling.mean():.3f}; "
        f"leave-one-subject-out ceilings of the participants: {part.ceiling.mean():.3f}, from "
        f"{part.ceiling.min():.3f} to {part.ceiling.max():.3f}."
    )
    return remarks


def text(title: str, remarks: Sequence[str], found: Mapping[str, pd.DataFrame]) -> str:
    """Return the summary of a run as text: remarks, then the tables that are there.

    Args:
      title: of the report.
      remarks: sentences.
      found: the tables by name.
    """
    number = lambda x: "–" if x != x else f"{x:.3f}"
    show = lambda table: html.whole(
        table.assign(**{name: table[name].map(html.p_value) for name in table if html.is_p(name)})
    ).to_string(index=False, float_format=number, na_rep="–")
    parts = [
        ": ".join(x for x in (title, ", ".join(dict.fromkeys(found["scores"].dataset))) if x),
        *remarks,
        *(["", ALIGNMENT, show(found["alignment"])] if "alignment" in found else []),
        "",
    ]
    for name, heading, caption in (
        ("rois", "", GROUP_AND_SUBJECTS),
        ("layers", "", MARGINS),
        ("controls", "Model minus control. ", CONTROLS),
        ("models", "Between models. ", MODELS),
        ("significance", "Permutations. ", SIGNIFICANCE),
        ("beyond", "Beyond controls. ", BEYOND),
    ):
        if len(found.get(name, ())):
            parts += [f"{heading}{caption}", show(shown(found[name])), ""]
    if "findings" in found:
        pooled = comparisons.brief(found["findings"])
        parts += ["Findings, pooled over families; all are in findings.csv.", show(pooled), ""]
    if "checks" in found:
        bad = comparisons.failed(found["checks"])
        parts += [CHECKS, show(bad.drop(columns="remark")) if len(bad) else "none", ""]
    return "\n".join(parts)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out of a table what is the same in all rows, or undefined in all."""
    if "group_score" in table and table.group_score.isna().all():
        table = table.drop(columns="group_layer", errors="ignore")
    if "dataset" in table and table.dataset.nunique() == 1:
        table = table.drop(columns="dataset")
    return table.dropna(axis=1, how="all")


def lead(rows: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> str:
    """Name the region that is predicted best, and the controls that score lower there.

    Args:
      rows: score rows with folds, at least one; the first data set counts.
      found: tables of them.
    """
    dataset = rows.dataset.iloc[0]
    letter = _letter(rows[rows.dataset == dataset])
    rois = found["rois"]
    rois = rois[(rois.dataset == dataset) & rois.subjects_score.notna()]
    if rois.empty:
        return ""
    best = rois.sort_values("subjects_score", ascending=False).iloc[0]
    part = found["controls"]
    part = part[(part.dataset == dataset) & (part.model == best.model) & (part.roi == best.roi)]
    part = part[part.control_score.notna()]
    if best.num_subjects == 1:
        return _lead_of_one(best, letter, part)
    ahead = [row.control for row in part.itertuples() if row.ci_low > 0]
    close = [row.control for row in part.itertuples() if row.ci_low <= 0]
    text = (
        f"On {dataset}, {best.model} predicts {best.roi} best: mean {letter} over "
        f"{best.num_subjects} subjects {best.subjects_score:.3f}"
    )
    text += _between(best)
    text += _under(best.subjects_ceiling)
    if not np.isnan(best.group_score):
        text += f"; group {letter} {best.group_score:.3f}{_under(best.group_ceiling)}"
    text += "."
    if ahead:
        text += f" The subjects' interval is above {', '.join(ahead)}"
        text += f", and not above {', '.join(close)}." if close else ": all its controls."
    elif close:
        text += f" The subjects' interval is above none of {', '.join(close)}."
    return text


def _under(ceiling: float) -> str:
    return "" if np.isnan(ceiling) else f", ceiling {ceiling:.3f}"


def _letter(rows: pd.DataFrame) -> str:
    """Return what a sentence calls the scores."""
    letters = {"pearson_r": "r", "r2": "R2"}
    return letters.get(rows.metric.iloc[0], "score") if rows.metric.nunique() == 1 else "score"


def _lead_of_one(best, letter: str, controls: pd.DataFrame) -> str:
    """Name the best region of a single subject, without claims about others."""
    text = f"On {best.dataset}, {best.model} predicts {best.roi} best: "
    text += f"{letter} {best.subjects_score:.3f}."
    if len(controls):
        each = ", ".join(f"{row.control} {row.control_score:.3f}" for row in controls.itertuples())
        text += f" Its controls: {each}."
    return text


def lead_of_models(scores: pd.DataFrame, found: Found | None) -> str:
    """Say what tuning changes, and which model is best on each data set.

    Args:
      scores: score rows, at least one.
      found: findings about them.
    """
    networks = scores[(scores.control_of == "") & scores.score.notna()]
    num = networks.model.nunique()
    said = [f"{num} {'model' if num == 1 else 'models'}."]
    row = None if found is None else comparisons.gain(found.findings)
    if row is not None:
        said.append(
            f"Instruction tuning changes brain alignment by {row.value:+.1f} % ({row.outcome}, "
            f"{row.n} pairs)."
        )
    best = networks.loc[networks.groupby("dataset", sort=False).score.idxmax()]
    for kind, part in (
        ("Best aligned with brains", best[best.metric != BEHAVIORAL]),
        ("With behaviour", best[best.metric == BEHAVIORAL]),
    ):
        each = [f"{x.model} on {x.dataset} ({x.score:.3f})" for x in part.itertuples()]
        said += [f"{kind}: {', '.join(each)}."] if each else []
    return " ".join(said)


def of_findings(found: Found) -> list[str]:
    """Say in plain sentences what a comparison of models has found: gains, and r with size.

    Args:
      found: of `findings.of_run`.
    """
    rows = found.findings
    return [*_gains(rows, _behavioral(found)), *_size(rows)]


def _behavioral(found: Found) -> set[str]:
    part = found.model_scores
    return set(part[part.metric == BEHAVIORAL].dataset)


def _gains(rows: pd.DataFrame, behavioral: set[str]) -> list[str]:
    first = comparisons.gain(rows)
    if first is None:
        return []
    part = rows[(rows.analysis == "gain") & (rows.subset == "all")]
    part = part.set_index(["outcome", "statistic"])
    means = part.xs("mean_percent", level="statistic")
    by_base = part.loc[(first.outcome, "mean_percent_by_base")]
    ahead = part.loc[(first.outcome, "num_higher")]
    interval = ""
    if not np.isnan(by_base.ci_low):
        ends = f"{by_base.ci_low:.1f} to {by_base.ci_high:.1f} %"
        interval = f"; 95 % interval over base models {ends}"
    text = (
        f"Instruction tuning changes brain alignment by {first.value:+.1f} % ({first.outcome}"
        f"{interval}): {ahead.value:.0f} of {first.n} pairs are higher."
    )
    apart = {AVERAGE, PRINTED, MEAN_OF_DATASETS, *behavioral}
    each = [f"{x:+.1f} % on {name}" for name, x in means.value.items() if name not in apart]
    if len(each) > 1:
        text += f" That is {', '.join(each)}."
    for name, kind in ((AVERAGE, "average over data sets"), (PRINTED, "printed average column")):
        if name in means.index:
            text += f" {means.value[name]:+.1f} % on the {kind}."
    said = [text]
    said += [
        f"Behavioural alignment ({name}) changes by {x.value:+.1f} %{_between(x, 1)}"
        f"{'' if np.isnan(x.p) else f'; Wilcoxon p = {x.p:.2g}'}."
        for name, x in means.iterrows()
        if name in behavioral
    ]
    return said


def _between(row, digits: int = 3) -> str:
    """Return the interval of a row in brackets; "" where there is none."""
    if np.isnan(row.ci_low) or np.isnan(row.ci_high):
        return ""
    return f" [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"


def _size(rows: pd.DataFrame) -> list[str]:
    """Put the pooled correlation with size next to those within families."""
    part = rows[(rows.analysis == "correlation") & (rows.predictor == "log10_num_parameters")]
    pooled = comparisons.brief(part)
    if pooled.empty:
        return []
    outcome = pooled.outcome.iloc[0]
    part = comparisons.correlations(part, outcome)
    pooled = part[part.scope == comparisons.POOLED]
    if pooled.empty:  # all are undefined
        return []
    first = pooled.iloc[0]
    within = part[(part.pool == first.pool) & (part.family != "")]
    text = (
        f"Over {first.n} {'models' if first.pool == 'all' else first.pool + ' models'}, "
        f"alignment ({outcome}) goes with size: r = {first.value:.3f}{_between(first)} with the "
        "logarithm of parameters."
    )
    if len(within):
        each = [f"{x.family} {x.value:.3f}{_between(x)}, {x.n} models" for x in within.itertuples()]
        text += f" Within families: {'; '.join(each)}."
    return [text]
