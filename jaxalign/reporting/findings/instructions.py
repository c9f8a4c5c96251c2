"""Scores of one model under several instructions -> which one wins where, and what two share."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.core.metrics import mean_defined
from jaxalign.core.scores import alignment
from jaxalign.core.solver import partition as partition_lib
from jaxalign.reporting import tables

# What is true of an ROI or of a target: one instruction is best and better than nothing, several
# are equally good, none is better than nothing, or a score is undefined, so that nothing is known.
WINNER, TIE, NONE, UNDEFINED = "winner", "tie", "none", "undefined"
LEVEL = 0.05  # of p, from which on a winner is clear
# What instructions ask for. The names of the groups are those of Oota et al. (2025), who do not say
# which instruction is of which: by code, this is our reading of their words.
CONCEPTS = {
    "Count": ("IU3",),
    "Color/Texture": ("IU1",),
    "Recognition": ("IU2", "VQ1", "VQ2"),
    "Positional": ("VQ3", "VR"),
    "General Scene": ("IC", "SR", "CR"),
}
PARTS = ("unique_first", "shared", "unique_second")

_PLACE = ["dataset", "model", "roi"]
_WAYS = ["protocol", "metric", "context", "pooling"]  # alike in scores that are compared


def winner_map(
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    targets: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Average the scores of each instruction in each ROI over subjects.

    Args:
      rows: score rows in the schema of `io.rows`; those without an instruction, of controls, of the
        group's mean, and without scores of folds are left out.
      labels: short names of instructions, by their text; the text itself where none is given.
      targets: of single targets, with a column `normalized`: `normalized` is then the mean over
        them, and their subjects, of score by ceiling, and not the ratio of means.

    Returns:
      One row per dataset, model, ROI and instruction: `score` is the mean over subjects with the
      layer chosen inside the training data, with a 95 % interval over subjects and folds
      (`ci_low`, `ci_high`); `normalized` is the mean of score by ceiling over the subjects
      whose ceiling is not below `CEILING_FLOOR`, NaN if there is none; `num_below_floor` counts
      the subjects who are left out of it; `rank` is 1 for the highest score of the ROI, and equal
      ones have the same.
    """
    found = []
    for (*place, instruction), region in _nested(rows).groupby(
        [*_PLACE, "instruction"], sort=False
    ):
        is_r = tables.are_correlations(region)
        scores = tables.interval(region.fold_scores, is_correlation=is_r)
        is_low, ratios = alignment.ratio(
            region.score.to_numpy(float), region.ceiling.to_numpy(float)
        )
        found.append(
            dict(zip(_PLACE, place, strict=True))
            | {
                "instruction": instruction,
                "label": (labels or {}).get(instruction, instruction),
                "score": scores.mean,
                "ci_low": scores.low,
                "ci_high": scores.high,
                "normalized": float(mean_defined(ratios, axis=0)),
                "num_below_floor": int(is_low.sum()),
                "num_subjects": scores.n,
            }
        )
    columns = [*_PLACE, "instruction", "label", "score", "ci_low", "ci_high", "normalized"]
    table = pd.DataFrame(found, columns=[*columns, "num_below_floor", "num_subjects"])
    if targets is not None and "normalized" in targets:
        keys = [*_PLACE, "instruction"]
        own = targets.groupby([*keys, "subject"], sort=False).normalized.mean()
        means = own.groupby(level=keys, sort=False).mean().rename("_of_targets")
        table = table.join(means, on=keys)
        table["normalized"] = table.pop("_of_targets")
    table["rank"] = table.groupby(_PLACE, sort=False).score.rank(method="min", ascending=False)
    return table


