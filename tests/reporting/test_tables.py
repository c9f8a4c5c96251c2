"""Tables against numbers worked out by hand, and intervals against SciPy."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from scipy import stats as scipy_stats
from score_rows import NAN, frame, layers, row, study

from jaxalign.reporting import tables


def only(table: pd.DataFrame, **labels) -> pd.Series:
    """Return the one row that has these labels."""
    for name, value in labels.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def paired_interval(a, b):
    """95 % interval of the mean difference, from SciPy's paired t test."""
    interval = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    return interval.low, interval.high


def test_the_rows_of_these_tests_fit_the_schema():
    rows = study()
    assert len(rows) == 2 * 4 * (3 + 3 + 1)
    assert isinstance(rows.fold_scores.iloc[0], np.ndarray)
    assert rows.control_of.value_counts().to_dict() == {"": 24, "net": 32}


# Best layers


def test_models_are_told_apart_by_what_they_were_asked():
    given = pd.DataFrame(
        {
            "model": ["a", "a", "untrained", "b", "untrained"],
            "control_of": ["", "", "a", "", "b"],
            "instruction": ["x", "y", "y", "x", "x"],
        }
    )
    named = tables.names_with_instructions(given)
    assert named.model.tolist() == ["a: x", "a: y", "untrained", "b", "untrained"]
    assert named.control_of.tolist() == ["", "", "a: y", "", "b"]


def test_the_best_layer_and_its_margin():
    found = tables.layer_margins(study())
    assert list(found.roi) == ["LATL", "LIFG"]
    assert list(found.model) == ["net", "net"]
    best = only(found, roi="LATL")
    assert (best.best_layer, best.second_layer, best.num_subjects) == (1, 2, 3)
    assert best.best_score == pytest.approx((0.30 + 0.35 + 0.28) / 3)
    assert best.second_score == pytest.approx((0.20 + 0.21 + 0.25) / 3)
    assert best.margin == pytest.approx((0.10 + 0.14 + 0.03) / 3)
    interval = paired_interval([0.30, 0.35, 0.28], [0.20, 0.21, 0.25])
    assert (best.ci_low, best.ci_high) == pytest.approx(interval)
    best = only(found, roi="LIFG")
    assert (best.best_layer, best.second_layer) == (2, 1)
    assert best.margin == pytest.approx((0.05 + 0.12 - 0.01) / 3)
    interval = paired_interval([0.15, 0.20, 0.10], [0.10, 0.08, 0.11])
    assert (best.ci_low, best.ci_high) == pytest.approx(interval)


def test_margins_do_not_depend_on_the_group_or_on_the_order_of_rows(rng):
    expected = tables.layer_margins(study())
    pd.testing.assert_frame_equal(tables.layer_margins(study(group=False)), expected)
    shuffled = study().sample(frac=1, random_state=1)
    found = tables.layer_margins(shuffled).sort_values("roi").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_margins_of_several_models_and_data_sets():
    rows = pd.concat([study(), study(dataset="other", rename=lambda name: name.lower())])
    found = tables.layer_margins(rows)
    assert list(zip(found.dataset, found.roi, strict=True)) == [
        ("toy", "LATL"),
        ("toy", "LIFG"),
        ("other", "latl"),
        ("other", "lifg"),
    ]


def test_one_subject_has_a_margin_with_an_interval_over_folds():
    """Two folds: t with one degree of freedom, and training sets that overlap."""
    rows = frame(
        row("net", "s1", "LATL", layer, scores, num_layers=1)
        for layer, scores in enumerate([[0.1, 0.2], [0.3, 0.5]])
    )
    best = only(tables.layer_margins(rows))
    assert best.margin == pytest.approx(0.25)
    assert best.num_subjects == 1
    half = scipy_stats.t.ppf(0.975, 1) * np.sqrt((1 / 2 + 1 / 1) * np.var([0.2, 0.3], ddof=1))
    assert (best.ci_low, best.ci_high) == pytest.approx((0.25 - half, 0.25 + half))


