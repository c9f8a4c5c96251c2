"""One score per data set and model, against means by hand; what cannot be reduced is refused."""

import numpy as np
import pandas as pd
import refusals
import score_rows

from jaxalign.io import rows as rows_lib
from jaxalign.reporting import tables
from jaxalign.reporting.findings import depth, model_scores


def _two_datasets(**changes):
    rows = [
        row
        for dataset, shift in (("one", 0.0), ("two", 0.1))
        for model, scores in (("a", (0.1, 0.3, 0.2)), ("b", (0.2, 0.1, 0.4)))
        for subject, more in (("s1", 0.0), ("s2", 0.02), ("s3", 0.04))
        for row in score_rows.layers(
            model,
            subject,
            "LATL",
            [x + shift + more for x in scores],
            dataset=dataset,
            ceiling=0.5,
            **changes,
        )
    ]
    return score_rows.frame(rows)


def test_layers_are_chosen_inside_the_training_data():
    # In s1 inner splits prefer layer 1, in s2 layer 2; layer 2 is best on the test scores.
    rows = [
        score_rows.row("net", subject, roi, layer, [score, score + 0.02], [inner, inner])
        for subject, inners in (("s1", (0.1, 0.5, 0.2)), ("s2", (0.1, 0.2, 0.5)))
        for roi in ("LATL", "LIFG")
        for layer, (score, inner) in enumerate(zip((0.1, 0.2, 0.3), inners, strict=True))
    ]
    found = model_scores.model_scores(score_rows.frame(rows)).iloc[0]
    assert found.selection == model_scores.NESTED
    np.testing.assert_allclose(found.score, (0.2 + 0.3) / 2 + 0.01)
    np.testing.assert_allclose((found.best_layer, found.best_score), (2, 0.31))
    np.testing.assert_allclose(found.optimism, 0.05)
    interval = tables.interval(
        pd.Series([np.array([0.2, 0.22]), np.array([0.3, 0.32])]), is_correlation=True
    )
    np.testing.assert_allclose((found.ci_low, found.ci_high), interval[1:3])
    assert (found.roi, found.num_subjects, found.num_layers) == ("all", 2, 2)


def test_regions_by_themselves_and_their_mean():
    rows = score_rows.study(ceiling=0.5)
    whole = model_scores.model_scores(rows).set_index("model")
    apart = model_scores.model_scores(rows, by_roi=True).set_index("roi")
    assert list(whole.index) == ["net"]  # controls are no models
    # Inner and outer scores are the same there: each subject's best layer, region by region.
    np.testing.assert_allclose(apart.score["LATL"], np.mean([0.30, 0.35, 0.28]))
    np.testing.assert_allclose(apart.score["LIFG"], np.mean([0.15, 0.20, 0.11]))
    np.testing.assert_allclose(whole.score["net"], apart.score.mean())
    np.testing.assert_allclose(whole.ceiling["net"], 0.5)


def test_subjects_who_lack_a_region_are_in_no_mean():
    rows = score_rows.study()
    without = rows[~((rows.subject == "s2") & (rows.roi == "LIFG"))]
    found = model_scores.model_scores(without).iloc[0]
    assert found.num_subjects == 2
    np.testing.assert_allclose(found.score, np.mean([0.30, 0.28, 0.15, 0.11]))


def test_the_group_stands_in_where_there_are_no_subjects():
    rows = score_rows.study()
    found = model_scores.model_scores(rows[rows.subject == "group"]).iloc[0]
    np.testing.assert_allclose(found.score, (0.60 + 0.35) / 2)


def test_undefined_scores_stay_undefined():
    rows = score_rows.frame(
        score_rows.layers("net", "s1", "LATL", [np.nan, np.nan])
        + score_rows.layers("net", "s2", "LATL", [np.nan, np.nan])
    )
    found = model_scores.model_scores(rows).iloc[0]
    assert np.isnan(found[["score", "ci_low", "best_score", "optimism"]].astype(float)).all()
    assert np.isnan(found.best_layer)


