"""Findings from published figures against the papers' numbers, and against pandas by hand."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from scipy import optimize, stats

from jaxalign.literature import properties, published
from jaxalign.reporting import findings
from jaxalign.reporting.findings import published_checks
from jaxalign.reporting.findings import rows as finding_rows

# Findings with all their resamples, of three papers.
pytestmark = pytest.mark.slow


def compare(scores, models, **options):
    """Return the findings of a comparison with options."""
    return findings.of_run(scores, models, findings.Options(**options)).findings


PRINTED = "average as printed"
SIZE = "log10_num_parameters"


def _models(*names):
    return properties.wide(properties.join([published.properties(name) for name in names]))


@pytest.fixture(scope="module")
def aw2024():
    names = ("aw2024/models", "aw2024/correlations", "aw2024/noise_ceilings")
    return findings.of_run(
        published.score_rows("aw2024"),
        _models("aw2024"),
        findings.Options(apart=("GPT2",), paper="aw2024", num_resamples=999),
        {name: published.table(name) for name in names},
    )


@pytest.fixture(scope="module")
def table():
    """Return the published table, with what is compared by hand."""
    models = published.table("aw2024/models").set_index("model")
    return models.assign(size=np.log10(models.num_parameters))


@pytest.fixture(scope="module")
def oota2025():
    names = ("oota2025-fig2", "oota2025-roi")
    tables = ("oota2025/fig2_digitised", "oota2025/roi_scores")
    return findings.of_run(
        pd.concat([published.score_rows(name) for name in names], ignore_index=True),
        _models(*names),
        findings.Options(paper="oota2025"),
        {name: published.table(name) for name in tables},
    )


def _one(found, analysis, subset, predictor, outcome, statistic):
    return published_checks.find(found.findings, (analysis, subset, predictor, outcome, statistic))


def _gain(found, subset, outcome, statistic="mean_percent"):
    return _one(found, "gain", subset, "instruction tuning", outcome, statistic)


def _r(found, subset, predictor, outcome=PRINTED, statistic="pearson"):
    return _one(found, "correlation", subset, predictor, outcome, statistic)


@pytest.mark.parametrize(
    "outcome,percent,tolerance",
    [
        ("pereira2018", 6.9, 0.2),
        ("blank2014", 8.0, 0.2),
        ("wehbe2014", 3.8, 0.2),
        ("mean of data sets", 6.32, 0.005),
        (PRINTED, 5.98, 0.005),
    ],
)
def test_mean_gains_are_those_of_the_paper(aw2024, outcome, percent, tolerance):
    found = _gain(aw2024, "all", outcome)
    assert found.n == 17
    assert abs(found.value - percent) < tolerance
    assert found.ci_low < found.value < found.ci_high


def test_gains_are_those_by_hand(aw2024, table):
    main = table[table.in_main_25 == 1]
    tuned = main[main.tuned == 1]
    base = main.average.loc[tuned.base].to_numpy()
    percent = 100 * (tuned.average / base - 1)
    np.testing.assert_allclose(_gain(aw2024, "all", PRINTED).value, percent.mean())
    for family in ("T5", "LLaMA"):
        found = _gain(aw2024, family, PRINTED)
        np.testing.assert_allclose(found.value, percent[tuned.family == family].mean())
    assert _gain(aw2024, "all", PRINTED, "num_higher").value == 13
    assert _gain(aw2024, "all", PRINTED, "num_bases").value == 8
    difference = _gain(aw2024, "all", PRINTED, "difference")
    np.testing.assert_allclose(difference.p, stats.ttest_rel(tuned.average, base).pvalue)
    assert round(difference.p, 4) == 0.0030
    assert round(_gain(aw2024, "all", PRINTED).p, 4) == 0.0052
    one = _gain(aw2024, "flan-t5-small", "pereira2018", "percent")
    np.testing.assert_allclose((one.value, one.n), (100 * (0.202 / 0.166 - 1), 1))
    # Pairs share bases: with these drawn, the interval is wider.
    width = lambda x: x.ci_high - x.ci_low
    by_base = _gain(aw2024, "all", PRINTED, "mean_percent_by_base")
    assert width(by_base) > width(_gain(aw2024, "all", PRINTED)) and np.isnan(by_base.p)


def test_gains_of_data_sets_are_adjusted_together(aw2024):
    outcomes = ["pereira2018", "blank2014", "wehbe2014", "futrell2018"]
    rows = [_gain(aw2024, "all", outcome) for outcome in outcomes]
    adjusted = stats.false_discovery_control([row.p for row in rows])
    np.testing.assert_allclose([row.p_adjusted for row in rows], adjusted)
    assert np.isnan(_gain(aw2024, "all", PRINTED).p_adjusted)


def test_all_gpt2_pairs_are_below_their_base(aw2024):
    pairs = aw2024.pairs[(aw2024.pairs.family == "GPT2") & (aw2024.pairs.outcome == PRINTED)]
    assert len(pairs) == 4 and (pairs.difference < 0).all()
    assert _gain(aw2024, "GPT2", PRINTED, "num_higher").value == 0
    assert _gain(aw2024, "all, with GPT2", PRINTED).n == 21


def test_correlations_with_size_and_knowledge(aw2024, table):
    main = table[table.in_main_25 == 1]
    tuned = main[main.tuned == 1]
    size = _r(aw2024, "tuned", SIZE)
    assert size.n == 17 and abs(size.value - 0.946) < 0.003
    np.testing.assert_allclose(
        (size.value, size.p), stats.pearsonr(tuned["size"], tuned.average), rtol=1e-9
    )
    mmlu = _r(aw2024, "tuned", "mmlu")
    assert abs(mmlu.value - 0.8065) < 0.0025
    assert abs(_r(aw2024, "tuned", "mmlu", "average").value - 0.8065) < 0.0025
    everything = _r(aw2024, "all", SIZE)
    assert everything.n == 25 and round(everything.value, 2) == 0.92
    assert _r(aw2024, "all, with GPT2", SIZE).n == 33
    spearman = _r(aw2024, "tuned", "mmlu", statistic="spearman")
    np.testing.assert_allclose(spearman.value, stats.spearmanr(tuned.mmlu, tuned.average)[0])


def test_correlations_within_families_and_without_each(aw2024):
    llama = "tuned, LLaMA"
    assert round(_r(aw2024, llama, SIZE).value, 3) == 0.219
    assert round(_r(aw2024, llama, "mmlu").value, 3) == -0.091
    assert _r(aw2024, llama, SIZE).n == 5
    assert _r(aw2024, "tuned, T5", SIZE).n == 12
    without = _r(aw2024, "tuned, without T5", SIZE)
    assert (without.value, without.n) == (_r(aw2024, llama, SIZE).value, 5)


def test_every_pooled_correlation_has_those_within_families_beside_it(aw2024):
    rows = aw2024.findings[aw2024.findings.statistic == "pearson"]
    rows = rows[rows.analysis.isin(("correlation", "brain_behavior"))]
    have = set(map(tuple, rows[["analysis", "subset", "predictor", "outcome"]].to_numpy()))
    pooled = rows[rows.subset.isin(("tuned", "all", "vanilla"))]
    assert len(pooled) > 40
    for row in pooled.itertuples():
        for family in ("T5", "LLaMA"):
            own = (row.analysis, f"{row.subset}, {family}", row.predictor, row.outcome)
            assert own in have


def test_partial_correlations_and_mixed_slopes_by_hand(aw2024, table):
    tuned = table[(table.in_main_25 == 1) & (table.tuned == 1)]
    rest = lambda y, X: y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    ones = np.ones(17)
    for statistic, own in (
        ("partial_given_size", np.column_stack([ones, tuned["size"]])),
        ("partial_given_family", np.column_stack([ones, tuned.family == "T5"]).astype(float)),
    ):
        r = np.corrcoef(rest(tuned.mmlu.to_numpy(), own), rest(tuned.average.to_numpy(), own))[0, 1]
        found = _r(aw2024, "tuned", "mmlu", statistic=statistic)
        np.testing.assert_allclose(found.value, r, rtol=1e-9)
        t = abs(r) * np.sqrt(14 / (1 - r**2))
        np.testing.assert_allclose(found.p, 2 * stats.t.sf(t, 14), rtol=1e-9)
    slope = _r(aw2024, "tuned", "mmlu", statistic="mixed_slope")
    assert slope.ci_low < slope.value < slope.ci_high
    assert slope.value < 1.1


def _mixed_by_hand(x, y, groups):
    """Return slope, its error with the variances' own, and its error as if those were known."""
    n = len(x)
    x, y = ((v - v.mean()) / v.std(ddof=1) for v in (x, y))
    X, Z = np.column_stack([np.ones(n), x]), (groups[:, None] == np.unique(groups)).astype(float)

    def negative(parameters):
        V = np.eye(n) + np.exp(parameters[2]) * Z @ Z.T
        inverse, rest = np.linalg.inv(V), y - X @ parameters[:2]
        determinants = [np.linalg.slogdet(m)[1] for m in (V, X.T @ inverse @ X)]
        return ((n - 2) * np.log(rest @ inverse @ rest) + sum(determinants)) / 2

    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20000, "maxfev": 20000}
    tried = [
        optimize.minimize(negative, [0, 0, start], method="Nelder-Mead", options=options)
        for start in (-2, 0, 2)
    ]
    best, step, signs = min(tried, key=lambda x: x.fun).x, 1e-4, (-1, 1)
    shifts = step * np.eye(3)
    corner = lambda a, b: sum(i * j * negative(best + i * a + j * b) for i in signs for j in signs)
    curvature = np.array([[corner(a, b) for a in shifts] for b in shifts]) / (4 * step**2)
    errors = [np.sqrt(np.linalg.inv(m)[1, 1]) for m in (curvature, curvature[:2, :2])]
    return best[1], *errors


