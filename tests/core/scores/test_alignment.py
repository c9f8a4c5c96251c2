"""Intervals of a protocol's one score."""

import dataclasses

import numpy as np
import pytest

from jaxalign.core.inference import stats
from jaxalign.core.scores import alignment
from jaxalign.core.scores.protocol import Aggregation

MEANS = Aggregation(undefined="skip", layers="maximum")
SUBJECTS = list("abacbc")  # in no order


def columns(name):
    return [i for i, x in enumerate(SUBJECTS) if x == name]


def over_targets(values, average):
    with np.errstate(all="raise"):
        own = [average(values[:, columns(name)], axis=1) for name in "abc"]
    return np.stack(own)


def test_the_interval_is_over_subjects_and_folds_of_means_over_targets(rng):
    values = rng.normal(size=(5, 6))
    found = alignment.interval(values, MEANS, SUBJECTS)
    expected = stats.crossed_interval(over_targets(values, np.mean))
    np.testing.assert_allclose(found, [expected.low, expected.high], rtol=1e-12)
    narrow = alignment.interval(values, MEANS, SUBJECTS, confidence=0.5)
    assert found[0] < narrow[0] < alignment.summarize(values, MEANS, SUBJECTS).score < narrow[1]


def test_of_one_subject_folds_alone_speak(rng):
    values = rng.normal(size=(5, 6))
    expected = stats.crossed_interval(values.mean(axis=1)[None])
    for subjects in (None, ["a"] * 6):
        found = alignment.interval(values, MEANS, subjects)
        np.testing.assert_allclose(found, [expected.low, expected.high], rtol=1e-12)


def test_medians_of_folds_give_the_width_of_an_interval_about_the_score(rng):
    """The median of means over folds is another number than the mean of medians."""
    values = rng.normal(size=(5, 6)) ** 3
    rule = dataclasses.replace(MEANS, targets="median")
    low, high = alignment.interval(values, rule, SUBJECTS)
    expected = stats.crossed_interval(over_targets(values, np.median))
    assert high - low == pytest.approx(expected.high - expected.low)
    assert (low + high) / 2 == pytest.approx(alignment.summarize(values, rule, SUBJECTS).score)


def test_undefined_scores_are_taken_as_the_rule_takes_them(rng):
    values = rng.normal(size=(5, 6))
    values[2, 0] = np.nan
    dropped = values.copy()
    dropped[:, 0] = np.nan
    zero = np.nan_to_num(values)
    for undefined, same in (("skip", values), ("drop_target", dropped), ("zero", zero)):
        rule = dataclasses.replace(MEANS, undefined=undefined)
        expected = stats.crossed_interval(over_targets(same, np.nanmean))
        found = alignment.interval(values, rule, SUBJECTS)
        assert found[1] - found[0] == pytest.approx(expected.high - expected.low)
        score = alignment.summarize(values, rule, SUBJECTS).score
        assert sum(found) / 2 == pytest.approx(score)


def test_what_has_no_interval(rng):
    values = rng.normal(size=(5, 6))
    pooled = dataclasses.replace(MEANS, subjects="pooled", first="targets", targets="median")
    assert np.isnan(alignment.interval(values, pooled, SUBJECTS)).all()
    assert np.isfinite(alignment.interval(values, pooled)).all()
    assert np.isnan(alignment.interval(values[:1], MEANS, SUBJECTS)).all()
    assert np.isnan(alignment.interval(np.full((5, 6), np.nan), MEANS, SUBJECTS)).all()
