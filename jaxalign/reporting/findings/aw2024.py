"""What Aw et al. (2024) printed: their table of correlations, and every number of their text."""

import numpy as np
import pandas as pd

from jaxalign.core.inference import association
from jaxalign.reporting.findings import published_checks
from jaxalign.reporting.findings.published_checks import Check
from jaxalign.reporting.findings.rows import Finding

LEGEND = (
    "Correlations that Aw et al. printed, over 17 tuned models, of the average brain alignment "
    "with performance by category; no values per model were published for categories. Intervals "
    "(Fisher's z) and p-values are recomputed from r and n; p_adjusted: Benjamini-Hochberg over "
    "these 11."
)
NUM_TUNED = 17
PUBLISHED = (
    "benchmark",
    "category",
    "r",
    "ci_low",
    "ci_high",
    "p",
    "p_adjusted",
    "p_adjusted_published",
    "p_adjusted_printed",
    "num_tasks",
    "average_performance",
)

_NAN = float("nan")
_PRINTED = "average as printed"
_SIZE = "log10_num_parameters"
_BEHAVIOR = "futrell2018"
_TUNING = "instruction tuning"
_CORRECTED = {
    ("MMLU", "Overall"): 0.000329,
    ("BBH", "Overall"): 0.177,
    ("BBH", "Algorithmic reasoning"): 0.558,
    ("BBH", "Language understanding"): 0.585,
    ("BBH", "World knowledge"): 0.005,
    ("BBH", "Multilingual reasoning"): 0.895,
    ("BBH", "Others"): 0.083,
}


def correlations(table: pd.DataFrame, *, confidence: float = 0.95) -> list[Finding]:
    """Return the correlations that were printed as findings.

    Args:
      table: `published.table("aw2024/correlations")`.
      confidence: of intervals.
    """
    return [
        Finding(
            "published_correlation",
            "tuned",
            f"{row.benchmark}: {row.category}",
            "average",
            "pearson",
            association.of_r(row.r, NUM_TUNED, confidence=confidence),
            "all",
        )
        for row in table.itertuples()
    ]