def test_undefined_layers_are_never_the_best():
    rows = frame(
        layers("net", "s1", "LATL", (0.1, NAN, 0.2)) + layers("net", "s2", "LATL", (0.3, NAN, 0.4))
    )
    best = only(tables.layer_margins(rows))
    assert (best.best_layer, best.second_layer) == (2, 0)
    assert best.margin == pytest.approx(0.1)


def test_pairs_with_an_undefined_score_do_not_count():
    rows = frame(
        layers("net", "s1", "LATL", (0.1, 0.4))
        + layers("net", "s2", "LATL", (0.2, 0.4))
        + layers("net", "s3", "LATL", (NAN, 0.4))
    )
    best = only(tables.layer_margins(rows))
    assert best.num_subjects == 2
    assert best.margin == pytest.approx(0.25)


@pytest.mark.parametrize(
    "rows",
    [
        layers("net", "s1", "LATL", (0.3,)),
        layers("net", "s1", "LATL", (0.3, NAN)),
        layers("net", "s1", "LATL", (NAN, NAN, NAN)),
        layers("net", "group", "LATL", (0.1, 0.2)),
        layers("untrained", "s1", "LATL", (0.1, 0.2), control_of="net"),
    ],
    ids=["one layer", "one defined layer", "no defined layer", "group only", "control only"],
)
def test_without_two_layers_to_compare_there_is_no_margin(rows):
    found = tables.layer_margins(frame(rows))
    assert len(found) == 0
    assert list(found.columns) == list(tables.layer_margins(study()).columns)


# Layers chosen inside the training data

INNER = [[0.1, 0.5, 0.2], [0.3, 0.4, 0.1], [0.2, 0.6, 0.3]]  # [layer fold]
OUTER = [[0.11, 0.12, 0.13], [0.21, 0.22, 0.23], [0.31, 0.32, 0.33]]


def nest(inner, outer=OUTER, **changes):
    rows = [
        row("net", "s1", "LATL", i, *x, **changes)
        for i, x in enumerate(zip(outer, inner, strict=True))
    ]
    return only(tables.nested_layer(frame(rows)))


def test_each_fold_takes_the_layer_that_is_best_on_its_inner_splits():
    found = nest(INNER, ceiling=0.5)
    assert found.layers == [1, 2, 2]
    assert found.score == pytest.approx((0.21 + 0.32 + 0.33) / 3)
    assert found.ceiling == 0.5
    assert (found.dataset, found.model, found.control_of) == ("toy", "net", "")
    assert (found.subject, found.roi) == ("s1", "LATL")


def test_the_held_out_scores_have_no_say():
    expected = nest(INNER).layers
    assert nest(INNER, [row[::-1] for row in OUTER]).layers == expected
    assert nest(INNER, OUTER[::-1]).layers == expected


def test_undefined_inner_scores_are_passed_over():
    inner = [[0.1, NAN, NAN], [NAN, -0.4, 0.1], [0.2, NAN, -0.3]]
    found = nest(inner)
    assert found.layers == [2, 1, 1]
    assert found.score == pytest.approx((0.31 + 0.22 + 0.23) / 3)


def test_an_undefined_held_out_score_is_not_hidden():
    outer = [[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.3, 0.3, NAN]]
    assert np.isnan(nest(INNER, outer).score)
    outer[2], outer[0] = [0.3, 0.3, 0.3], [NAN, NAN, NAN]
    assert nest(INNER, outer).score == pytest.approx((0.2 + 0.3 + 0.3) / 3)


