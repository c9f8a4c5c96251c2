"""Ceilings that `score_arrays` is given, or computes with a protocol's folds and regression."""

import dataclasses

import ceiling_oracle as oracle
import numpy as np
import protocol_oracle
import pytest
from quiet import close, score
from refusals import refused
from sklearn import linear_model

import jaxalign
from jaxalign.core.ceilings import subsets
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.inference import stats
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import Folds, Penalty
from jaxalign.literature import protocols


def voxels(rng, sizes, *, noise=1.0):
    """Responses of subjects who share two signals, each with voxels of its own."""
    signal = rng.standard_normal((60, 2))
    mixed = [signal @ rng.standard_normal((2, size)) for size in sizes]
    Y = np.concatenate(mixed, axis=1)
    subjects = [f"s{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return signal, Y + noise * rng.standard_normal(Y.shape), subjects


# Least squares on three folds: what these tests are of does not depend on it.
PLAIN = dataclasses.replace(
    protocols.find("brainscore-linear-2026"), name="plain", folds=Folds(rule="kfold", num=3)
)


# The default with a single penalty, which chooses nothing.
SHARED = dataclasses.replace(
    protocols.find("jaxalign"),
    penalty=Penalty(grid=(10.0,), choose="blocks"),
    folds=Folds(rule="blocks", num=3),
)

# Given


@pytest.mark.slow
def test_a_given_ceiling_divides_and_is_clipped(rng):
    X, Y, _ = voxels(rng, (3,))
    raw = score(X, Y, protocol=PLAIN).raw
    assert score(X, Y, protocol=PLAIN, ceiling=2 * raw).score == pytest.approx(0.5)
    above = score(X, Y, protocol=PLAIN, ceiling=raw / 2)
    assert (above.score, above.raw) == (1.0, raw)
    assert np.isnan(score(X, Y, protocol=PLAIN, ceiling=-1.0).score)
    each = np.array([0.3, 0.9, 0.5])
    found = score(X, Y, protocol=PLAIN, ceiling=each)
    assert found.ceiling == pytest.approx(0.5)
    np.testing.assert_array_equal(found.ceiling_per_target, each)
    assert np.isnan(found.ceiling_low) and np.isnan(found.ceiling_high)


def test_a_given_ceiling_may_have_an_interval(rng):
    X, Y, _ = voxels(rng, (3,))
    ends = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.7, 0.6])
    known = Ceiling(np.array([0.3, np.nan, 0.5]), *ends, np.full(3, 9))
    found = score(X, Y, protocol=PLAIN, ceiling=known)
    np.testing.assert_allclose(
        [found.ceiling, found.ceiling_low, found.ceiling_high], [0.4, 0.2, 0.6]
    )


def test_an_unknown_ceiling_of_a_target_is_left_out(rng):
    """Even where undefined scores count as zeros."""
    X, Y, _ = voxels(rng, (3,))
    each = np.array([0.4, np.nan, 0.8])
    assert score(X, Y, protocol=PLAIN, ceiling=each).ceiling == pytest.approx(0.6)
    rule = dataclasses.replace(PLAIN.aggregation, first="folds", targets="mean")
    own = dataclasses.replace(PLAIN, normalize="per_target", aggregation=rule)
    found = score(X, Y, protocol=own, ceiling=each)
    close(found.score, np.mean(found.per_target[[0, 2]] / each[[0, 2]]))
    close(score(X, Y, protocol=own, ceiling=0.5).score, found.raw / 0.5)


# Subjects who share targets


@pytest.mark.parametrize("complete", [True, False])
def test_leaving_one_subject_out(rng, complete):
    """With an interval over subjects; where not all have all targets, whoever has them counts."""
    n, signal = 120, rng.standard_normal((120, 2))
    Y = np.concatenate([signal + rng.standard_normal((n, 2)) for _ in range(4)], axis=1)
    subjects, targets = list("aabbccdd"), list("xyxyxyxy")
    order = rng.permutation(8)
    if not complete:
        targets[0] = "only"
    Y, subjects, targets = Y[:, order], *([x[i] for i in order] for x in (subjects, targets))
    found = score(signal, Y, protocol=SHARED, subjects=subjects, targets=targets)
    blocks = [fold.outer.test for fold in scoring.make_folds(SHARED, n)]
    Z = protocol_oracle.zscore(Y)
    expected = oracle.with_others(Z, blocks, subjects, targets)
    close(found.ceiling_per_target, expected)
    assert np.isnan(expected).sum() == (0 if complete else 1)
    value = oracle.mean_over_subjects(expected, subjects)
    close(found.ceiling, value)
    left_out = []
    for one in "abcd":
        rest = np.array(subjects) != one
        names = [np.array(x)[rest] for x in (subjects, targets)]
        own = oracle.with_others(Z[:, rest], blocks, *names)
        left_out.append(oracle.mean_over_subjects(own, names[0]))
    close([found.ceiling_low, found.ceiling_high], oracle.z_interval(value, left_out))
    assert found.ceiling_low < found.ceiling < found.ceiling_high
    assert found.score == found.raw