@pytest.mark.parametrize(
    "predictor,outcome,ratio", [("nwp_loss", "wehbe2014", 3.9), ("mmlu", "pereira2018", 1.006)]
)
def test_errors_of_mixed_slopes_hold_those_of_the_variances(
    aw2024, table, predictor, outcome, ratio
):
    tuned = table[(table.in_main_25 == 1) & (table.tuned == 1)]
    x, y = (tuned[name].to_numpy(float) for name in (predictor, outcome))
    slope, error, given = _mixed_by_hand(x, y, tuned.family.to_numpy(str))
    found = _r(aw2024, "tuned", predictor, outcome, "mixed_slope")
    half = stats.t.ppf(0.975, 14) * error
    np.testing.assert_allclose(found.value, slope, atol=1e-4)
    np.testing.assert_allclose([found.ci_low, found.ci_high], [slope - half, slope + half], 1e-3)
    assert abs(error / given - ratio) < 0.01


def test_what_is_undefined_says_why(aw2024):
    undefined = aw2024.findings[aw2024.findings.value.isna()]
    assert len(undefined) == len(aw2024.remarks) > 0
    assert undefined[["ci_low", "ci_high", "p", "p_adjusted"]].isna().all(axis=None)
    assert (aw2024.remarks.remark != "").all()