def published(table: pd.DataFrame | None, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the printed table of correlations whole, with what follows from r and n.

    Args:
      table: `published.table("aw2024/correlations")`, or none.
      findings: rows with `finding_rows.COLUMNS`, of `correlations` among others.

    Returns:
      Rows with `PUBLISHED`: `p_adjusted` is recomputed, `p_adjusted_published` is theirs with more
      digits than were printed, where it is known, `p_adjusted_printed` text.
    """
    if table is None:
        return pd.DataFrame(columns=PUBLISHED)
    own = findings[findings.analysis == "published_correlation"].set_index("predictor")
    own = own.loc[table.benchmark + ": " + table.category].reset_index(drop=True)
    table = table.rename(columns={"p_adjusted": "p_adjusted_published"}).reset_index(drop=True)
    return pd.concat([table, own[["ci_low", "ci_high", "p", "p_adjusted"]]], axis=1)[[*PUBLISHED]]


def no_checks() -> pd.DataFrame:
    """Return the table of checks without rows."""
    return published_checks.table([])


def checks(findings: pd.DataFrame) -> pd.DataFrame:
    """Hold every number of the paper against what its tables give.

    Args:
      findings: rows with `finding_rows.COLUMNS`, of the figures of "aw2024" with "GPT2" apart.

    Raises:
      InputError: if a finding is not there.
    """
    all_checks = [
        *_models(),
        *_gains(),
        *_correlations(),
        *_behavior(),
        *_corrected(),
        *_not_said(),
    ]
    return pd.concat(
        [published_checks.hold([*all_checks, *_ceilings()], findings), _constants()],
        ignore_index=True,
    )


def _correlation(subset, predictor, outcome, statistic="pearson"):
    return ("correlation", subset, predictor, outcome, statistic)


def _gain(subset, outcome, statistic="mean_percent"):
    return ("gain", subset, _TUNING, outcome, statistic)


def _models() -> list[Check]:
    return [
        Check(
            f"models of the main text{name}", number, 0, _correlation(subset, _SIZE, _PRINTED), "n"
        )
        for name, number, subset in (
            ("", 25, "all"),
            (", instruction-tuned", 17, "tuned"),
            (", vanilla", 8, "vanilla"),
        )
    ]


def _gains() -> list[Check]:
    means = "mean over 17 pairs of the gain in percent"
    found = [
        Check(f"{means}, {name}", value, 0.2, _gain("all", name), remark=remark)
        for name, value, remark in (
            ("pereira2018", 6.9, ""),
            ("blank2014", 8.0, ""),
            (
                "wehbe2014",
                3.8,
                "Scores near .07 are printed to .001: a step of the last digit is more than 1 %.",
            ),
        )
    ]
    return [
        *found,
        Check(
            "gain of the abstract, percent: mean of the three data sets' means",
            6.2,
            0.2,
            _gain("all", "mean of data sets"),
            remark="6.2 is the mean of the printed 6.9, 8.0 and 3.8; the printed scores, rounded "
            "to three digits, give .1 more.",
        ),
        Check(
            "gain of the average alignment, percent (against the abstract's 6.2)",
            6.2,
            0.2,
            _gain("all", _PRINTED),
            remark="A mean over pairs of the gain of each model's average is another quantity, and "
            "smaller: data sets with low scores, where percentages are large, weigh less in it.",
        ),
    ]


def _correlations() -> list[Check]:
    return [
        Check(
            "r(brain alignment, log10 size), 17 tuned models",
            0.95,
            0.005,
            _correlation("tuned", _SIZE, _PRINTED),
        ),
        Check(
            "r(brain alignment, MMLU), 17 tuned models",
            0.809,
            0.011,
            _correlation("tuned", "mmlu", _PRINTED),
            remark="Not to its last digits: .805 from the printed average, .808 from the mean of "
            "the three printed scores. Numbers rounded to three digits, as the table's are, leave "
            "r between .794 and .816.",
        ),
        Check(
            "r(brain alignment, BBH), 17 tuned models",
            0.384,
            0.019,
            _correlation("tuned", "bbh", _PRINTED),
            remark="Not to its last digits; rounding of the table's numbers leaves r between .359 "
            "and .398.",
        ),
        Check(
            "r(brain alignment, loss of next-word prediction), 17 tuned models",
            -0.54,
            0.005,
            _correlation("tuned", "nwp_loss", _PRINTED),
            remark="The size follows, the sign does not: in the table of models a higher loss goes "
            "with higher alignment. The printed figure has its axis turned round, from 15 to 5, "
            "where the table's losses are .59 to 4.62. The pooled sign is between families, whose "
            "losses the authors call not comparable: within T5 and within LLaMA r is negative.",
        ),
        Check(
            "p of r(brain alignment, loss of next-word prediction)",
            0.0268,
            0.0045,
            _correlation("tuned", "nwp_loss", _PRINTED),
            "p",
            "That p belongs to r = .535 of either sign; rounding of the table's numbers leaves r "
            "between .532 and .558.",
        ),
    ]


def _behavior() -> list[Check]:
    candidates = (
        "The text with the comparisons was not at hand: of all Pearson correlations of behavioural "
        "alignment over the tuned models, pooled and within families, this one gives that p"
    )
    brain = ("brain_behavior", "tuned", _PRINTED, _BEHAVIOR, "pearson")
    return [
        Check(
            "p of r(behavioural alignment, MMLU), 17 tuned models",
            0.76,
            0.005,
            _correlation("tuned", "mmlu", _BEHAVIOR),
            "p",
            f"{candidates}.",
        ),
        Check(
            "p of r(behavioural alignment, brain alignment), 17 tuned models",
            0.31,
            0.005,
            brain,
            "p",
            f"{candidates}; so does that with log10 size (next row), by chance.",
        ),
        Check(
            "p of r(behavioural alignment, log10 size), 17 tuned models",
            0.31,
            0.005,
            _correlation("tuned", _SIZE, _BEHAVIOR),
            "p",
            "See the row above.",
        ),
        Check(
            "p of r(behavioural alignment, loss of next-word prediction), 12 tuned T5 models",
            0.54,
            0.005,
            _correlation("tuned, T5", "nwp_loss", _BEHAVIOR),
            "p",
            f"{candidates}; over all 17 it is .53.",
        ),
        Check(
            "p of r(behavioural alignment, loss of next-word prediction), 5 tuned LLaMA models",
            0.21,
            0.005,
            _correlation("tuned, LLaMA", "nwp_loss", _BEHAVIOR),
            "p",
            f"{candidates}.",
        ),
    ]


def _corrected() -> list[Check]:
    return [
        Check(
            f"corrected p of r(brain alignment, {benchmark} {category})",
            p,
            # r has three digits, which leave p that much room.
            0.0015 if p > 0.001 else 0.000005,
            ("published_correlation", "tuned", f"{benchmark}: {category}", "average", "pearson"),
            "p_adjusted",
            "Benjamini-Hochberg over all 11 rows of the table, n = 17.",
        )
        for (benchmark, category), p in _CORRECTED.items()
    ]


def _not_said() -> list[Check]:
    """What the tables say and the paper does not."""
    said = [
        (
            "r(brain alignment, log10 size), all 25 models",
            _correlation("all", _SIZE, _PRINTED),
            "value",
            "",
        ),
        (
            "r(brain alignment, log10 size) within 5 tuned LLaMA models",
            _correlation("tuned, LLaMA", _SIZE, _PRINTED),
            "value",
            "Of 5 models, so little is known of it (ci_low, ci_high in the findings); the pooled "
            "correlation is one between the families and within T5.",
        ),
        (
            "r(brain alignment, MMLU) within 5 tuned LLaMA models",
            _correlation("tuned, LLaMA", "mmlu", _PRINTED),
            "value",
            "",
        ),
        (
            "r(brain alignment, log10 size) within 12 tuned T5 models",
            _correlation("tuned, T5", _SIZE, _PRINTED),
            "value",
            "",
        ),
        (
            "r(brain alignment, MMLU) within 12 tuned T5 models",
            _correlation("tuned, T5", "mmlu", _PRINTED),
            "value",
            "",
        ),
        (
            "pairs of 17 whose tuned model is ahead",
            _gain("all", _PRINTED, "num_higher"),
            "value",
            "",
        ),
        (
            "p of Wilcoxon's test over 17 pairs",
            _gain("all", _PRINTED),
            "p",
            "Eight bases are shared by 17 pairs, which this p takes for independent.",
        ),
        (
            "p of the paired t test over 17 pairs",
            _gain("all", _PRINTED, "difference"),
            "p",
            "As above.",
        ),
        (
            "GPT-2 pairs of 4 whose tuned model is ahead",
            _gain("GPT2", _PRINTED, "num_higher"),
            "value",
            "Their MMLU is near chance, .25; the paper keeps them out of its main results.",
        ),
    ]
    return [Check(name, _NAN, _NAN, key, column, remark) for name, key, column, remark in said]


def _ceilings() -> list[Check]:
    return [
        Check(
            "noise ceiling, average",
            0.224,
            0.0005,
            ("ceiling", "all", "", "average", "ceiling"),
            remark="Mean of the three printed ceilings.",
        )
    ]


def _constants() -> pd.DataFrame:
    """Hold printed ceilings against the constants of the benchmarks they are of."""
    experiments = (0.35378928, 0.36343748)  # of 243 and of 384 sentences
    rows = [
        (
            "pereira2018",
            0.359,
            float(np.mean(experiments)),
            "Mean of Brain-Score's constants of the two experiments.",
        ),
        ("blank2014", 0.210, 0.21026591, "Brain-Score's constant."),
        ("wehbe2014", 0.104, _NAN, "Nothing published lets it be found again: follows is unknown."),
        (
            _BEHAVIOR,
            0.858,
            0.858,
            "Brain-Score's constant: median of 10 split halves with the Spearman-Brown correction. "
            "The reading times it is of were published shifted by one word.",
        ),
    ]
    blank = ("", "", "", "", "")
    table = published_checks.table(
        [
            published_checks.row(
                Check(f"noise ceiling, {name}", value, 0.0005, blank, remark=remark), found
            )
            for name, value, found, remark in rows
        ]
    )
    return table.assign(follows=table.follows.where(table.found.notna(), pd.NA))