def winners(
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    margins: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Find the instruction that predicts each ROI best, and its margin over the second.

    Both are picked on the scores that are shown, so that the margin is above 0 by construction:
    among equally good instructions too. Its interval says whether it would be for other subjects
    and stimuli, if these two had been named before: of voxels of noise under ten instructions it
    lay above 0 in 1 of 300 simulations, with 4 subjects and 5 folds.

    Args:
      rows: see `winner_map`.
      labels: likewise.
      margins: tests of the two best of each ROI, with `winner`, `second`, `p` and `num_swaps`
        (`core.inference.swaps`), which need no second subject or test set.

    Returns:
      One row per dataset, model and ROI, of the subjects who have a defined score under every
      instruction that has any: `outcome` is "winner"; "tie" if the highest means are equal; "none"
      if no mean is above 0; "undefined" if no subject has scores of two instructions. Of a winner,
      `winner`, `score`, `second`, `second_score`, `margin` (mean of the paired differences) with
      its 95 % interval over subjects and folds, whether that is above 0 (`is_clear`), and
      `num_agree`, the subjects in whom it is best; otherwise empty, NaN and False. With `margins`
      also `p` and `num_swaps`, and `is_clear` says whether p is at most .05.
    """
    found = []
    for place, region in _nested(rows).groupby(_PLACE, sort=False):
        scores = region.pivot(index="subject", columns="instruction", values="score")
        scores = scores[region.instruction.unique()].dropna(axis=1, how="all").dropna()
        row = dict(zip(_PLACE, place, strict=True)) | {
            "outcome": UNDEFINED,
            "num_subjects": len(scores) if scores.shape[1] else 0,
        }
        if scores.shape[1] > 1 and len(scores):
            row |= _winner(scores, region.set_index(["instruction", "subject"]).fold_scores)
        found.append(row)
    columns = [*_PLACE, "outcome", "winner", "score", "second", "second_score", "margin"]
    columns += ["ci_low", "ci_high", "num_agree", "num_subjects"]
    table = pd.DataFrame(found, columns=columns)
    table.insert(len(columns) - 2, "is_clear", table.ci_low > 0)
    for name in ("winner", "second"):
        named = table[name].where(table[name].notna(), "")
        table[f"{name}_label"] = named.map(lambda x: (labels or {}).get(x, x))
        table[name] = named
    if margins is not None:
        keys = [*_PLACE, "winner", "second"]
        tests = margins[[*keys, "p", "num_swaps"]]
        table = table.merge(tests, on=keys, how="left")
        table["is_clear"] = np.where(table.p.notna(), table.p <= LEVEL, table.is_clear)
    return table


def _winner(scores, folds):
    means = scores.mean().sort_values(ascending=False, kind="stable")
    if not means.iloc[0] > 0:
        return {"outcome": NONE}
    if means.iloc[0] == means.iloc[1]:
        return {"outcome": TIE}
    best, second = means.index[:2]
    margin = tables.interval(
        folds[best].reindex(scores.index) - folds[second].reindex(scores.index)
    )
    return {
        "outcome": WINNER,
        "winner": best,
        "score": means.iloc[0],
        "second": second,
        "second_score": means.iloc[1],
        "margin": margin.mean,
        "ci_low": margin.low,
        "ci_high": margin.high,
        "num_agree": int((scores.drop(columns=best).max(axis=1) < scores[best]).sum()),
    }


def target_winners(targets: pd.DataFrame) -> pd.DataFrame:
    """Find the instruction that predicts each target best.

    Args:
      targets: columns dataset, model, subject, roi, target, instruction and score.

    Returns:
      One row per target: `outcome` is "winner", "tie" if the highest scores are equal, "none" if
      no score is above 0, "undefined" if one is NaN; `instruction` that of a winner, else "".
    """
    keys = [*_PLACE[:2], "subject", "roi", "target"]
    order = targets.instruction.unique()
    wide = targets.pivot(index=keys, columns="instruction", values="score")[order]
    values = wide.to_numpy(float)
    defined = np.isfinite(values).all(axis=1)
    filled = np.where(defined[:, None], values, -np.inf)
    best = filled.max(axis=1)
    is_tied = (filled == best[:, None]).sum(axis=1) > 1
    outcome = np.select([~defined, ~(best > 0), is_tied], [UNDEFINED, NONE, TIE], WINNER)
    table = wide.index.to_frame(index=False)
    table["outcome"] = outcome
    named = np.asarray(order, object)[filled.argmax(axis=1)]
    table["instruction"] = np.where(outcome == WINNER, named, "")
    table["score"] = np.where(outcome == WINNER, best, np.nan)
    return table


def shares(targets: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Count the targets that each instruction wins, and those that none does.

    Ties, targets without a score above 0 and undefined ones are no instruction's, and counted
    apart; shares are of all targets, so that those of an ROI add up to 1.

    Args:
      targets: see `target_winners`.
      labels: see `winner_map`.

    Returns:
      One row per dataset, model, ROI and instruction, and per other outcome (`instruction` ""):
      `share`, the mean over subjects of each one's share, with Student's t interval, and
      `num_targets`, the number over all subjects.
    """
    every = targets.instruction.unique().tolist()
    kinds = [(WINNER, x) for x in every] + [(x, "") for x in (TIE, NONE, UNDEFINED)]
    found = []
    for place, region in target_winners(targets).groupby(_PLACE, sort=False):
        for outcome, instruction in kinds:
            hit = (region.outcome == outcome) & (region.instruction == instruction)
            each = hit.groupby(region.subject, sort=False).mean()
            share = stats.mean_interval(each.to_numpy(float))
            found.append(
                dict(zip(_PLACE, place, strict=True))
                | {
                    "outcome": outcome,
                    "instruction": instruction,
                    "label": (labels or {}).get(instruction, instruction) or outcome,
                    "share": share.mean,
                    "ci_low": share.low,
                    "ci_high": share.high,
                    "num_targets": int(hit.sum()),
                    "num_subjects": share.n,
                }
            )
    columns = [*_PLACE, "outcome", "instruction", "label", "share", "ci_low", "ci_high"]
    return pd.DataFrame(found, columns=[*columns, "num_targets", "num_subjects"])


def partitions(table: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Average over subjects what two instructions explain alone and share.

    Args:
      table: one row per dataset, model, subject, ROI, measure, `first` and `second`, with the
        columns of `PARTS`.
      labels: see `winner_map`.

    Returns:
      One row per dataset, model, ROI, measure, pair and part (`unique_first`, `shared`,
      `unique_second`): `value`, the mean over subjects who have it, with Student's t interval, and
      `percent` of the three values' sum. Percentages add up to 100; negative parts are shown as
      they are, and all three are NaN where the sum is not above 0.
    """
    found = []
    keys = [*_PLACE, "measure", "first", "second"]
    for key, region in table.groupby(keys, sort=False):
        means = {part: stats.mean_interval(region[part].to_numpy(float)) for part in PARTS}
        sizes = {frozenset({part}): np.array(means[part].mean) for part in PARTS}
        percent = partition_lib.percentages(sizes)
        for part, mean in means.items():
            row = dict(zip(keys, key, strict=True))
            for side in ("first", "second"):
                row[f"{side}_label"] = (labels or {}).get(row[side], row[side])
            found.append(
                row
                | {
                    "part": part,
                    "value": mean.mean,
                    "ci_low": mean.low,
                    "ci_high": mean.high,
                    "percent": float(percent[frozenset({part})]),
                    "num_subjects": mean.n,
                }
            )
    columns = [*keys, "first_label", "second_label", "part", "value", "ci_low", "ci_high"]
    return pd.DataFrame(found, columns=[*columns, "percent", "num_subjects"])


def side_by_side(parts: pd.DataFrame) -> pd.DataFrame:
    """Put the three parts of each pair into one row, as charts of them take it.

    Args:
      parts: from `partitions`.

    Returns:
      One row per dataset, model, ROI, measure and pair: `panel` (the ROI), `label` ("IC and IU2"),
      `first` and `second` (short names), and of each of `PARTS` its value and, under its name with
      "_percent" behind, its percentage.
    """
    keys = [*_PLACE, "measure", "first_label", "second_label"]
    index = pd.MultiIndex.from_frame(parts[keys].drop_duplicates())
    wide = parts.pivot(index=keys, columns="part", values=["value", "percent"])
    table = pd.DataFrame(index=index)
    for kind, ending in (("value", ""), ("percent", "_percent")):
        for part in PARTS:
            table[f"{part}{ending}"] = wide[kind, part].reindex(index) if len(wide) else []
    table = table.reset_index().rename(columns={"first_label": "first", "second_label": "second"})
    table.insert(0, "panel", table.roi)
    table.insert(1, "label", table["first"] + " and " + table["second"])
    return table


def asked(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep the scores of models that were given several instructions.

    Args:
      rows: score rows.

    Returns:
      Those of folds with all units of each layer, of each model that has two instructions or more
      on a data set; none of controls, of the group's mean or without an instruction. Also
      sentences on models that were scored otherwise under one instruction than under another,
      which are left out.
    """
    kept, left_out = [_used(rows).iloc[:0]], []
    for (dataset, model), of_model in _used(rows).groupby(["dataset", "model"], sort=False):
        if of_model.instruction.nunique() < 2:
            continue
        each = of_model.groupby("instruction", sort=False)
        of_model = pd.concat([tables.main_way(x, instruction=str(name)) for name, x in each])
        ways = [name for name in _WAYS if of_model[name].nunique() > 1]
        if of_model.groupby(["subject", "roi"]).folds_hash.nunique().max() > 1:
            ways.append("folds")
        if ways:
            left_out.append(
                f"Instructions of {model} on {dataset} are not compared, as their scores differ "
                f"in {', '.join(ways)} too."
            )
        else:
            kept.append(of_model)
    return pd.concat(kept), left_out


def concepts(table: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of instructions that ask for the same, group by group.

    Args:
      table: from `winner_map`, with codes of the paper as labels.

    Returns:
      One row per dataset, model, ROI and group of `CONCEPTS`: means of `score` and `normalized`
      over its instructions, `instructions` (their codes), and `rank`, 1 for the highest score of
      the ROI. Groups of which nothing was asked are left out.
    """
    group = {code: name for name, codes in CONCEPTS.items() for code in codes}
    known = table.assign(concept=table.label.map(group)).dropna(subset=["concept"])
    keys = [*_PLACE, "concept"]
    means = known.groupby(keys, sort=False)
    found = means[["score", "normalized"]].mean().reset_index()
    found["instructions"] = means.label.agg(", ".join).to_numpy()
    found["rank"] = found.groupby(_PLACE, sort=False).score.rank(method="min", ascending=False)
    return found


def of_run(
    rows: pd.DataFrame,
    targets: pd.DataFrame | None = None,
    partition: pd.DataFrame | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    beside: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, pd.DataFrame]:
    """Return all tables about instructions, by the names of their files.

    Args:
      rows: score rows; see `winner_map`.
      targets: scores of single targets, where there are any; see `target_winners`.
      partition: of pairs, where there are any; see `partitions`.
      labels: see `winner_map`.
      beside: "margins", see `winners`, and "answers": columns about answers by dataset, model and
        instruction, which stand beside its scores.
    """
    beside = beside or {}
    scores = winner_map(rows, labels=labels, targets=targets)
    if "answers" in beside:
        answers = beside["answers"].drop(columns="fingerprint", errors="ignore")
        scores = scores.merge(answers, on=["dataset", "model", "instruction"], how="left")
    found = {
        "instruction_map": scores,
        "instruction_winners": winners(rows, labels=labels, margins=beside.get("margins")),
    }
    if len(of_concepts := concepts(scores)) and of_concepts.concept.nunique() > 1:
        found["instruction_concepts"] = of_concepts
    if targets is not None:
        found["instruction_shares"] = shares(targets, labels=labels)
    if partition is not None and len(partition):
        found["instruction_partition"] = partitions(partition, labels=labels)
    return found


def _nested(rows: pd.DataFrame) -> pd.DataFrame:
    """Choose layers inside the training data, for each instruction by itself."""
    parts = [
        tables.nested_layer(part).assign(instruction=name)
        for name, part in _used(rows).groupby("instruction", sort=False)
    ]
    columns = [*_PLACE, "instruction", "subject", "metric", "score", "fold_scores", "ceiling"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _used(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[
        (rows.instruction != "")
        & (rows.control_of == "")
        & (rows.subject != tables.GROUP)
        & (rows.fold_scores.map(len) > 0)
    ]