def test_without_inner_splits_the_best_layer_is_named_for_what_it_is():
    none = [np.nan, np.nan]
    rows = [score_rows.row("net", "s1", "LATL", k, [x, x], none) for k, x in enumerate((0.3, 0.1))]
    found = model_scores.model_scores(score_rows.frame(rows)).iloc[0]
    assert (found.selection, found.best_layer) == (model_scores.ON_TEST, 0)
    np.testing.assert_allclose((found.score, found.optimism), (0.3, 0.0))


def test_averages_are_over_all_data_sets_of_one_metric():
    rows = _two_datasets()
    reading = score_rows.row("a", "s1", "", 0, [0.9], dataset="reading", metric="abs pearson r")
    rows = pd.concat([rows, score_rows.frame([reading])])
    found = model_scores.model_scores(rows).set_index(["dataset", "model"])
    np.testing.assert_allclose(found.score["average", "a"], 0.3 + 0.05 + 0.02)
    np.testing.assert_allclose(found.score["average", "b"], 0.4 + 0.05 + 0.02)
    assert np.isnan(found.ci_low["average", "a"])
    assert found.selection["reading", "a"] == model_scores.SINGLE
    partly = rows[~((rows.model == "b") & (rows.dataset == "two"))]
    found = model_scores.model_scores(partly)
    assert list(found[found.dataset == "average"].model) == ["a"]


def test_published_rows_are_as_they_are():
    lists = dict.fromkeys(rows_lib.LISTS, [])
    rows = [
        score_rows.row(model, "all", "language", -1, [score], ceiling=0.36, num_layers=0) | lists
        for model, score in (("a", 0.202), ("b", 0.166))
    ]
    found = model_scores.model_scores(score_rows.frame(rows)).set_index("model")
    assert list(found.score) == [0.202, 0.166] and list(found.ceiling) == [0.36, 0.36]
    assert set(found.selection) == {model_scores.PUBLISHED}
    assert found.ci_low.isna().all() and found.optimism.isna().all()


def test_drawn_units_are_apart_and_those_of_the_narrowest_there_once():
    wide = score_rows.layers("wide", "s1", "LATL", [0.1, 0.4], num_units=8)
    drawn = score_rows.layers("wide", "s1", "LATL", [0.1, 0.3], num_units=4)
    narrow = score_rows.layers("narrow", "s1", "LATL", [0.1, 0.2], num_units=4)
    again = [row | {"fingerprint": "of another run"} for row in narrow]
    rows = score_rows.frame([*wide, *drawn, *narrow, *again])
    found = model_scores.model_scores(rows).set_index(["model", "units"])
    assert set(found.index) == {("wide", "all"), ("wide", "4"), ("narrow", "all")}
    np.testing.assert_allclose(found.score["wide", "all"], 0.4)
    np.testing.assert_allclose(found.score["wide", "4"], 0.3)


def test_profiles_are_means_against_relative_depth():
    found = depth.profiles(_two_datasets())
    own = found[(found.dataset == "two") & (found.model == "b")]
    np.testing.assert_allclose(own.relative_depth, [0, 0.5, 1])
    np.testing.assert_allclose(own.score, np.array([0.2, 0.1, 0.4]) + 0.12)
    assert (own.num_subjects == 3).all() and (own.ci_low < own.score).all()


def test_rows_twice_are_refused():
    rows = _two_datasets()
    twice = pd.concat([rows, rows[rows.model == "b"].head(1)])
    with refusals.refused("one row per model", "b has two on one", "layer 0", "'s1'"):
        model_scores.model_scores(twice)
    # Another score under another fingerprint is no copy.
    other = rows[rows.model == "b"].head(1).assign(score=0.9, fingerprint="x")
    with refusals.refused("b has two on one"):
        model_scores.model_scores(pd.concat([rows, other]))


def test_other_refusals():
    rows = score_rows.study()
    with refusals.refused("must hold a network, found none"):
        model_scores.model_scores(rows[rows.control_of != ""])
    uneven = score_rows.frame(
        [score_rows.row("net", s, "LATL", 0, [0.1] * k) for s, k in (("s1", 2), ("s2", 3))]
    )
    with refusals.refused("rows of net on toy must have equally many folds", "[2, 3]"):
        model_scores.model_scores(uneven)