def test_layers_are_named_and_not_counted():
    rows = frame(
        row("net", "s1", "LATL", layer, outer, inner, num_layers=24)
        for layer, outer, inner in zip((6, 12, 24), OUTER, INNER, strict=True)
    )
    for order in ([0, 1, 2], [2, 0, 1]):
        found = only(tables.nested_layer(rows.iloc[order]))
        assert found.layers == [12, 24, 24]
        assert found.score == pytest.approx((0.21 + 0.32 + 0.33) / 3)


def test_with_one_layer_there_is_no_choice():
    found = only(tables.nested_layer(frame([row("net", "s1", "LATL", 0, [0.2, 0.4], [NAN, NAN])])))
    assert found.layers == [0, 0]
    assert found.score == pytest.approx(0.3)


def test_networks_controls_subjects_and_rois_choose_by_themselves():
    rows = study()
    found = tables.nested_layer(rows)
    assert len(found) == 2 * 4 * 3
    keys = ["dataset", "model", "control_of", "subject", "roi"]
    assert not found[keys].duplicated().any()
    # In the study, a layer has the same inner and outer score in each fold.
    expected = rows.groupby(keys).score.max().rename("expected")
    merged = found.merge(expected.reset_index(), on=keys)
    np.testing.assert_allclose(merged.score, merged.expected)
    assert set(found.ceiling[found.subject == "group"]) == {0.8}
    assert set(found.ceiling[found.subject != "group"]) == {0.5}


# Networks against controls


@pytest.mark.parametrize(
    "roi, control, model_scores, control_scores, group",
    [
        ("LATL", "word_rate", (0.30, 0.35, 0.28), (0.15, 0.25, 0.20), (0.60, 0.29)),
        ("LATL", "untrained", (0.30, 0.35, 0.28), (0.12, 0.10, 0.07), (0.60, 0.33)),
        ("LATL", "layer 0", (0.30, 0.35, 0.28), (0.10, 0.12, 0.08), (0.60, 0.30)),
        ("LIFG", "word_rate", (0.15, 0.20, 0.11), (0.10, 0.14, 0.18), (0.35, 0.40)),
        ("LIFG", "untrained", (0.15, 0.20, 0.11), (0.03, 0.06, 0.09), (0.35, 0.15)),
        ("LIFG", "layer 0", (0.15, 0.20, 0.11), (0.05, 0.02, 0.06), (0.35, 0.20)),
    ],
)
def test_a_network_against_a_control(roi, control, model_scores, control_scores, group):
    found = only(tables.against_controls(study()), roi=roi, control=control)
    assert (found.dataset, found.model, found.num_subjects) == ("toy", "net", 3)
    assert found.model_score == pytest.approx(np.mean(model_scores))
    assert found.control_score == pytest.approx(np.mean(control_scores))
    assert found.difference == pytest.approx(np.subtract(model_scores, control_scores).mean())
    interval = paired_interval(model_scores, control_scores)
    assert (found.ci_low, found.ci_high) == pytest.approx(interval)
    assert (found.group_model, found.group_control) == pytest.approx(group)
    assert found.group_difference == pytest.approx(group[0] - group[1])


def test_every_control_has_one_row_per_region():
    found = tables.against_controls(study())
    assert sorted(zip(found.roi, found.control, strict=True)) == sorted(
        (roi, control)
        for roi in ("LATL", "LIFG")
        for control in ("layer 0", "untrained", "word_rate")
    )


