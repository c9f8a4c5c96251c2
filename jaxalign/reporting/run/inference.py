"""Score rows -> tables of tests: networks against permuted responses, and against each other."""

import itertools

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting import tables
from jaxalign.reporting.tables import GROUP

# The mean over subjects, and the largest score of any layer, as rows of permutations name them.
MEAN, ANY = "mean", -1
LEVEL = 0.05
_TESTS = ("t", "p_t", "d_z", "w", "p_wilcoxon", "rank_biserial")  # of `stats.paired`
_PS = ("p", "p_t", "p_wilcoxon")


def significance(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise the permutation tests of each network in each ROI.

    Args:
      rows: rows in the schema of `io.rows.SIGNIFICANCE`.

    Returns:
      One row per dataset, model and ROI, of the largest score of any layer held against the largest
      of any layer under each order (of the one layer, where there is no more): of the group's mean
      response, of the mean over subjects, and the number of subjects whose own is significant
      (`p_adjusted` at most .05).

    Raises:
      InputError: if a network was tested in several ways (`tables.check_one_way`).
    """
    keys = ["dataset", "model", "control_of"]
    tables.check_one_way(rows, keys)
    several = rows.groupby(keys).layer.transform("min") == ANY
    rows = rows[~several | (rows.layer == ANY)]
    found = []
    for key, part in rows.groupby(["dataset", "model", "roi"], sort=False):
        columns = dict(zip(("dataset", "model", "roi"), key, strict=True))
        for name in (GROUP, MEAN):
            at = part[part.subject == name]
            for column in ("score", "p", "p_adjusted"):
                columns[f"{name}_{column}"] = at[column].iloc[0] if len(at) else np.nan
        people = part[~part.subject.isin((GROUP, MEAN))]
        columns["num_significant"] = int((people.p_adjusted <= LEVEL).sum())
        columns["num_subjects"] = int(people.p.notna().sum())
        columns["num_orders"] = int(part.num_orders.iloc[0])
        found.append(columns)
    return pd.DataFrame(found)


def between_models(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every two networks that were scored in the same folds, subject by subject.

    Args:
      rows: score rows.

    Returns:
      One row per dataset, ROI and pair of networks, with layers chosen inside the training data
      (`tables.nested_layer`): the mean over subjects of the difference of their scores, with a 95 %
      interval over subjects and folds and the p that belongs to it (`stats.crossed_interval`,
      `stats.crossed_p`), and paired tests over subjects with their effect sizes (`stats.paired`).
      All are adjusted over the ROIs of a pair by Benjamini and Hochberg; `p_over_pairs` is `p` by
      Holm over the pairs of a ROI, the one to look at where several models are compared. The tests
      over subjects are about these stimuli alone: subjects who share them are not independent, and
      of two equal models they reject 31 to 77 %. They are NaN where there is no `p`, as of a single
      test set.

    Raises:
      InputError: if a network was scored in several ways (`tables.check_one_way`).
    """
    rows = rows[(rows.control_of == "") & (rows.subject != GROUP)]
    nested = tables.nested_layer(rows)
    # Scores of other folds or another metric are not paired, though there may be as many.
    ways = rows.assign(way=list(zip(rows.folds_hash, rows.metric, strict=True)))
    ways = ways.groupby(["dataset", "model", "subject"]).way.agg(frozenset)
    keys = ["dataset", "model", "roi"]
    folds = {
        key: part.set_index("subject").fold_scores for key, part in nested.groupby(keys, sort=False)
    }
    found = []
    for dataset, part in nested.groupby("dataset", sort=False):
        for first, second in itertools.combinations(part.model.unique(), 2):
            pair = []
            for roi in part.roi.unique():
                if (dataset, first, roi) not in folds or (dataset, second, roi) not in folds:
                    continue
                one, other = folds[dataset, first, roi], folds[dataset, second, roi]
                shared = one.index.intersection(other.index)
                alike = [s for s in shared if ways[dataset, first, s] == ways[dataset, second, s]]
                if len(shared) and not alike:
                    continue
                both = (one[alike] - other[alike]).dropna()
                difference = tables.interval(both)
                d = both.map(np.mean).to_numpy(float)
                values = np.array(both.tolist(), float)  # [subject fold]; none in common: empty
                p = stats.crossed_p(values) if values.size else np.nan
                d = d if np.isfinite(difference.low) else d[:0]
                test = stats.paired(d, np.zeros_like(d))
                pair.append(
                    {
                        "dataset": dataset,
                        "roi": roi,
                        "first": first,
                        "second": second,
                        "difference": difference.mean,
                        "ci_low": difference.low,
                        "ci_high": difference.high,
                        "num_subjects": difference.n,
                        "p": p,
                    }
                    | {name: getattr(test, name) for name in _TESTS}
                )
            for name in _PS:
                adjusted = stats.benjamini_hochberg(np.array([row[name] for row in pair], float))
                for row, p in zip(pair, adjusted, strict=True):
                    row[f"{name}_adjusted"] = p
            found += pair
    columns = ["dataset", "roi", "first", "second", "difference", "ci_low", "ci_high"]
    columns += ["num_subjects", "p", *_TESTS, *(f"{name}_adjusted" for name in _PS)]
    table = pd.DataFrame(found, columns=columns)
    over_pairs = table.groupby(["dataset", "roi"], sort=False).p.transform(
        lambda p: stats.holm(p.to_numpy(float))
    )
    return table.assign(p_over_pairs=over_pairs.astype(float))