def test_only_one_comparison_gives_each_behavioural_p(aw2024):
    rows = aw2024.findings[aw2024.findings.analysis.isin(("correlation", "brain_behavior"))]
    rows = rows[(rows.outcome == "futrell2018") & (rows.statistic == "pearson")]
    # One brain score: data sets by themselves were not compared with behaviour.
    rows = rows[(rows.analysis == "correlation") | (rows.predictor == PRINTED)]
    rows = rows[rows.subset.isin(("tuned", "tuned, T5", "tuned, LLaMA"))]
    names = rows[["subset", "predictor"]]
    which = lambda p: list(map(tuple, names[rows.p.round(2) == p].to_numpy()))
    assert which(0.76) == [("tuned", "mmlu")]
    assert set(which(0.31)) == {("tuned", SIZE), ("tuned", PRINTED)}
    assert which(0.54) == [("tuned, T5", "nwp_loss")]
    assert which(0.21) == [("tuned, LLaMA", "nwp_loss")]


def test_published_correlations_are_adjusted_over_eleven(aw2024):
    own = aw2024.published
    assert len(own) == 11
    t = own.r * np.sqrt(15 / (1 - own.r**2))
    p = 2 * stats.t.sf(t.abs(), 15)
    np.testing.assert_allclose(own.p, p, rtol=1e-9)
    np.testing.assert_allclose(own.p_adjusted, stats.false_discovery_control(p), rtol=1e-9)
    known = own.p_adjusted_published.notna()
    assert known.sum() == 7
    # r has three digits: p is off by less than two of its own third digit.
    np.testing.assert_allclose(own.p_adjusted[known], own.p_adjusted_published[known], atol=0.0015)
    bounds = own.p_adjusted_printed.str.startswith("<")
    limits = own.p_adjusted_printed[bounds].str[1:].astype(float)
    assert (own.p_adjusted[bounds] < limits).all()
    printed = own.p_adjusted_printed[~bounds].astype(float)
    np.testing.assert_allclose(own.p_adjusted[~bounds], printed, atol=0.0065)
    rows = aw2024.findings[aw2024.findings.analysis == "published_correlation"]
    assert (rows.n == 17).all() and list(rows.value) == list(own.r)
    ends = np.tanh(np.arctanh(0.809) + stats.norm.ppf([0.025, 0.975]) / np.sqrt(14))
    np.testing.assert_allclose(own.loc[0, ["ci_low", "ci_high"]].astype(float), ends)