def test_subjects_and_group_take_the_chosen_layer_and_the_best_stands_beside():
    rows = []
    for subject, shift in (("s1", 0.0), ("s2", 0.1), ("group", 0.5)):
        rows += [
            row("net", subject, "LATL", 0, [0.4 + shift, 0.4 + shift], [0.1, 0.1], num_layers=1),
            row("net", subject, "LATL", 1, [0.2 + shift, 0.2 + shift], [0.3, 0.3], num_layers=1),
            row("position", subject, "LATL", 0, [shift, shift], num_layers=0, control_of="net"),
        ]
    found = only(tables.against_controls(frame(rows)), control="position")
    # The inner splits prefer layer 1, though layer 0 is better on the test data.
    assert found.model_score == pytest.approx(0.25)
    assert found.control_score == pytest.approx(0.05)
    assert found.difference == pytest.approx(0.2)
    assert (found.group_model, found.group_control) == pytest.approx((0.7, 0.5))
    assert (found.group_best_model, found.group_best_control) == pytest.approx((0.9, 0.5))
    # The embedding may be ahead of the layers chosen; the best of all layers never is behind.
    found = only(tables.against_controls(frame(rows)), control="layer 0")
    assert found.difference == pytest.approx(-0.2)
    assert found.group_difference == pytest.approx(-0.2)
    assert (found.group_best_model, found.group_best_control) == pytest.approx((0.9, 0.9))


def test_the_embedding_stands_beside_networks_with_layers_alone():
    rows = study()
    without = tables.against_controls(rows[(rows.layer > 0) | (rows.control_of != "")])
    assert set(without.control) == {"untrained", "word_rate"}
    one_layer = frame(layers("bag", "s1", "LATL", (0.3,)) + layers("bag", "s2", "LATL", (0.4,)))
    assert len(tables.against_controls(one_layer)) == 0
    alone = only(tables.against_controls(rows[rows.control_of == ""]), roi="LATL")
    assert alone.control == "layer 0"
    assert list(without.columns) == list(tables.against_controls(one_layer).columns)


def test_without_group_rows_the_group_is_undefined():
    found = tables.against_controls(study(group=False))
    expected = tables.against_controls(study())
    group = [name for name in found if name.startswith("group_")]
    assert found[group].isna().all(axis=None)
    pd.testing.assert_frame_equal(
        found.drop(columns=group), expected.drop(columns=group), check_dtype=False
    )


def test_undefined_pairs_are_left_out_of_a_difference():
    rows = []
    for subject, network, control in (("s1", 0.3, 0.1), ("s2", 0.5, 0.2), ("s3", 0.9, NAN)):
        rows += layers("net", subject, "LATL", (network, network))
        rows += layers("shifted", subject, "LATL", (control, control), control_of="net")
    found = only(tables.against_controls(frame(rows)), control="shifted")
    assert found.num_subjects == 2
    assert found.difference == pytest.approx(0.25)
    assert (found.ci_low, found.ci_high) == pytest.approx(paired_interval([0.3, 0.5], [0.1, 0.2]))


def test_a_control_without_any_score_has_no_difference():
    rows = []
    for subject in ("s1", "s2", "group"):
        rows += layers("net", subject, "LATL", (0.1, 0.2))
        rows += layers("word_rate", subject, "LATL", (NAN,), control_of="net")
    found = only(tables.against_controls(frame(rows)), control="word_rate")
    assert found.num_subjects == 0
    values = found[["control_score", "difference", "ci_low", "ci_high", "group_difference"]]
    assert values.isna().all()
    assert (found.model_score, found.group_model) == pytest.approx((0.2, 0.2))


def test_controls_of_two_networks_and_data_sets_are_kept_apart():
    def make(dataset, model, control_score):
        rows = []
        for i, subject in enumerate(("s1", "s2", "group")):
            rows += layers(model, subject, "LATL", (0.3 + i / 10,), dataset=dataset)
            rows += layers(
                "word_rate",
                subject,
                "LATL",
                (control_score,),
                dataset=dataset,
                control_of=model,
            )
        return rows

    found = tables.against_controls(
        frame(make("toy", "net", 0.1) + make("toy", "other", 0.2) + make("alice", "net", 0.3))
    )
    assert len(found) == 3
    for dataset, model, score in (
        ("toy", "net", 0.1),
        ("toy", "other", 0.2),
        ("alice", "net", 0.3),
    ):
        own = only(found, dataset=dataset, model=model)
        assert own.control_score == pytest.approx(score)
        assert own.difference == pytest.approx(0.35 - score)
        assert own.group_difference == pytest.approx(0.5 - score)


