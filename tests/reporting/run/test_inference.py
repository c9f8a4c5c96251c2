"""Tables of tests, against SciPy by hand."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from scipy import stats as scipy_stats
from score_rows import frame, row

from jaxalign.core.inference import stats
from jaxalign.reporting.run import inference


def networks(rng, scores):
    """Return one row per network, subject and ROI, of a single layer."""
    return frame(
        row(model, f"s{i}", roi, 0, folds.tolist(), num_layers=0)
        for (model, roi), subjects in scores.items()
        for i, folds in enumerate(subjects)
    )


def test_pairs_of_networks_by_hand(rng):
    scores = {(m, r): rng.normal(0.3, 0.1, (9, 4)) for m in "abc" for r in ("X", "Y")}
    found = inference.between_models(networks(rng, scores))
    assert [tuple(x) for x in found[["first", "second", "roi"]].to_numpy()] == [
        (*pair, roi) for pair in (("a", "b"), ("a", "c"), ("b", "c")) for roi in ("X", "Y")
    ]
    for (first, second), own in found.groupby(["first", "second"]):
        p_t, p_w = [], []
        for test in own.itertuples():
            d = (scores[first, test.roi] - scores[second, test.roi]).mean(axis=1)
            assert test.difference == pytest.approx(d.mean()) and test.num_subjects == 9
            assert (test.t, test.p_t) == pytest.approx(tuple(scipy_stats.ttest_1samp(d, 0)))
            assert test.d_z == pytest.approx(d.mean() / d.std(ddof=1))
            p_t.append(test.p_t)
            p_w.append(scipy_stats.wilcoxon(d, method="exact").pvalue)
            assert test.p_wilcoxon == pytest.approx(p_w[-1])
            assert test.ci_low < test.difference < test.ci_high
            values = scores[first, test.roi] - scores[second, test.roi]
            assert test.p == pytest.approx(stats.crossed_p(values))
            assert (test.p < 0.05) == (test.ci_low > 0 or test.ci_high < 0)
        for p, adjusted in ((p_t, own.p_t_adjusted), (p_w, own.p_wilcoxon_adjusted)):
            np.testing.assert_allclose(adjusted, scipy_stats.false_discovery_control(p))


def test_pairs_are_corrected_for_being_several(rng):
    scores = {(m, r): rng.normal(0.3, 0.1, (9, 4)) for m in "abcd" for r in ("X", "Y")}
    found = inference.between_models(networks(rng, scores))
    for _, own in found.groupby("roi"):
        p, adjusted = own.p.to_numpy(), own.p_over_pairs.to_numpy()
        order = np.argsort(p)
        assert len(p) == 6 and adjusted[order[0]] == pytest.approx(min(6 * p.min(), 1))
        assert (np.diff(adjusted[order]) >= 0).all() and (adjusted >= p).all()


def test_of_a_single_test_set_there_is_no_test(rng):
    """Subjects who share it would reject where the models do not differ."""
    scores = {(m, "X"): rng.normal(size=(9, 1)) for m in "ab"}
    (test,) = inference.between_models(networks(rng, scores)).itertuples()
    assert np.isfinite(test.difference)
    assert np.isnan([test.ci_low, test.p, test.p_t, test.p_wilcoxon, test.p_over_pairs]).all()


def test_networks_of_other_folds_are_not_paired(rng):
    """As of two protocols, whose numbers of folds may differ or not."""
    for num_folds in (3, 5):
        scores = {("a", "X"): rng.normal(size=(5, 3)), ("b", "X"): rng.normal(size=(5, num_folds))}
        rows = networks(rng, scores | {("c", "X"): rng.normal(size=(5, 3))})
        rows.loc[rows.model == "b", "folds_hash"] = "other"
        (test,) = inference.between_models(rows).itertuples()
        assert (test.first, test.second, test.num_subjects) == ("a", "c", 5)


def test_regions_and_subjects_that_both_have(rng):
    scores = {("a", "X"): rng.normal(size=(5, 3)), ("b", "X"): rng.normal(size=(7, 3))}
    scores["a", "Y"] = rng.normal(size=(5, 3))
    scores["b", "X"][1, 2] = np.nan
    (test,) = inference.between_models(networks(rng, scores)).itertuples()
    assert test.roi == "X" and test.num_subjects == 4
    d = (scores["a", "X"] - scores["b", "X"][:5]).mean(axis=1)
    assert test.p_t == pytest.approx(scipy_stats.ttest_1samp(d[~np.isnan(d)], 0).pvalue)


def permuted(subject, layer, score, p, **changes):
    """A row of permutation tests, as far as the table reads it."""
    return {
        "dataset": "toy",
        "model": "a",
        "control_of": "",
        "layer": layer,
        "subject": subject,
        "roi": "X",
        "protocol": "nested-ridge",
        "context": "window:10",
        "num_orders": 99,
        "score": score,
        "p": p,
        "p_adjusted": 2 * p,
    } | changes


def test_permutation_tests_of_the_largest_score_of_any_layer():
    people = [permuted(f"s{i}", -1, 0.1, p) for i, p in enumerate((0.01, 0.025, 0.03, np.nan))]
    layers = [permuted("group", layer, 0.2, 0.5) for layer in (0, 1)]
    whole = [permuted("group", -1, 0.4, 0.02), permuted("mean", -1, 0.3, 0.04)]
    single = [permuted("group", 0, 0.6, 0.1, model="b"), permuted("s1", 0, 0.5, 0.2, model="b")]
    rows = pd.DataFrame([*people, *layers, *whole, *single])
    a, b = inference.significance(rows).itertuples()
    assert (a.model, a.group_score, a.group_p, a.group_p_adjusted) == ("a", 0.4, 0.02, 0.04)
    assert (a.mean_score, a.mean_p, a.num_orders) == (0.3, 0.04, 99)
    assert (a.num_significant, a.num_subjects) == (2, 3)
    assert (b.model, b.group_score, b.num_significant, b.num_subjects) == ("b", 0.6, 0, 1)
    assert np.isnan(b.mean_score)
    with refused("a on toy has context 'window:10', 'none'"):
        inference.significance(pd.concat([rows, rows.assign(context="none")]))
