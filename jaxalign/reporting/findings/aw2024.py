"""What Aw et al. (2024) printed: their table of correlations, and every number of their text."""

import pandas as pd

from jaxalign.core.inference import association
from jaxalign.literature.published import table as published_table
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

_PRINTED = "aw2024/printed_numbers"


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
      findings: rows with `findings.rows.COLUMNS`, of `correlations` among others.

    Returns:
      Rows with `PUBLISHED`: `p_adjusted` is recomputed, `p_adjusted_published` is theirs with more
      digits than were printed, where it is known, `p_adjusted_printed` text.
    """
    if table is None:
        return pd.DataFrame(columns=PUBLISHED)
    part = findings[findings.analysis == "published_correlation"].set_index("predictor")
    part = part.loc[table.benchmark + ": " + table.category].reset_index(drop=True)
    table = table.rename(columns={"p_adjusted": "p_adjusted_published"}).reset_index(drop=True)
    return pd.concat([table, part[["ci_low", "ci_high", "p", "p_adjusted"]]], axis=1)[[*PUBLISHED]]


def checks(findings: pd.DataFrame) -> pd.DataFrame:
    """Hold every number of the paper against what its tables give.

    The numbers, and the findings that they should follow from, are in
    `third_party/aw2024/printed_numbers.csv`; ceilings
    are held against constants of the benchmarks that they are of, in its column `found`.

    Args:
      findings: rows with `findings.rows.COLUMNS`, of the figures of "aw2024" with "GPT2" apart.

    Raises:
      InputError: if a finding is not there.
    """
    rows = []
    for row in published_table(_PRINTED).itertuples():
        key = (row.analysis, row.subset, row.predictor, row.outcome, row.statistic)
        check = Check(row.quantity, row.published, row.tolerance, key, row.column, row.remark)
        found = published_checks.find(findings, key)[row.column] if row.analysis else row.found
        rows.append(published_checks.row(check, float(found)))
    return published_checks.table(rows)