def test_checks_say_what_does_not_follow(aw2024):
    checks = aw2024.checks.set_index("quantity")
    assert list(aw2024.checks.columns) == list(published_checks.COLUMNS)
    failed = set(checks.index[checks.follows.eq(False).fillna(False)])
    assert failed == {
        "gain of the average alignment, percent (against the abstract's 6.2)",
        "r(brain alignment, loss of next-word prediction), 17 tuned models",
    }
    assert (checks.remark[sorted(failed)] != "").all()
    loss = checks.loc["r(brain alignment, loss of next-word prediction), 17 tuned models"]
    assert loss.published == -0.54 and round(loss.found, 3) == 0.545
    unprinted = checks[checks.published.isna()]
    assert unprinted.follows.isna().all() and len(unprinted) == 9
    assert checks.follows.eq(True).sum() == 27
    ceilings = published.table("aw2024/noise_ceilings").set_index("dataset").ceiling
    for name, ceiling in ceilings.items():
        assert checks.published[f"noise ceiling, {name}"] == ceiling


def test_rounding_of_the_table_leaves_r_the_room_that_is_stated(table):
    tuned = table[(table.in_main_25 == 1) & (table.tuned == 1)]

    def end(x, y, sign):
        a, b = x, y
        for _ in range(50):  # to the corner of all roundings that moves r furthest
            standard = lambda v: (v - v.mean()) / v.std()
            r = np.corrcoef(a, b)[0, 1]
            a = x + 0.0005 * np.sign(sign * (standard(b) - r * standard(a)))
            r = np.corrcoef(a, b)[0, 1]
            b = y + 0.0005 * np.sign(sign * (standard(a) - r * standard(b)))
        return np.corrcoef(a, b)[0, 1]

    for name, ends in (
        ("mmlu", (0.794, 0.816)),
        ("bbh", (0.359, 0.398)),
        ("nwp_loss", (0.532, 0.558)),
    ):
        x, y = tuned[name].to_numpy(), tuned.average.to_numpy()
        np.testing.assert_allclose((end(x, y, -1), end(x, y, 1)), ends, atol=0.0006)