def test_a_region_of_some_subjects_has_their_differences():
    rows = study()
    rows = rows[~((rows.roi == "LIFG") & rows.subject.isin(["s3", "group"]))]
    found = only(tables.against_controls(rows), roi="LIFG", control="word_rate")
    assert found.num_subjects == 2
    assert found.difference == pytest.approx((0.05 + 0.06) / 2)
    assert np.isnan(found.group_difference)


# Regions


def test_by_roi_gives_the_best_group_layer_and_the_subjects_own():
    found = tables.by_roi(study())
    assert list(found.roi) == ["LATL", "LIFG"]
    best = only(found, roi="LATL")
    assert (best.group_layer, best.group_score, best.group_ceiling) == (1, 0.60, 0.8)
    assert best.num_subjects == 3
    assert best.subjects_score == pytest.approx((0.30 + 0.35 + 0.28) / 3)
    # Of correlations: Student's t on the scale of Fisher's z.
    score, error = (
        best.subjects_score,
        scipy_stats.sem([0.30, 0.35, 0.28]) / (1 - best.subjects_score**2),
    )
    z = scipy_stats.t.interval(0.95, 2, loc=np.arctanh(score), scale=error)
    assert (best.ci_low, best.ci_high) == pytest.approx(tuple(np.tanh(z)))
    assert best.subjects_ceiling == pytest.approx(0.5)
    assert only(found, roi="LIFG").group_layer == 2
    assert only(found, roi="LIFG").subjects_score == pytest.approx((0.15 + 0.20 + 0.11) / 3)


@pytest.mark.parametrize("metric", ["pearson_r", "r2"])
def test_intervals_of_correlations_end_within_one(metric):
    """Two subjects who differ lead Student's t far beyond 1, but for R2."""
    rows = [
        row("net", subject, "LATL", 0, scores, ceiling=0.9) | {"metric": metric}
        for subject, scores in (("s1", [0.9, 0.95]), ("s2", [0.5, 0.4]), ("group", [0.9, 0.5]))
    ]
    found = tables.by_roi(frame(rows)).iloc[0]
    ends = np.array([found.ci_low, found.ci_high, found.group_low, found.group_high])
    assert np.isfinite(ends).all()
    assert (np.abs(ends) <= 1).all() == (metric == "pearson_r")
    assert found.ci_low < found.subjects_score < found.ci_high


def test_by_roi_takes_networks_and_no_controls():
    found = tables.by_roi(study())
    assert list(found.model) == ["net", "net"]


def test_by_roi_without_group_rows():
    found = tables.by_roi(study(group=False))
    assert found[["group_layer", "group_score", "group_ceiling"]].isna().all(axis=None)
    expected = tables.by_roi(study())
    np.testing.assert_array_equal(found.subjects_score, expected.subjects_score)


def test_by_roi_without_a_defined_group_score():
    rows = frame(
        layers("net", "s1", "LATL", (0.1, 0.2), ceiling=0.4)
        + layers("net", "s2", "LATL", (0.3, NAN), ceiling=NAN)
        + layers("net", "group", "LATL", (NAN, NAN))
    )
    found = only(tables.by_roi(rows))
    assert np.isnan(found.group_layer) and np.isnan(found.group_score)
    assert found.subjects_score == pytest.approx((0.2 + 0.3) / 2)
    assert found.subjects_ceiling == pytest.approx(0.4)


def test_by_roi_passes_over_undefined_group_layers():
    rows = frame(layers("net", "group", "LATL", (NAN, 0.2, 0.1)))
    found = only(tables.by_roi(rows))
    assert (found.group_layer, found.group_score) == (1, 0.2)
    assert found.num_subjects == 0
    assert np.isnan(found.subjects_score)


