"""What instruction tuning adds: tuned models against the models they were made from."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from jaxalign.core.inference import gain as gain_lib
from jaxalign.core.inference.association import Association
from jaxalign.core.inference.gain import Gain
from jaxalign.errors import InputError
from jaxalign.reporting.findings.model_scores import AVERAGE
from jaxalign.reporting.findings.options import Options
from jaxalign.reporting.findings.rows import Finding, number

LEGEND = (
    "Gain by instruction tuning, 100 (tuned / base - 1), averaged over pairs. mean_percent: BCa "
    "interval of pairs drawn anew, p of Wilcoxon's signed ranks of the differences of scores (of "
    "percent for the mean of data sets). mean_percent_by_base: the same mean; interval of base "
    "models drawn anew with all their pairs, for pairs that share a base are not independent. "
    "geometric_percent_by_base: of the mean log ratio of each base's pairs, with Student's t "
    "interval and p over bases: the one to trust, since a mean of ratios is too high, and lies "
    "above 0 too often where nothing differs. difference: mean difference of scores with Student's "
    "t interval and p. num_higher: pairs whose tuned model is ahead. percent: a single pair. "
    "p_adjusted: Benjamini-Hochberg over the data sets of a subset; averages over data sets stand "
    "alone. Of all p-values that of geometric_percent_by_base alone takes notice of shared bases."
)
PREDICTOR = "instruction tuning"
MEAN_OF_DATASETS = "mean of data sets"  # of percent: the data sets' means, averaged
PAIRS = (
    "outcome",
    "model",
    "base",
    "family",
    "tuned_score",
    "base_score",
    "difference",
    "percent",
)


def pairs(outcomes: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Pair each tuned model with its base.

    Args:
      outcomes: scores with the columns of `model_scores` and `outcome`, one per outcome and model.
      models: properties of the models, index `model`.

    Returns:
      Rows with `PAIRS`, one per outcome and tuned model whose base is known; NaN where one of them
      has no score, and percent where the base's is not positive.

    Raises:
      InputError: if the base of a tuned model has no scores at all.
    """
    found = []
    if not {"tuned", "base"} <= set(models.columns):
        return pd.DataFrame(found, columns=PAIRS)
    tuned = models[models.tuned.eq(True) & (models.base != "")]
    for row in tuned.itertuples():
        if row.base not in models.index:
            raise InputError(
                f"the base of a tuned model must have scores too: that of {row.Index}, "
                f"{row.base}, has none."
            )
    for outcome, rows in outcomes.groupby("outcome", sort=False):
        score = rows.set_index("model").score
        if not any(name in score.index for name in tuned.index):
            continue
        table = pd.DataFrame(
            {
                "outcome": outcome,
                "model": tuned.index,
                "base": tuned.base.to_numpy(),
                "family": tuned.family.to_numpy() if "family" in tuned else "",
                "tuned_score": score.reindex(tuned.index).to_numpy(),
                "base_score": score.reindex(tuned.base).to_numpy(),
            }
        )
        table["difference"] = table.tuned_score - table.base_score
        positive = table.base_score.where(table.base_score > 0)
        table["percent"] = 100 * (table.tuned_score / positive - 1)
        found.append(table)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(found, columns=PAIRS)


def findings(outcomes: pd.DataFrame, models: pd.DataFrame, options: Options) -> list[Finding]:
    """Average gains over all pairs, and over those of each family.

    Args:
      outcomes: see `pairs`.
      models: see `pairs`.
      options: how models are compared.

    Raises:
      InputError: as `pairs`.
    """
    rng = np.random.default_rng(options.seed)
    table = pairs(outcomes, models)
    if not len(table):
        return []
    averages = set(outcomes[outcomes.is_average].outcome)
    table = pd.concat([table, _mean_of_datasets(table, outcomes)], ignore_index=True)
    found = [
        Finding("gain", row.model, PREDICTOR, row.outcome, "percent", number(row.percent, n=1))
        for row in table.itertuples()
    ]
    for subset, rows in _subsets(table, options.apart):
        for outcome, part in rows.groupby("outcome", sort=False):
            gain = gain_lib.percent_gain(
                part.tuned_score.to_numpy(float),
                part.base_score.to_numpy(float),
                part.base.to_numpy(str),
                num_resamples=options.num_resamples,
                rng=rng,
                confidence=options.confidence,
            )
            alone = outcome in averages or outcome == MEAN_OF_DATASETS
            for statistic, value in _statistics(gain, is_percent=outcome == MEAN_OF_DATASETS):
                family = "" if alone else f"{subset}/{statistic}"
                found.append(
                    Finding("gain", subset, PREDICTOR, str(outcome), statistic, value, family)
                )
    return found


def _subsets(table: pd.DataFrame, apart: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    families = list(dict.fromkeys(table.family))
    kept_out = [name for name in families if name in apart]
    main = table[~table.family.isin(kept_out)]
    if len(main):
        yield "all", main
    for family in families:
        if family and len(families) > 1:
            yield family, table[table.family == family]
    if kept_out and len(main):
        yield f"all, with {' and '.join(kept_out)}", table


def _mean_of_datasets(table: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Average each pair's percent over data sets; scores are those of a base that scores 1."""
    averaged = outcomes[outcomes.dataset == AVERAGE]
    if averaged.metric.nunique() != 1:
        return table.iloc[:0]
    rows = outcomes[(outcomes.metric == averaged.metric.iloc[0]) & ~outcomes.is_average]
    percent = table[table.outcome.isin(set(rows.outcome))].pivot(
        index=["model", "base", "family"], columns="outcome", values="percent"
    )
    mean = percent.mean(axis=1, skipna=False).rename("percent").reset_index()
    return mean.assign(
        outcome=MEAN_OF_DATASETS,
        tuned_score=1 + mean.percent / 100,
        base_score=1.0,
        difference=mean.percent / 100,
    )


def _statistics(gain: Gain, *, is_percent: bool) -> Iterator[tuple[str, Association]]:
    yield "mean_percent", gain.mean
    yield "mean_percent_by_base", gain.by_base
    yield "geometric_percent_by_base", gain.ratio
    test = gain.test.difference
    if not is_percent:
        value = Association(test.mean, test.low, test.high, gain.test.p_t, test.n)
        yield "difference", value
    yield "num_higher", number(float(gain.num_higher), n=gain.mean.n)
    yield "num_bases", number(float(gain.num_bases), n=gain.mean.n)