def test_of_models_is_the_same_without_tables(aw2024):
    rows = published.score_rows("aw2024")
    names = ["t5-small", "flan-t5-small", "t5-base", "flan-t5-base", "llama-7b", "alpaca-7b"]
    few = compare(rows[rows.model.isin(names)], _models("aw2024"), num_resamples=99)
    assert tuple(few.columns) == finding_rows.COLUMNS
    own = few[(few.analysis == "gain") & (few.subset == "flan-t5-small")].set_index("outcome")
    np.testing.assert_allclose(own.value["pereira2018"], 100 * (0.202 / 0.166 - 1))
    assert PRINTED not in set(few.outcome)
    with refused("findings must hold correlation / all", PRINTED, "once, found it 0 times"):
        findings.checks("aw2024", few)
    with refused("must be those of aw2024, oota2025, got 'nobody'"):
        findings.checks("nobody", few)


def test_figure_contrasts_hold_both_errors_of_reading(oota2025):
    bars = published.table("oota2025/fig2_digitised")
    bars = bars.set_index(["roi", "model"]).normalised_alignment
    rows = oota2025.findings[oota2025.findings.analysis == "figure_contrast"]
    assert len(rows) == 2 * 3 * 4
    for row in rows[~rows.predictor.str.startswith("mean")].itertuples():
        other = row.outcome.removeprefix("normalised alignment minus ")
        difference = bars[row.subset, row.predictor] - bars[row.subset, other]
        np.testing.assert_allclose(row.value, difference)
        np.testing.assert_allclose(
            (row.ci_low, row.ci_high), difference + np.array([-1, 1]) * 0.012
        )
    assert rows[["p", "p_adjusted"]].isna().all(axis=None)
    mean = rows[rows.predictor.str.startswith("mean") & rows.outcome.str.endswith("ViT-H")]
    np.testing.assert_allclose(
        mean.value.iloc[0], np.mean([0.664, 0.596, 0.635]) - 0.490, rtol=1e-9
    )


def test_roi_contrasts_take_means_for_unpaired(oota2025):
    table = published.table("oota2025/roi_scores").set_index(
        ["metric", "repository", "features", "roi"]
    )
    row = _one(
        oota2025,
        "roi_contrast",
        "floc-places",
        "Salesforce/instructblip-vicuna-13b qformer",
        "pearson_r minus google/vit-huge-patch14-224-in21k",
        "difference",
    )
    own = table.loc[
        "pearson_r", "Salesforce/instructblip-vicuna-13b", "qformer_hidden_states", "floc-places"
    ]
    vit = table.loc[
        "pearson_r", "google/vit-huge-patch14-224-in21k", "hidden_states", "floc-places"
    ]
    np.testing.assert_allclose(row.value, own["mean"] - vit["mean"])
    half = stats.t.ppf(0.975, 3) * np.sqrt(own["sem"] ** 2 + vit["sem"] ** 2)
    np.testing.assert_allclose((row.ci_high - row.ci_low) / 2, half)
    rows = oota2025.findings[oota2025.findings.analysis == "roi_contrast"]
    assert len(rows) == 6 * 7 * 2 and rows.p.isna().all()


def test_figure_and_repository_of_oota_disagree_in_early_visual_cortex(oota2025):
    checks = oota2025.checks
    follows = checks.follows.to_numpy(bool)
    early = checks.quantity.str.contains("pRF-Visual")
    assert not follows[early].any() and follows[~early].all() and len(checks) == 6
    assert (checks.remark != "").all()


def test_regions_of_feature_sets_are_a_matrix(oota2025):
    rois = oota2025.rois[oota2025.rois.metric == "pearson_r"]
    wide = rois.pivot(index="roi", columns="model", values="score")
    assert wide.shape == (7, 8) and wide.notna().all(axis=None)
    np.testing.assert_allclose(
        wide.loc["floc-places", "google/vit-huge-patch14-224-in21k"], 0.32757
    )
