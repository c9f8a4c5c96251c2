"""Findings of a run of one's own: by hand, joined by name, and bad tables refused."""

import numpy as np
import pandas as pd
import pytest
import score_rows
from refusals import refused
from scipy import stats

from jaxalign.reporting import findings
from jaxalign.reporting.findings import correlations, gains, published_checks
from jaxalign.reporting.findings import rows as finding_rows


# Family, base, parameters, a property of tasks, and the score of the best layer.
def compare(scores, models, **options):
    """Return the findings of a comparison with options."""
    return findings.of_run(scores, models, findings.Options(**options)).findings


MODELS = {
    "a": ("A", "", 1e6, 0.30, 0.10),
    "a-tuned": ("A", "a", 1e6, 0.35, 0.12),
    "b": ("A", "", 1e7, 0.28, 0.20),
    "b-tuned": ("A", "b", 1e7, 0.45, 0.19),
    "c": ("C", "", 1e8, 0.50, 0.15),
    "c-tuned": ("C", "c", 1e8, 0.41, 0.21),
    "d": ("C", "", 1e9, 0.60, 0.31),
    "d-tuned": ("C", "d", 1e9, 0.66, 0.33),
}


def _properties():
    rows = {
        name: {
            "family": family,
            "tuned": base != "",
            "base": base,
            "num_parameters": size,
            "num_layers": 4.0,
            "width": 64.0,
            "mmlu": mmlu,
            "task:arc:acc": 1 - mmlu**2,
        }
        for name, (family, base, size, mmlu, _) in MODELS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _scores(**changes):
    """Scores of five layers: the best is the second of the smallest, the last of the largest."""
    rows = []
    for model, (_, _, size, _, best) in MODELS.items():
        layers = np.full(5, best - 0.05)
        layers[round(np.log10(size)) - 5] = best
        for subject, more in (("s1", 0.0), ("s2", 0.01)):
            rows += score_rows.layers(model, subject, "LATL", list(layers + more), **changes)
    return score_rows.frame(rows)


@pytest.fixture(scope="module")
def found():
    return findings.of_run(_scores(num_units=64), _properties(), findings.Options(num_resamples=99))


def _find(found, *key):
    return published_checks.find(found.findings, key)


def test_correlations_by_hand(found):
    models = _properties()
    score = np.array([x[-1] for x in MODELS.values()]) + 0.005
    size = np.log10(models.num_parameters.to_numpy())
    for subset, own in (
        ("all", slice(None)),
        ("tuned", models.tuned.to_numpy(bool)),
        ("vanilla", ~models.tuned.to_numpy(bool)),
        ("all, C", (models.family == "C").to_numpy()),
        ("all, without C", (models.family == "A").to_numpy()),
    ):
        row = _find(found, "correlation", subset, correlations.SIZE, "toy", "pearson")
        r, p = stats.pearsonr(size[own], score[own])
        np.testing.assert_allclose((row.value, row.p), (r, p), rtol=1e-9)
        assert row.n == len(score[own])
    assert {"mmlu", "task:arc:acc", correlations.SIZE} == set(
        found.findings[found.findings.analysis == "correlation"].predictor
    )


def test_predictors_of_one_outcome_are_adjusted_together(found):
    own = found.findings[found.findings.analysis == "correlation"]
    own = own[(own.subset == "all") & (own.outcome == "toy")]
    for _, rows in own.groupby("statistic"):
        defined = rows.p.notna()
        expected = stats.false_discovery_control(rows.p[defined])
        np.testing.assert_allclose(rows.p_adjusted[defined], expected)
    assert {"pearson", "spearman", "partial_given_size", "partial_given_family"} < set(
        own.statistic
    )


def test_gains_by_hand(found):
    scores = {name: values[-1] + 0.005 for name, values in MODELS.items()}
    percent = [100 * (scores[f"{name}-tuned"] / scores[name] - 1) for name in "abcd"]
    row = _find(found, "gain", "all", gains.PREDICTOR, "toy", "mean_percent")
    np.testing.assert_allclose(row.value, np.mean(percent))
    assert list(found.pairs.model) == ["a-tuned", "b-tuned", "c-tuned", "d-tuned"]
    np.testing.assert_allclose(found.pairs.percent, percent)
    family = _find(found, "gain", "C", gains.PREDICTOR, "toy", "mean_percent")
    np.testing.assert_allclose(family.value, np.mean(percent[2:]))


def test_depth_of_the_best_layer_and_what_choosing_it_adds(found):
    row = _find(
        found, "depth", "all (pearson_r)", correlations.SIZE, "relative depth, toy", "pearson"
    )
    np.testing.assert_allclose((row.value, row.n), (1, 8))
    profile = found.profiles[found.profiles.model == "d"].set_index("relative_depth")
    np.testing.assert_allclose(profile.score[1.0], 0.315)
    assert len(found.profiles) == 8 * 5
    # All folds are alike here: nothing is added.
    row = _find(found, "layer_selection", "all (pearson_r)", "layer", "toy", "optimism")
    np.testing.assert_allclose((row.value, row.n), (0, 8), atol=1e-12)


@pytest.mark.slow
def test_tables_are_joined_by_name(found):
    rows, models = _scores(num_units=64), _properties()
    shuffled = compare(rows.sample(frac=1, random_state=1), models.iloc[::-1], num_resamples=99)
    keys = ["analysis", "subset", "predictor", "outcome", "statistic"]
    one, other = (
        x.set_index(keys).sort_index()[["n", "value", "p"]] for x in (found.findings, shuffled)
    )
    pd.testing.assert_frame_equal(one.loc[other.index], other, rtol=1e-6)


@pytest.mark.slow
def test_models_without_properties_or_family_are_left_out_where_they_matter():
    models = _properties()
    models.loc["d", ["family", "mmlu"]] = ["", np.nan]
    rows = compare(
        _scores(), models.drop("c-tuned"), num_resamples=99, predictors=("mmlu",)
    ).set_index(["subset", "statistic"])
    rows = rows[rows.analysis == "correlation"]
    assert rows.n["all", "pearson"] == 6 and rows.n["all", "partial_given_family"] == 6
    assert rows.n["all, C", "pearson"] == 2 and np.isnan(rows.value["all, C", "pearson"])


@pytest.mark.slow
def test_families_apart_are_in_no_pooled_row():
    rows = compare(_scores(), _properties(), apart=("A",), num_resamples=99)
    own = rows[(rows.predictor == correlations.SIZE) & (rows.statistic == "pearson")]
    n = own.set_index("subset").n
    assert (n["all"], n["all, A"], n["all, with A"]) == (4, 4, 8)
    assert (rows[rows.statistic == "mean_percent"].set_index("subset").n["all"]) == 2


@pytest.mark.slow
def test_equal_units_take_the_effect_of_width_away():
    """Planted: scores rise with the number of units alone, which rises with size."""
    noise = dict(zip(MODELS, [0.01, -0.01, 0.02, -0.02, 0.015, -0.015, 0.0, 0.005], strict=True))
    rows = []
    for model, (_, _, size, _, _) in MODELS.items():
        width = round(16 * np.log10(size))
        own = [0.1, width / 400]
        rows += score_rows.layers(model, "s1", "LATL", own, num_units=width)
        rows += score_rows.layers(model, "s1", "LATL", [0.1, 0.3 + noise[model]], num_units=64)
    found = compare(score_rows.frame(rows), _properties(), num_resamples=99)
    units = found[(found.analysis == "units") & (found.statistic == "pearson")]
    r = units.set_index(["subset", "predictor"]).value
    np.testing.assert_allclose(r["all units (8 models, pearson_r)", correlations.SIZE], 1)
    log = np.log10([x[2] for x in MODELS.values()])
    expected = stats.pearsonr(log, list(noise.values())).statistic
    equal = "64 units in all (8 models, pearson_r)"
    np.testing.assert_allclose(r[equal, correlations.SIZE], expected)
    assert np.isnan(r[equal, correlations.UNITS])
    # Other analyses are of all units.
    own = found[(found.analysis == "correlation") & (found.statistic == "pearson")]
    r = own.set_index(["subset", "predictor"]).value
    np.testing.assert_allclose(r["all", correlations.SIZE], 1)


@pytest.mark.slow
def test_the_instruction_that_is_asked_for_counts():
    two = _scores(instruction="two")
    two["fold_scores"] = two.fold_scores.map(lambda x: x + 0.5)
    rows = pd.concat([_scores(instruction="one"), two])
    with refused("instruction must be one that models were given: ''", "['one', 'two']"):
        compare(rows, _properties())
    one = compare(rows, _properties(), instruction="one", num_resamples=99)
    alone = compare(_scores(), _properties(), num_resamples=99)
    pd.testing.assert_frame_equal(one, alone)


@pytest.mark.slow
def test_confidence_reaches_every_interval(found):
    options = findings.Options(num_resamples=99, confidence=0.5)
    narrow = findings.of_run(_scores(num_units=64), _properties(), options).findings
    wide = found.findings
    assert (narrow.value.fillna(-1) == wide.value.fillna(-1)).all()
    known = wide.ci_low.notna() & (wide.ci_high - wide.ci_low > 1e-12)
    assert {"gain", "correlation"} <= set(wide[known].analysis)
    assert wide[known].subset.str.contains("without").any()
    widths = [(x.ci_high - x.ci_low)[known] for x in (narrow, wide)]
    assert (widths[0] < widths[1]).all()


@pytest.mark.slow
def test_without_properties_there_are_no_findings_of_them():
    models = pd.DataFrame(index=pd.Index(MODELS, name="model"))
    found = findings.of_run(_scores(), models)
    assert set(found.findings.analysis) == {"layer_selection"}
    assert tuple(found.findings.columns) == finding_rows.COLUMNS
    assert not len(found.pairs) and tuple(found.pairs.columns) == gains.PAIRS
    assert not len(found.checks) and tuple(found.checks.columns) == published_checks.COLUMNS


def test_every_analysis_has_a_legend(found):
    named = set(found.findings.analysis) | {"units", "brain_behavior", "ceiling"}
    assert named <= set(findings.LEGENDS)


@pytest.mark.slow
def test_bad_tables_are_refused():
    rows, models = _scores(), _properties()
    with refused("findings are about several models: scores have only a"):
        compare(rows[rows.model == "a"], models)
    with refused("properties must have one row per model: a has two"):
        compare(rows, pd.concat([models, models.head(1)]))
    with refused("scores must have one row per model, layer, subject and ROI: a has two on toy"):
        compare(pd.concat([rows, rows[rows.model == "a"]]), models)
    other = rows[rows.model == "b"].assign(protocol="linear-shuffle")
    with refused("one row per model and data set: b has several on toy", "linear-shuffle, nested"):
        compare(pd.concat([rows, other]), models)
    with refused("the base of a tuned model must have scores too: that of b-tuned, b, has none"):
        compare(rows[rows.model != "b"], models)
    with refused("predictors must be numeric properties of models", "mmlu", "got 'mmlu_stem'"):
        compare(rows, models, predictors=("mmlu", "mmlu_stem"))
    with refused("predictors must be known of a model with scores", "'nwp_loss' is of none"):
        compare(rows, models.assign(nwp_loss=np.nan), predictors=("nwp_loss",))
    with refused("predictors must be numeric", "got 'family'"):
        compare(rows, models, predictors=("family",))


@pytest.mark.parametrize(
    "options,words",
    [
        ({"paper": "nobody2020"}, "paper must be one of aw2024, oota2025, or '': 'nobody2020'"),
        ({"num_resamples": 0}, "num_resamples must be >= 1, got 0"),
        ({"confidence": 1.0}, "confidence must lie in (0, 1), got 1.0"),
        ({"apart": ("Z",)}, "apart must be families of models, of A, C: 'Z'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with refused(words):
        compare(_scores(), _properties(), **options)