def test_by_roi_of_a_network_of_one_layer():
    rows = frame(
        layers("bag", "s1", "LATL", (0.3,))
        + layers("bag", "s2", "LATL", (0.5,))
        + layers("bag", "group", "LATL", (0.6,))
    )
    found = only(tables.by_roi(rows))
    assert (found.group_layer, found.group_score, found.num_subjects) == (0, 0.6, 2)
    assert found.subjects_score == pytest.approx(0.4)


def test_inputs_are_not_changed():
    rows, before = study(), study()
    for table in (
        tables.layer_margins,
        tables.nested_layer,
        tables.against_controls,
        tables.by_roi,
    ):
        table(rows)
    pd.testing.assert_frame_equal(rows, before)


# Models that were scored in several ways

TABLES = [tables.layer_margins, tables.nested_layer, tables.against_controls, tables.by_roi]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "change,message",
    [
        ({"instruction": "Name it."}, "has instruction '', 'Name it.'"),
        ({"protocol": "himalaya"}, "has protocol 'nested-ridge', 'himalaya'"),
        ({"metric": "r2", "pooling": "last"}, "has metric 'pearson_r', 'r2'; pooling 'mean', 'l"),
        ({"context": "none"}, "has context 'window:10', 'none'"),
        ({"num_units": 32}, "has num_units 64, 32"),
        ({"folds_hash": "ba9876543210"}, "has folds_hash '0123456789ab', 'ba9876543210'"),
        ({"fingerprint": "other"}, "has twice layer 0, subject 's1', ROI 'LATL'"),
    ],
)
def test_ways_of_scoring_a_model_are_not_mixed(table, change, message):
    rows = study()
    with refused("rows of one model must be its layers", f"net on toy {message}", "model name"):
        table(pd.concat([rows, rows.assign(**change)]))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "change", [{"instruction": "Name it."}, {"context": "none"}, {"folds_hash": "ba9876543210"}]
)
def test_layers_of_a_model_are_scored_in_one_way(table, change):
    """Though no layer is there twice."""
    rows = study()
    deep = rows.layer == 2
    with refused("net on toy has", *change):
        table(pd.concat([rows[~deep], rows[deep].assign(**change)]))


def test_subjects_of_a_model_are_scored_in_one_way():
    rows = study()
    first = rows.subject == "s1"
    with refused("net on toy has protocol 'nested-ridge', 'himalaya'"):
        tables.by_roi(pd.concat([rows[~first], rows[first].assign(protocol="himalaya")]))


def test_a_control_of_several_ways_is_named_with_its_model():
    rows = study()
    again = rows[rows.model == "word_rate"].assign(context="none")
    with refused("word_rate (control of net) on toy has context 'window:10', 'none'"):
        tables.nested_layer(pd.concat([rows, again]))


@pytest.mark.slow
def test_what_may_differ_within_a_model():
    """Widths of layers, folds of subjects; and everything between models and data sets."""
    rows = study()
    rows["num_units"] = np.where(rows.layer == 0, 32, 64)
    rows["folds_hash"] = rows.subject
    renamed = lambda text: text.replace("net", "other")
    other = study(rename=renamed, protocol="himalaya", instruction="Name it.", num_units=16)
    every = pd.concat([rows, other, study(dataset="second", context="none", metric="r2")])
    for table in TABLES:
        assert len(table(every)) == 3 * len(table(study()))
    tables.check_one_way(every.iloc[:0])


