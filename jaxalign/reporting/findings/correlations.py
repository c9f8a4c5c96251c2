"""Which properties of models go with their scores, pooled, within families and without each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.core.inference import association
from jaxalign.errors import InputError
from jaxalign.reporting.findings.options import Options
from jaxalign.reporting.findings.rows import Finding

LEGEND = (
    "Correlation over models of a property with a score: pearson (Fisher's z interval), spearman "
    "(Bonett and Wright's interval; p exact up to 8 models). Of pooled subsets also: "
    "partial_given_size and partial_given_family (linear), and mixed_slope, a regression with "
    "families as random intercepts, both variables standardised, Wald's interval and p: rough, as "
    "there are few families. Models of "
    "a family are not independent, and families differ in much else: a pooled correlation can be "
    "one between families, so it stands next to those within each family ('tuned, T5') and those "
    "without each ('tuned, without T5'). A subset whose models with both numbers are those of a "
    "narrower one is not repeated: where tuned models alone have a property, 'tuned' stands for "
    "'all'. p_adjusted: Benjamini-Hochberg over the predictors of one subset, outcome and "
    "statistic."
)
LEGEND_BEHAVIOR = (
    "Correlation over models of alignment with brains (the predictor) and with behaviour (the "
    "outcome). As the correlations with properties; p_adjusted: Benjamini-Hochberg over the brain "
    "data sets and their averages, of one subset and statistic."
)
LEGEND_UNITS = (
    "Correlation of the score with size and with the number of units (both log10), with all units "
    "of a layer and with equally many in all models, over the same models: what remains with equal "
    "numbers is not due to wider layers. p_adjusted: Benjamini-Hochberg over both predictors."
)
SIZE = "log10_num_parameters"
UNITS = "log10_num_units"
_MEASURES = {"pearson": association.pearson, "spearman": association.spearman}
_FEWEST = 3
# In this order; then tasks of the evaluation harness.
_PREDICTORS = (SIZE, "mmlu", "bbh", "nwp_loss", "behavior")
# Properties of models whose correlation is not computed unless it is asked for.
_NO_PREDICTORS = ("tuned", "num_parameters", "num_layers", "width", "training_tokens")


class Subset(NamedTuple):
    """Models over which correlations are computed."""

    name: str
    models: list[str]
    is_pooled: bool  # over several families


def findings(outcomes: pd.DataFrame, models: pd.DataFrame, options: Options) -> list[Finding]:
    """Correlate scores with properties, and behavioural with brain scores.

    Args:
      outcomes: scores with the columns of `model_scores`, `outcome` and `is_behavioral`, one per
        outcome and model.
      models: properties of the models, index `model`.
      options: how models are compared; without predictors, all numbers that at least 3 models have.

    Returns:
      For each subset, predictor and outcome all statistics; once, under the name of the narrowest
      subset, where several subsets have the same models with both.

    Raises:
      InputError: if a predictor is no numeric property, or is not known of any model.
    """
    numbers = properties(models, options.predictors)
    scores = outcomes.pivot(index="model", columns="outcome", values="score").reindex(models.index)
    scores = scores[list(dict.fromkeys(outcomes.outcome))]
    behavioral = list(dict.fromkeys(outcomes[outcomes.is_behavioral].outcome))
    asked = [
        ("correlation", name, numbers[name], outcome)
        for outcome in scores
        for name in numbers
        if not (name == "behavior" and outcome in behavioral)
    ]
    asked += [
        ("brain_behavior", name, scores[name], outcome)
        for outcome in behavioral
        for name in scores
        if name not in behavioral
    ]
    found, seen = [], set()
    for subset in subsets(models, options.apart):
        at = _At(subset, models.reindex(subset.models), options)
        for analysis, name, x, outcome in asked:
            both = (x.notna() & scores[outcome].notna()).reindex(subset.models)
            # Where only tuned models have a property, all models are the tuned ones over again.
            key = (analysis, name, outcome, tuple(sorted(both.index[both])))
            if both.any() and key not in seen:
                seen.add(key)
                found += at.associate(analysis, name, x, outcome, scores[outcome])
    return found


def properties(models: pd.DataFrame, predictors: Sequence[str] = ()) -> pd.DataFrame:
    """Return the properties of each model that scores are correlated with.

    Args:
      models: properties, index `model`.
      predictors: names; none: all that at least 3 models have.

    Raises:
      InputError: if one is not there, is no number, or is not known of any model.
    """
    numbers = models.select_dtypes("number").drop(columns="tuned", errors="ignore").astype(float)
    numbers[SIZE] = log_sizes(models)
    missing = [name for name in predictors if name not in numbers]
    if missing:
        raise InputError(
            f"predictors must be numeric properties of models, one of "
            f"{', '.join(sorted(map(str, numbers)))}; got {missing[0]!r}."
        )
    if predictors:
        if unknown := [name for name in predictors if not numbers[name].notna().any()]:
            raise InputError(
                f"predictors must be known of a model with scores: {unknown[0]!r} is of none."
            )
        return numbers[list(predictors)]
    known = [x for x in numbers if x not in _NO_PREDICTORS and numbers[x].count() >= _FEWEST]
    order = lambda name: next(
        (i for i, x in enumerate(_PREDICTORS) if name == x or name.startswith(f"{x}_")), 99
    )
    return numbers[sorted(known, key=lambda name: (order(name), name))]


def log_sizes(models: pd.DataFrame) -> pd.Series:
    """Return log10 of the number of parameters of each model; NaN where it is not known.

    Args:
      models: properties, index `model`.
    """
    if "num_parameters" not in models:
        return pd.Series(np.nan, index=models.index)
    sizes = models.num_parameters.astype(float)
    return np.log10(sizes.where(sizes > 0))


def subsets(models: pd.DataFrame, apart: Sequence[str]) -> list[Subset]:
    """List the sets of models: tuned, vanilla and all models, and each family of these.

    Args:
      models: properties, index `model`.
      apart: families that are in no pooled subset but those that name them.

    Returns:
      Subsets of at least 2 models, the narrower before the wider.
    """
    families = models.family if "family" in models else pd.Series("", index=models.index)
    tuned = models.tuned if "tuned" in models else pd.Series(np.nan, index=models.index)
    kept_out = families.isin(apart)
    names = " and ".join(dict.fromkeys(families[kept_out]))
    everything = pd.Series(True, index=models.index)
    pools = {"tuned": tuned.eq(True), "vanilla": tuned.eq(False), "all": everything}
    found = []
    for name, chosen in pools.items():
        main, added = chosen & ~kept_out, chosen & kept_out
        kept = [x for x in dict.fromkeys(families[main]) if x]
        found.append(Subset(name, list(models.index[main]), len(kept) > 1))
        for family in dict.fromkeys([*(kept if len(kept) > 1 else []), *families[added]]):
            inside = chosen & (families == family)
            found.append(Subset(f"{name}, {family}", list(models.index[inside]), False))
        if main.any() and added.any():
            found.append(Subset(f"{name}, with {names}", list(models.index[chosen]), True))
    return [subset for subset in found if len(subset.models) > 1]


class _At(NamedTuple):
    """A subset of models with their properties."""

    subset: Subset
    models: pd.DataFrame
    options: Options

    def associate(
        self, analysis: str, predictor: str, x: pd.Series, outcome: str, y: pd.Series
    ) -> Iterator[Finding]:
        """Yield all statistics of one predictor and one outcome."""
        names, confidence = self.models.index, self.options.confidence
        x, y = x.reindex(names).to_numpy(float), y.reindex(names).to_numpy(float)

        def finding(statistic, value, subset=self.subset.name):
            family = f"{subset}/{outcome}/{statistic}"
            return Finding(analysis, subset, predictor, outcome, statistic, value, family)

        for statistic, measure in _MEASURES.items():
            yield finding(statistic, measure(x, y, confidence=confidence))
        if not self.subset.is_pooled:
            return
        families = self.models.family.to_numpy(str)
        # Models of unknown family say nothing of families.
        known = families != ""
        x_known, y_known, groups = x[known], y[known], families[known]
        for statistic, measure in _MEASURES.items():
            without = association.leave_one_group_out(
                x_known, y_known, groups, measure=measure, confidence=confidence
            )
            for family, value in without.items():
                # Without those that were only added, it is the subset that they were added to.
                if family not in self.options.apart:
                    yield finding(statistic, value, f"{self.subset.name}, without {family}")
        sizes = log_sizes(self.models)
        if predictor != SIZE and sizes.notna().any():
            size = sizes.to_numpy()[:, None]
            partial = association.partial(x, y, size, confidence=confidence)
            yield finding("partial_given_size", partial)
        coded = association.indicators(groups)
        partial = association.partial(x_known, y_known, coded, confidence=confidence)
        yield finding("partial_given_family", partial)
        slope = association.mixed_slope(x_known, y_known, groups, confidence=confidence)
        yield finding("mixed_slope", slope)


def by_units(summary: pd.DataFrame, models: pd.DataFrame, options: Options) -> list[Finding]:
    """Compare correlations with size: with all units, and with equally many in all models.

    Args:
      summary: rows of `model_scores`.
      models: properties, index `model`.
      options: how models are compared; families apart are left out.

    Returns:
      For each number of units that at least 3 models were scored with, of which some have more.
    """
    sizes = log_sizes(models)
    if not sizes.notna().any():
        return []
    families = models.family if "family" in models else pd.Series("", index=models.index)
    main = summary[summary.model.map(~families.isin(options.apart)) & (summary.num_units > 0)]
    found = []
    for (dataset, metric), kept in main.groupby(["dataset", "metric"], sort=False):
        whole = kept[kept.units == "all"].set_index("model")
        for units in sorted(set(kept[kept.units != "all"].num_units)):
            equal = kept[kept.num_units == units].drop_duplicates("model").set_index("model")
            both = equal.index.intersection(whole.index)
            if len(both) < _FEWEST:
                continue
            for subset, part in (("all units", whole), (f"{units} units in all", equal)):
                part = part.loc[both]
                logs = {
                    SIZE: sizes.reindex(both).to_numpy(),
                    UNITS: np.log10(part.num_units.to_numpy(float)),
                }
                subset = f"{subset} ({len(both)} models, {metric})"
                for predictor, x in logs.items():
                    for statistic, measure in _MEASURES.items():
                        value = measure(
                            x, part.score.to_numpy(float), confidence=options.confidence
                        )
                        family = f"{subset}/{dataset}/{statistic}"
                        found.append(
                            Finding(
                                "units", subset, predictor, str(dataset), statistic, value, family
                            )
                        )
    return found
