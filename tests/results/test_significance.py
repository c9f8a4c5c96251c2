"""P-values of rows, by hand from null scores."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxalign.results import significance as sig
from jaxalign.results.targets import Targets

Q = 19


def goals(names):
    """Return targets named "subject roi"; scores alone are looked at."""
    subject, roi = zip(*(x.split() for x in names), strict=True)
    target = [str(i) for i in range(len(names))]
    return Targets(np.zeros((2, len(names))), list(subject), list(roi), target)


NAMES = ["s1 A", "s1 A", "s1 B", "s2 A", "s2 A", "s2 B", "group A", "group A", "group B"]


@pytest.fixture
def scores(rng):
    found = rng.normal(size=(1 + Q, len(NAMES)))
    found[0] += np.arange(len(NAMES)) / 3
    return found


def by_key(rows, layer):
    return {(row["subject"], row["roi"]): row for row in rows if row["layer"] == layer}


def test_rows_by_hand(scores):
    parts = [scores[:, :4], scores[:, 4:]]  # a part may end within a row
    rows = by_key(
        sig.by_subject_and_roi({3: sig.collect(parts, goals(NAMES))}, goals(NAMES)), layer=3
    )
    assert len(rows) == 6 + 2
    expected = {
        ("s1", "A"): scores[:, [0, 1]],
        ("s1", "B"): scores[:, [2]],
        ("s2", "A"): scores[:, [3, 4]],
        ("s2", "B"): scores[:, [5]],
        ("group", "A"): scores[:, [6, 7]],
        ("group", "B"): scores[:, [8]],
    }
    means = {key: x.mean(axis=1) for key, x in expected.items()}
    means["mean", "A"] = (means["s1", "A"] + means["s2", "A"]) / 2
    means["mean", "B"] = (means["s1", "B"] + means["s2", "B"]) / 2
    p = {key: (1 + (x[1:] >= x[0]).sum()) / (1 + Q) for key, x in means.items()}
    for key, row in rows.items():
        assert row["score"] == pytest.approx(means[key][0])
        assert row["p"] == pytest.approx(p[key])
        assert row["null_mean"] == pytest.approx(means[key][1:].mean())
        assert row["null_sd"] == pytest.approx(means[key][1:].std())
    for family in (["s1", "s2"], ["group"], ["mean"]):
        own = [key for key in rows if key[0] in family]
        adjusted = scipy_stats.false_discovery_control([p[key] for key in own])
        assert [rows[key]["p_adjusted"] for key in own] == pytest.approx(adjusted)
    for key, columns in expected.items():
        single = [(1 + (x[1:] >= x[0]).sum()) / (1 + Q) for x in columns.T]
        adjusted = scipy_stats.false_discovery_control(single)
        assert rows[key]["num_significant"] == (adjusted <= 0.05).sum()
        assert rows[key]["num_targets"] == len(single)


def test_the_best_layer_is_held_against_the_best_of_nulls(scores, rng):
    """Looking for the best of many layers without a signal is no discovery."""
    layers = {i: rng.normal(size=scores.shape) for i in range(30)}
    nulls = {i: sig.collect([x], goals(NAMES)) for i, x in layers.items()}
    rows = by_key(sig.by_subject_and_roi(nulls, goals(NAMES)), layer=sig.ANY)
    stacked = np.stack([x[:, 5] for x in layers.values()])
    top = stacked.max(axis=0)
    found = rows["s2", "B"]
    assert found["score"] == pytest.approx(top[0])
    assert found["p"] == pytest.approx((1 + (top[1:] >= top[0]).sum()) / (1 + Q))
    # Of the layer by itself the p would be less.
    best = stacked[stacked[:, 0].argmax()]
    assert found["p"] > (1 + (best[1:] >= best[0]).sum()) / (1 + Q)


def test_undefined_targets_are_in_no_mean_and_undefined_nulls_count_as_large(scores):
    scores[:, 1] = np.nan  # a target of s1 in A
    scores[:, 5] = np.nan  # all there is of s2 in B
    scores[3, 8] = np.nan  # a null of the group in B
    found = goals(NAMES)
    rows = by_key(sig.by_subject_and_roi({0: sig.collect([scores], found)}, found), layer=0)
    assert rows["s1", "A"]["score"] == pytest.approx(scores[0, 0])
    assert np.isnan([rows["s2", "B"][x] for x in ("score", "p", "p_adjusted")]).all()
    assert rows["mean", "B"]["score"] == pytest.approx(scores[0, 2])
    nulls = np.where(np.isnan(scores[1:, 8]), np.inf, scores[1:, 8])
    assert rows["group", "B"]["p"] == pytest.approx((1 + (nulls >= scores[0, 8]).sum()) / (1 + Q))


def test_an_undefined_layer_is_never_the_best(scores):
    found = goals(NAMES)
    undefined = scores.copy()
    undefined[:, :3] = np.nan
    nulls = {0: sig.collect([scores], found), 1: sig.collect([undefined], found)}
    rows = sig.by_subject_and_roi(nulls, found)
    assert by_key(rows, sig.ANY)["s1", "B"]["p"] == by_key(rows, 0)["s1", "B"]["p"]
    nulls = {i: sig.collect([undefined], found) for i in range(2)}
    assert np.isnan(by_key(sig.by_subject_and_roi(nulls, found), sig.ANY)["s1", "A"]["p"])


def test_targets_by_hand(scores, rng):
    """Corrected over the targets of each subject; the group has no map."""
    other = rng.normal(size=scores.shape)
    other[0, 1], scores[3, 4] = np.nan, np.nan  # a score of one layer, a null
    first = sig.collect([scores[:, :4], scores[:, 4:]], goals(NAMES))
    last = sig.collect([other], goals(NAMES), first.best)
    np.testing.assert_array_equal(first.best, scores.astype(np.float32))  # is left as it is
    found = sig.by_target(last.best, goals(NAMES))
    assert found["subject"] == ["s1"] * 3 + ["s2"] * 3
    assert found["target"] == [str(i) for i in range(6)]
    best = np.fmax(scores, other).astype(np.float32)
    best[:, 1] = scores[:, 1]  # only where its score is defined does a layer take part
    best[3, 4] = np.inf  # what is undefined counts as large
    p = (1 + (best[1:] >= best[0]).sum(axis=0)) / (1 + Q)
    np.testing.assert_allclose(found["p"], p[:6])
    np.testing.assert_allclose(found["score"], best[0, :6])
    best[3, 4] = -np.inf  # but says nothing of other targets
    for own in (slice(0, 3), slice(3, 6)):
        adjusted = scipy_stats.false_discovery_control(p[own])
        np.testing.assert_allclose(found["p_fdr"][own], adjusted)
        largest = best[1:, own].max(axis=1)
        p_max = (1 + (largest[:, None] >= best[0, own]).sum(axis=0)) / (1 + Q)
        np.testing.assert_allclose(found["p_max"][own], np.maximum(p_max, p[own]))


def test_a_target_without_a_score_has_no_p(scores):
    scores[:, 2] = np.nan
    found = sig.by_target(sig.collect([scores], goals(NAMES)).best, goals(NAMES))
    for name in ("score", "p", "p_fdr", "p_max"):
        assert np.flatnonzero(np.isnan(found[name])).tolist() == [2]


def test_voxels_are_rejected_as_often_as_said(rng):
    """Of maps without a signal 5 % of voxels, and one map in twenty by the maximum.

    With one the share of false discoveries is at most that asked for.
    """
    num, true, q = 200, 40, 99
    alone, family, false, power = [], [], [], []
    for _ in range(60):
        both = np.append(rng.normal(size=(1 + q, 2 * num)), np.full((1 + q, 1), 0.0), axis=1)
        both += rng.normal(size=(1 + q, 1))  # orders are shared, so that voxels depend
        both[0, num : num + true] += 5.0
        names = ["s1 A"] * num + ["s2 A"] * num + ["group A"]
        found = sig.by_target(sig.collect([both], goals(names)).best, goals(names))
        p, p_fdr, p_max = (np.array(found[x]) for x in ("p", "p_fdr", "p_max"))
        alone.append((p[:num] <= 0.05).mean())
        family.append((p_max[:num] <= 0.05).any())
        rejected = p_fdr[num:] <= 0.1
        false.append(rejected[true:].sum() / max(rejected.sum(), 1))
        power.append(rejected[:true].mean())
    assert np.mean(alone) == pytest.approx(0.05, abs=0.03)
    assert np.mean(family) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
    assert np.mean(false) <= 0.1 and np.mean(power) > 0.5