def test_two_subjects_have_a_ceiling_without_an_interval(rng):
    X, Y, _ = voxels(rng, (1, 1))
    found = score(X, Y, protocol=SHARED, subjects=["a", "b"], targets=["x", "x"])
    assert np.isfinite(found.ceiling) and np.isnan(found.ceiling_low)
    assert np.isnan(score(X, Y, protocol=SHARED, subjects=["a", "b"]).ceiling)
    one = score(X, Y, protocol=SHARED, subjects=["a", "a"], targets=["x", "y"])
    assert np.isnan(one.ceiling) and np.isfinite(one.raw)


# Subjects with targets of their own


def shuffled(Y):
    return lambda X, own: protocol_oracle.shuffled(X, Y[:, own])


@pytest.mark.slow
@pytest.mark.parametrize("year,noise", [(2023, 1.0), (2026, 3.0)])
def test_extrapolated_from_every_subset(rng, year, noise):
    X, Y, subjects = voxels(rng, (2, 1, 3, 1), noise=noise)
    scores = oracle.exhaustive(Y, subjects, shuffled(Y))
    expected = oracle.extrapolated(Y, subjects, scores)
    found = score(X, Y, protocol=f"brainscore-linear-{year}", subjects=subjects)
    close(found.ceiling_per_target, expected, 1e-4)
    close(found.ceiling, np.median(expected), 1e-4)
    close(found.score, np.clip(found.raw / np.median(expected), 0, 1), 1e-3)
    value, *left_out = (
        np.nanmedian(oracle.extrapolated(Y, subjects, scores, without=one))
        for one in ("nobody", "s0", "s1", "s2", "s3")
    )
    half = np.subtract(*oracle.t_interval(found.ceiling, left_out)[::-1]) / 2
    low, high = stats.fisher_ends(found.ceiling, half)
    close([found.ceiling_low, found.ceiling_high], [low, high], 2e-3)
    assert value == pytest.approx(found.ceiling, abs=0.1)


@pytest.mark.slow
def test_extrapolated_by_grouped_ridge(rng):
    """One penalty for all targets of the subject who is predicted, chosen inside."""
    X, Y, subjects = voxels(rng, (2, 40, 3, 30), noise=2.0)
    groups = np.repeat(np.arange(12), 5)
    grouped = lambda Z, own: protocol_oracle.grouped_ridge(Z, Y[:, own], groups)[0]
    expected = oracle.extrapolated(
        Y, subjects, oracle.exhaustive(Y, subjects, grouped), num_resamples=100
    )
    found = score(X, Y, protocol="brainscore-ridge", groups=groups, subjects=subjects)
    close(found.ceiling_per_target, expected, 2e-4)
    close(found.ceiling, np.median(expected), 1e-4)


@pytest.mark.slow
def test_extrapolated_by_ridge_of_each_side(rng):
    """Each target divided by its own ceiling; three subjects leave no interval."""
    X, Y, subjects = voxels(rng, (2, 3, 2))
    test = np.arange(60) % 4 == 0
    scores = oracle.exhaustive(Y, subjects, oracle.oota(Y, test))
    expected = oracle.extrapolated(Y, subjects, scores)
    found = score(X, Y, protocol="oota2025", test=test, subjects=subjects)
    close(found.ceiling_per_target, expected, 1e-4)
    close(found.ceiling, oracle.mean_over_subjects(expected, subjects), 1e-4)
    ratio = found.per_target / expected
    close(found.score, oracle.mean_over_subjects(ratio, subjects), 1e-3)
    assert np.isnan(found.ceiling_low)


@pytest.mark.slow
def test_subsets_take_a_regression_from_elsewhere(rng):
    """Least squares of scikit-learn, in place of that of the package."""
    _, Y, subjects = voxels(rng, (2, 1, 3, 1))
    folds = scoring.make_folds(protocols.find("brainscore-linear-2023"), len(Y))
    regress = lambda columns: protocol_oracle.shuffled(Y[:, columns], Y)
    splits = [fold.outer for fold in folds]
    expected = subsets.score(Y, subjects, splits)
    found = subsets.score_by(regress, subjects, len(splits))

    def spread(columns):
        """Standard deviations of predictions, in those of responses, over each test set."""
        fit = linear_model.LinearRegression().fit
        predicted = [fit(Y[x.train][:, columns], Y[x.train]).predict(Y[:, columns]) for x in splits]
        pairs = zip(predicted, splits, strict=True)
        return np.array([p[x.test].std(axis=0) / Y[x.test].std(axis=0) for p, x in pairs])

    spreads = subsets.score_by(spread, subjects, len(splits))
    for a, b, own in zip(found.r, expected.r, spreads.r, strict=True):
        # Products are float32: predictions that hardly vary beside what is predicted lose digits.
        assert (np.abs(a - b) <= 1e-6 + np.finfo(np.float32).eps / own).all()
        assert np.median(own) > 0.05


