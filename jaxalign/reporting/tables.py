"""Score rows -> tidy tables: best layers and their margins, models against controls."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.core.scores import layers
from jaxalign.core.solver import partition as partition_lib
from jaxalign.errors import InputError

GROUP = "group"
# The embedding of the network itself is one of its controls: the difference is what context adds.
EMBEDDING = "layer 0"

_FEATURES = ["dataset", "model", "control_of"]
_PLACE = ["subject", "roi"]


def check_one_way(rows: pd.DataFrame, features: Sequence[str] = tuple(_FEATURES)) -> None:
    """Refuse a model that was scored in several ways: its rows are not layers of one network.

    Args:
      rows: score rows, or of another schema of `io.rows` with layers.
      features: columns that identify a model or control.

    Raises:
      InputError: if a model has several protocols, metrics, instructions, contexts or poolings on
        a data set, several folds for a subject and ROI, or several rows for a layer of these (of
        several numbers of units, for instance).
    """
    # What must be alike, and within what: layers may differ in width, and subjects in their folds.
    alike = dict.fromkeys(("protocol", "metric", "instruction", "context", "pooling"), [])
    alike |= {"folds_hash": _PLACE, "num_units": [*_PLACE, "layer"]}
    alike = {name: keys for name, keys in alike.items() if name in rows}
    if _is_one_way(rows, features, alike):
        return
    found = {}
    for name, within in alike.items():
        keys = [*features, *within]
        ways = rows[[*keys, name]].drop_duplicates()
        ways = ways[ways.duplicated(keys, keep=False)]
        if len(ways):
            found[name] = ways
    twice = rows[rows.duplicated([*features, *_PLACE, "layer"])]
    row = next(iter(found.values()), twice).iloc[0]
    control_of = f" (control of {row.control_of})" if row.get("control_of") else ""
    several = []
    for name, ways in found.items():
        ways_of = ways[(ways[list(features)] == row[list(features)]).all(axis=1)]
        values = ", ".join(repr(x) for x in dict.fromkeys(ways_of[name].tolist()))
        several += [f"{name} {values}"] if values else []
    if not several:
        several = [f"twice layer {row.layer}, subject {row.subject!r}, ROI {row.roi!r}"]
    raise InputError(
        "rows of one model must be its layers, subjects and ROIs, scored in one way: "
        f"{row.model}{control_of} on {row.dataset} has {'; '.join(several)}. Keep the rows of one "
        "way, or give each way a model name of its own."
    )


def _is_one_way(
    rows: pd.DataFrame, features: Sequence[str], alike: Mapping[str, Sequence[str]]
) -> bool:
    """Whether columns are alike within others, and no layer is there twice.

    Of codes of the values: comparing rows of a table takes ten times as long.
    """
    names = dict.fromkeys([*features, *_PLACE, "layer", *alike])
    codes = {name: pd.factorize(rows[name])[0].astype(np.int64) + 1 for name in names}

    def together(groups: np.ndarray, *others: str) -> np.ndarray:
        for name in others:
            pairs = groups * (codes[name].max(initial=0) + 1) + codes[name]
            groups = np.unique(pairs, return_inverse=True)[1]
        return groups

    count = lambda groups: groups.max(initial=-1) + 1
    own = together(np.zeros(len(rows), np.int64), *features)
    for name, within in alike.items():
        groups = together(own, *within)
        if count(together(groups, name)) > count(groups):
            return False
    return bool(count(together(own, *_PLACE, "layer")) == len(rows))


def names_with_instructions(rows: pd.DataFrame) -> pd.DataFrame:
    """Call models that were given several instructions by model and instruction.

    Args:
      rows: with the columns model, control_of and instruction.
    """
    is_control = rows.control_of != ""
    whose = rows.control_of.where(is_control, rows.model)
    several = rows.groupby(whose).instruction.transform("nunique") > 1
    asked = whose + ": " + rows.instruction
    return rows.assign(
        model=rows.model.where(~several | is_control, asked),
        control_of=rows.control_of.where(~several | ~is_control, asked),
    )


def main_way(rows: pd.DataFrame, *, instruction: str = "") -> pd.DataFrame:
    """Keep of models that were scored in several ways the one that stands for them.

    With all units of each layer, not as many as a narrower model has; of several instructions with
    the one that is asked for, as `findings.Options` has it.

    Args:
      rows: score rows.
      instruction: counts where a model was given several.

    Raises:
      InputError: if a model was given several instructions, and not this one.
    """
    several = rows.groupby(_FEATURES).instruction.transform("nunique") > 1
    kept = rows[~several | (rows.instruction == instruction)]
    lost = rows[~rows.model.isin(kept.model)]
    if len(lost):
        model = lost.model.iloc[0]
        given = sorted(set(lost[lost.model == model].instruction))
        raise InputError(
            f"instruction must be one that {model} was given: {instruction!r} is not among {given}."
        )
    one_layer = [*_FEATURES, "layer"]
    kept = kept[kept.num_units == kept.groupby(one_layer).num_units.transform("max")]
    # A run that draws as many units as a model has finds the same again, and so it does of features
    # that have no units to draw.
    alike = [*one_layer, *_PLACE, "protocol", "metric", "context", "pooling", "folds_hash", "score"]
    return kept[~kept.duplicated(alike)]


def interval(folds: pd.Series, *, is_correlation: bool = False) -> stats.Interval:
    """Return the mean of scores of subjects and folds, with a 95 % interval for new ones of both.

    Args:
      folds: a list over folds for each subject; see `stats.crossed_interval`.
      is_correlation: of scores, see `are_correlations`; differences are none.
    """
    values = np.array(folds.tolist(), float)
    values = values if len(values) else np.empty((0, 0))
    return stats.crossed_interval(values, is_correlation=is_correlation)


def are_correlations(rows: pd.DataFrame) -> bool:
    """Whether the scores of rows are correlations, whose intervals lie within -1..1.

    Args:
      rows: score rows.
    """
    return bool((rows.metric == "pearson_r").all())


def layer_margins(rows: pd.DataFrame) -> pd.DataFrame:
    """Find the layer that predicts subjects best, and its margin over the second.

    Args:
      rows: score rows in the schema of `io.rows`.

    Returns:
      One row per dataset, model and ROI, for networks (not controls) with several layers:
      `best_layer` has the highest mean over the subjects who have a score for every layer that
      is defined at all;
      `margin` is the mean over them of its score minus that of `second_layer`, with a 95 %
      interval over subjects and folds.

    Raises:
      InputError: if a model was scored in several ways (`check_one_way`).
    """
    check_one_way(rows)
    networks = rows[(rows.control_of == "") & (rows.subject != GROUP)]
    found = []
    for (dataset, model, roi), part in networks.groupby(["dataset", "model", "roi"], sort=False):
        scores = part.pivot(index="subject", columns="layer", values="score")
        scores = scores.dropna(axis=1, how="all").dropna()
        order = scores.mean().sort_values(ascending=False, kind="stable")
        if len(order) < 2 or not len(scores):
            continue
        best, second = order.index[:2]
        folds = part.set_index(["layer", "subject"]).fold_scores.map(np.array)
        both = folds[best].reindex(scores.index) - folds[second].reindex(scores.index)
        margin = interval(both)
        found.append(
            {
                "dataset": dataset,
                "model": model,
                "roi": roi,
                "best_layer": best,
                "best_score": order.iloc[0],
                "second_layer": second,
                "second_score": order.iloc[1],
                "margin": margin.mean,
                "ci_low": margin.low,
                "ci_high": margin.high,
                "num_subjects": margin.n,
            }
        )
    columns = ["dataset", "model", "roi", "best_layer", "best_score", "second_layer"]
    columns += ["second_score", "margin", "ci_low", "ci_high", "num_subjects"]
    return pd.DataFrame(found, columns=columns)


def nested_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Score each network with the layer chosen inside the training data.

    For every outer fold, the layer with the best R2 on the inner splits; the score is the mean
    over folds of the held-out scores of the layers chosen. Unlike the maximum over layers it is
    not optimistic, and a network gains nothing by having more of them.

    Args:
      rows: score rows.

    Returns:
      One row per dataset, model, control_of, subject and ROI: `metric`, `score` and `fold_scores`,
      `ceiling` and `fold_ceilings`, and `layers`, the layers chosen by the folds.

    Raises:
      InputError: if a model was scored in several ways (`check_one_way`).
    """
    check_one_way(rows)
    keys = [*_FEATURES, *_PLACE]
    found = []
    for key, part in rows.groupby(keys, sort=False):
        choice = layers.choose(np.array(part.fold_inner_r2.tolist()))  # of [layer k]
        scores = layers.take(np.array(part.fold_scores.tolist()), choice)
        found.append(
            dict(zip(keys, key, strict=True))
            | {
                "metric": part.metric.iloc[0],
                "score": scores.mean(),
                "fold_scores": scores,
                "ceiling": part.ceiling.iloc[0],
                "fold_ceilings": np.array(part.fold_ceilings.iloc[0]),
                "layers": part.layer.to_numpy()[choice.layer].tolist(),
            }
        )
    columns = [*keys, "metric", "score", "fold_scores", "ceiling", "fold_ceilings", "layers"]
    return pd.DataFrame(found, columns=columns)