def test_the_way_that_stands_for_a_model():
    """All units, and the instruction that is asked for; what two runs have found alike is once."""
    rows = study()
    drawn = rows.assign(num_units=np.int32(32), score=rows.score / 2, fingerprint="drawn")
    # Features of the stimulus have no units to draw.
    rate = drawn.model == "word_rate"
    drawn.loc[rate, ["num_units", "score"]] = rows.loc[rate, ["num_units", "score"]]
    asked = [rows.assign(instruction=x, score=rows.score / n) for n, x in enumerate("abc", 2)]
    alone = study(rename=lambda text: text.replace("net", "other"), instruction="d")
    every = pd.concat([drawn[~rate], rows, drawn[rate], *asked, alone], ignore_index=True)
    expected = pd.concat([rows, alone], ignore_index=True)
    pd.testing.assert_frame_equal(tables.main_way(every).reset_index(drop=True), expected)
    expected = pd.concat([asked[1], alone], ignore_index=True)
    found = tables.main_way(every, instruction="b").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)
    with refused("instruction must be one that net was given: 'd' is not among ['', 'a', 'b', 'c"):
        tables.main_way(every, instruction="d")
    another = pd.concat([rows, rows.assign(protocol="himalaya")])
    with refused("net on toy has protocol"):
        tables.by_roi(tables.main_way(another))


def test_partitions_are_not_mixed():
    rows = pd.DataFrame(PARTITION)
    twice = pd.concat([rows.assign(context="none"), rows.assign(context="window:10")])
    with refused("net on toy has context 'none', 'window:10'"):
        tables.beyond_controls(twice)
    apart = twice.assign(controls=twice.context)
    assert len(tables.beyond_controls(apart)) == 2


# Beyond controls


def joined(subject, layer, model, controls, joint, roi="LATL"):
    """A row of a partition, as far as the table reads it."""
    return {
        "dataset": "toy",
        "model": "net",
        "controls": "length + position",
        "roi": roi,
        "subject": subject,
        "layer": layer,
        "r2_model": model,
        "r2_controls": controls,
        "r2_joint": joint,
        "unique_model": joint - controls,
        "shared": model + controls - joint,
        "omega": 100 * (1 - (joint - controls) / model) if model > 0 else NAN,
    }


PARTITION = [
    joined("s1", 0, 0.10, 0.05, 0.12),
    joined("s1", 1, 0.20, 0.05, 0.22),
    joined("s2", 0, 0.40, 0.06, 0.41),
    joined("s2", 1, 0.30, 0.06, 0.31),
    joined("group", 0, 0.30, 0.10, 0.33),
    joined("group", 1, 0.40, 0.10, 0.42),
]


def test_what_is_beyond_controls_at_the_best_layer_of_the_group():
    row = only(tables.beyond_controls(pd.DataFrame(PARTITION)))
    assert (row.roi, row.layer, row.controls) == ("LATL", 1, "length + position")
    assert row[["group_model", "group_controls", "group_joint"]].tolist() == [0.40, 0.10, 0.42]
    assert row.group_unique == pytest.approx(0.32)
    assert row.group_shared == pytest.approx(0.08)
    assert row.group_omega == pytest.approx(20)
    unique = [0.22 - 0.05, 0.31 - 0.06]
    assert row.subjects_unique == pytest.approx(np.mean(unique))
    assert (row.ci_low, row.ci_high) == pytest.approx(paired_interval(unique, [0, 0]))
    assert row.num_subjects == 2


def test_without_a_group_the_mean_over_subjects_names_the_layer():
    rows = [*PARTITION[:4], joined("s3", 0, 0.1, 0.1, 0.1), joined("s3", 1, 0.2, 0.1, 0.2)]
    row = only(tables.beyond_controls(pd.DataFrame(rows)))
    assert row.layer == 1  # .7 / 3, against .6 / 3
    assert np.isnan(row.group_omega) and row.num_subjects == 3
    alone = only(tables.beyond_controls(pd.DataFrame(PARTITION[2:4])))
    assert alone.layer == 0 and alone.num_subjects == 1 and np.isnan(alone.ci_low)


def test_nothing_defined_beyond_controls():
    row = only(tables.beyond_controls(pd.DataFrame([joined("group", 2, NAN, 0.1, 0.2)])))
    assert np.isnan(row.layer)
    assert np.isnan(row.group_model) and row.num_subjects == 0