@pytest.mark.slow
def test_a_sample_of_all_subsets_is_all_of_them(rng):
    X, Y, subjects = voxels(rng, (1, 1, 1))
    own = {"protocol": "brainscore-linear-2023", "subjects": subjects}
    assert score(X, Y, **own, max_subsets=3).ceiling == score(X, Y, **own).ceiling
    assert np.isnan(score(X, Y, **own, ceiling=np.nan).ceiling)
    pair = score(X, Y[:, :2], protocol="brainscore-linear-2023", subjects=["a", "b"])
    assert np.isnan(pair.ceiling) and np.isfinite(pair.raw)
    with refused("max_subsets must keep the subsets to 65536: 17 subjects have"):
        score(X, rng.standard_normal((60, 17)), **own | {"subjects": np.arange(17)})


# Readers


def readers(rng, *, s=9):
    """Reading times of four stories of three sentences of five words."""
    n = 60
    bits = rng.gamma(2.0, 2.0, n)
    times = 300 + 10 * bits[:, None] + 15 * rng.standard_normal((n, s))
    times[rng.random((n, s)) < 0.2] = np.nan
    return bits, times, np.repeat(np.arange(12), 5), np.repeat(list("abcd"), 15)


def test_readers_have_a_split_half_ceiling(rng):
    bits, times, sentences, stories = readers(rng)
    own = {"protocol": "futrell2018-pearsonr", "groups": sentences}
    found = score(bits, times, **own, runs=stories)
    expected = oracle.split_half(times)
    close(found.ceiling, expected, 1e-10)
    close(found.score, min(found.raw / expected, 1.0), 1e-10)
    left_out = [oracle.split_half(times[stories != one]) for one in "abcd"]
    close([found.ceiling_low, found.ceiling_high], oracle.z_interval(expected, left_out), 1e-10)
    one_story = score(bits, times, **own)
    assert one_story.ceiling == found.ceiling and np.isnan(one_story.ceiling_low)
    assert one_story.raw == found.raw and np.isnan(one_story.raw_low)
    # Of the score as well, whatever its sign.
    mean, rows = np.nanmean(times, axis=1), np.arange(60) % 5 > 0
    r = lambda own: np.corrcoef(bits[own], mean[own])[0, 1]
    ends = oracle.z_interval(r(rows), [r(rows & (stories != one)) for one in "abcd"])
    close([found.raw_low, found.raw_high], ends, 1e-10)
    down = score(-bits, times, **own, runs=stories)
    close([down.raw, down.raw_low, down.raw_high], [found.raw, *ends], 1e-10)
    assert np.isnan(score(bits, times[:, 0], **own).ceiling)


def test_sentences_may_be_numbered_story_by_story(rng):
    bits, times, sentences, stories = readers(rng)
    own = {"protocol": "futrell2018-pearsonr", "ceiling": 0.858}
    found = score(bits, times, **own, groups=sentences % 3, runs=stories)
    assert found.raw == score(bits, times, **own, groups=sentences).raw
    with refused("words of a sentence must be adjacent, but 0 begins twice"):
        score(bits, times, **own, groups=sentences % 3)


# In a notebook


@pytest.mark.slow
def test_a_score_describes_itself(rng):
    X, Y, subjects = voxels(rng, (1, 1, 1))
    found = score(X, Y, protocol="brainscore-linear-2023", subjects=subjects)
    shown = repr(found._replace(ceiling_low=0.1, ceiling_high=0.9))
    assert f"AlignmentScore of protocol brainscore-linear-2023: {found.score:.4f}" in shown
    assert "95 % interval 0.1000 to 0.9000" in shown and "in contiguous folds" in shown
    assert f"10 folds ({found.folds_hash}), 3 targets, 0 undefined" in shown
    assert "interval" not in repr(found)
    shown = repr(found._replace(raw=0.25, raw_low=0.125, raw_high=0.375))
    assert "raw 0.2500 (95 % interval 0.1250 to 0.3750), ceiling" in shown
    several = found._replace(
        per_layer=np.zeros(3), layers=np.array([[2, 2, 0]]), contiguous=float("nan")
    )
    assert "3 layers: most often layer 2" in repr(several)
    assert "contiguous" not in repr(several)
    assert "mean of all" in repr(several._replace(layers=np.full((1, 3), -1)))


@pytest.mark.slow
def test_ceilings_near_zero_divide_nothing(rng):
    """0.06 by .005 is no score of 11: it is undefined, and counted."""
    X = rng.standard_normal((300, 1))
    Y = X + 3 * rng.standard_normal((300, 4))
    own = {"protocol": "oota2025", "test": np.arange(300) >= 200}
    found = score(X, Y, **own, ceiling=np.array([0.3, 0.3, 0.3, 0.005]))
    assert found.num_below_floor == 1
    kept = found.per_target[:3]
    close(found.score, kept.mean() / 0.3)
    with pytest.warns(jaxalign.CeilingWarning, match="4 of 4 targets have a ceiling below 0.05"):
        low = jaxalign.score_arrays(X, Y, **own, ceiling=0.005)
    assert np.isnan(low.score) and low.num_below_floor == 4 and "below the floor" in repr(low)