def against_controls(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare each network with each of its controls, subject by subject.

    Args:
      rows: score rows.

    Returns:
      One row per dataset, model, ROI and control. With layers chosen inside the training data
      (`nested_layer`): mean scores over subjects, the mean of the paired differences with a 95 %
      interval over folds and the subjects who have both, and both scores on the group's mean
      response. And `group_best_*`: the highest score of any layer on the group's mean response; of
      several layers this is optimistic, and against the model's own layer 0 never negative.

    Raises:
      InputError: if a model was scored in several ways (`check_one_way`).
    """
    check_one_way(rows)
    embedding = rows[(rows.control_of == "") & (rows.layer == 0) & (rows.num_layers > 0)]
    rows = pd.concat([embedding.assign(control_of=embedding.model, model=EMBEDDING), rows])
    nested = nested_layer(rows)
    wide = nested.set_index([*_FEATURES, "roi", "subject"])["score"].unstack("subject")
    folds = {
        key: part.set_index("subject").fold_scores.drop(GROUP, errors="ignore")
        for key, part in nested.groupby([*_FEATURES, "roi"], sort=False)
    }
    best = rows[rows.subject == GROUP].groupby([*_FEATURES, "roi"])["score"].max()
    subjects = [name for name in wide.columns if name != GROUP]
    controls = rows[rows.control_of != ""]
    found = []
    for (dataset, model, roi), part in controls.groupby(
        ["dataset", "control_of", "roi"], sort=False
    ):
        network = wide.loc[(dataset, model, "", roi)]
        for name in part.model.unique():
            control = wide.loc[(dataset, name, model, roi)]
            both = folds[dataset, model, "", roi] - folds[dataset, name, model, roi]
            difference = interval(both.dropna())
            group_model, group_control = network.get(GROUP, np.nan), control.get(GROUP, np.nan)
            found.append(
                {
                    "dataset": dataset,
                    "model": model,
                    "roi": roi,
                    "control": name,
                    "model_score": network[subjects].mean(),
                    "control_score": control[subjects].mean(),
                    "difference": difference.mean,
                    "ci_low": difference.low,
                    "ci_high": difference.high,
                    "num_subjects": difference.n,
                    "group_model": group_model,
                    "group_control": group_control,
                    "group_difference": group_model - group_control,
                    "group_best_model": best.get((dataset, model, "", roi), np.nan),
                    "group_best_control": best.get((dataset, name, model, roi), np.nan),
                }
            )
    columns = ["dataset", "model", "roi", "control", "model_score", "control_score", "difference"]
    columns += ["ci_low", "ci_high", "num_subjects", "group_model", "group_control"]
    columns += ["group_difference", "group_best_model", "group_best_control"]
    return pd.DataFrame(found, columns=columns)


def by_roi(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise each network in each ROI: group score at its best layer, and subjects' scores.

    Args:
      rows: score rows.

    Returns:
      One row per dataset, model and ROI: `group_layer` has the highest group score (a maximum on
      the test data, and so optimistic; NaN without a defined one), with a 95 % interval over folds;
      `subjects_score` is the
      mean over subjects with the layer chosen inside the training data, with a 95 % interval over
      subjects and folds; both have ceilings with intervals.

    Raises:
      InputError: if a model was scored in several ways (`check_one_way`).
    """
    check_one_way(rows)
    networks = rows[rows.control_of == ""]
    nested = nested_layer(networks)
    found = []
    for (dataset, model, roi), part in networks.groupby(["dataset", "model", "roi"], sort=False):
        group = part[part.subject == GROUP]
        best = group.loc[group.score.idxmax()] if group.score.notna().any() else None
        mine = nested[
            (nested.dataset == dataset)
            & (nested.model == model)
            & (nested.roi == roi)
            & (nested.subject != GROUP)
        ]
        is_r = are_correlations(part)
        subjects = interval(mine.fold_scores, is_correlation=is_r)
        ceilings = interval(mine.fold_ceilings, is_correlation=True)
        chosen = group.fold_scores[group.index == getattr(best, "name", None)]
        of_group = interval(chosen, is_correlation=is_r)
        value = lambda name, best=best: np.nan if best is None else best[name]
        found.append(
            {
                "dataset": dataset,
                "model": model,
                "roi": roi,
                "group_layer": value("layer"),
                "group_score": value("score"),
                "group_low": of_group.low,
                "group_high": of_group.high,
                "group_ceiling": value("ceiling"),
                "group_ceiling_low": value("ceiling_low"),
                "group_ceiling_high": value("ceiling_high"),
                "subjects_score": subjects.mean,
                "ci_low": subjects.low,
                "ci_high": subjects.high,
                "num_subjects": subjects.n,
                "subjects_ceiling": ceilings.mean,
                "subjects_ceiling_low": ceilings.low,
                "subjects_ceiling_high": ceilings.high,
            }
        )
    return pd.DataFrame(found)


def beyond_controls(partition: pd.DataFrame) -> pd.DataFrame:
    """Summarise what each network explains beyond a set of controls, at its best layer.

    Args:
      partition: rows in the schema of `io.rows.PARTITION`.

    Returns:
      One row per dataset, model, set of controls and ROI: `layer` explains most of the group's
      mean response, a maximum over test data and so optimistic (without a group, most on average
      over subjects). Of that layer the group's R2 out of sample: of the model, the controls and
      both; what only the model explains (`unique`), what both do (`shared`), and `omega`, the
      percentage of the model's that the controls explain too. `subjects_...` are means over
      subjects, with a 95 % t interval of the unique part (R2 out of sample is of all folds
      together, so that subjects alone speak; it is too narrow where they share noise); their omega
      is that of the means.

    Raises:
      InputError: if a model was scored in several ways (`check_one_way`).
    """
    check_one_way(partition, ["dataset", "model", "controls"])
    found = []
    keys = ["dataset", "model", "controls", "roi"]
    for key, part in partition.groupby(keys, sort=False):
        is_group = part.subject == GROUP
        r2 = part[is_group if is_group.any() else ~is_group].groupby("layer").r2_model.mean()
        layer = r2.idxmax() if r2.notna().any() else np.nan
        at = part[part.layer == layer]
        group = at[at.subject == GROUP]
        value = lambda name, group=group: group[name].iloc[0] if len(group) else np.nan
        persons = at[at.subject != GROUP]
        subjects = stats.mean_interval(persons.unique_model.to_numpy(float))
        means = {
            name: stats.mean_interval(persons[f"r2_{name}"].to_numpy(float)).mean
            for name in ("model", "controls", "joint")
        }
        shares = partition_lib.shares(*map(np.array, means.values()))
        found.append(
            dict(zip(keys, key, strict=True))
            | {
                "layer": layer,
                "group_model": value("r2_model"),
                "group_controls": value("r2_controls"),
                "group_joint": value("r2_joint"),
                "group_unique": value("unique_model"),
                "group_shared": value("shared"),
                "group_omega": value("omega"),
                **{f"subjects_{name}": mean for name, mean in means.items()},
                "subjects_shared": float(shares.shared),
                "subjects_omega": float(shares.omega),
                "subjects_unique": subjects.mean,
                "ci_low": subjects.low,
                "ci_high": subjects.high,
                "num_subjects": subjects.n,
            }
        )
    return pd.DataFrame(found)
