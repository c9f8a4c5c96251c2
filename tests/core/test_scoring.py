import dataclasses

import numpy as np
import pytest
from sklearn import model_selection

from jaxalign.core import folds as folds_lib
from jaxalign.core import scoring
from jaxalign.core.protocol import Aggregation, Folds, Penalty, Protocol, Scaling
from jaxalign.data import protocols

N = 60
GROUPS = np.array([f"story {i}" for i in np.repeat(np.arange(12), 5)])


def assert_same(folds, splits):
    """Outer folds, index for index."""
    for fold, (train, test) in zip(folds, splits, strict=True):
        np.testing.assert_array_equal(fold.outer.train, train)
        np.testing.assert_array_equal(fold.outer.test, test)


@pytest.mark.parametrize("year", [2023, 2026])
def test_folds_of_shuffled_protocols(year):
    folds = scoring.make_folds(protocols.find(f"brainscore-linear-{year}"), N)
    splitter = model_selection.ShuffleSplit(n_splits=10, train_size=0.9, random_state=1)
    assert_same(folds, splitter.split(np.zeros(N)))
    assert all(fold.inner == () for fold in folds)


def test_folds_of_whole_groups():
    folds = scoring.make_folds(protocols.find("brainscore-ridge"), N, groups=GROUPS)
    splitter = model_selection.GroupKFold(n_splits=10, shuffle=True, random_state=1234)
    assert_same(folds, splitter.split(np.zeros(N), groups=GROUPS))


def test_folds_of_himalaya():
    """Inner folds cut each training set anew."""
    folds = scoring.make_folds(protocols.find("himalaya"), N)
    assert_same(folds, model_selection.KFold(5).split(np.zeros(N)))
    for fold in folds:
        expected = model_selection.KFold(5).split(fold.outer.train)
        for split, (train, test) in zip(fold.inner, expected, strict=True):
            np.testing.assert_array_equal(split.train, fold.outer.train[train])
            np.testing.assert_array_equal(split.test, fold.outer.train[test])


@pytest.mark.parametrize("name", ["huth", "oota2025"])
def test_folds_of_a_test_set(name):
    own = protocols.find(name)
    if own.penalty.choose == "chunks":
        smaller = dataclasses.replace(own.penalty, chunk=4, num_chunks=3)
        own = dataclasses.replace(own, penalty=smaller)
    test = np.arange(N) % 3 == 0
    (fold,) = scoring.make_folds(own, N, test=test)
    assert_same([fold], [(np.flatnonzero(~test), np.flatnonzero(test))])
    assert len(fold.inner) == own.penalty.num
    for split in fold.inner:
        assert set(split.train) | set(split.test) == set(fold.outer.train)


def test_default_folds():
    own = protocols.find("jaxalign")
    runs = np.repeat([0, 1], 30)
    found = scoring.make_folds(own, N, runs=runs)
    expected = folds_lib.contiguous_folds(runs, 6, gap=6)
    assert folds_lib.folds_hash(found) == folds_lib.folds_hash(expected)
    found = scoring.make_folds(own, N, groups=GROUPS)
    expected = folds_lib.contiguous_folds(GROUPS, 6, gap=0, groups=GROUPS)
    assert folds_lib.folds_hash(found) == folds_lib.folds_hash(expected)


def test_folds_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="wikitext2-nwp must be of kind 'encoding'"):
        scoring.make_folds(protocols.find("wikitext2-nwp"), N)


# Summaries


VALUES = np.array([[0.1, 0.5, np.nan, 0.9], [0.3, 0.1, 0.2, 0.7]])
SUBJECTS = ["a", "b", "b", "b"]


@pytest.mark.parametrize(
    "rule,score,per_fold",
    [
        (Aggregation(), (0.2 + (0.3 + 0.8) / 2) / 2, [0.4, (0.3 + 1 / 3) / 2]),
        (Aggregation(subjects="pooled"), (0.2 + 0.3 + 0.8) / 3, [0.5, 1.3 / 4]),
        (Aggregation(undefined="skip"), (0.2 + (0.3 + 0.2 + 0.8) / 3) / 2, None),
        (
            Aggregation(first="targets", targets="median", subjects="pooled", undefined="skip"),
            (0.5 + 0.25) / 2,
            [0.5, 0.25],
        ),
        (
            Aggregation(first="targets", targets="median", subjects="pooled", undefined="zero"),
            (0.3 + 0.25) / 2,
            [0.3, 0.25],
        ),
        (Aggregation(targets="median", undefined="skip"), (0.2 + 0.3) / 2, None),
    ],
)
def test_summaries_by_hand(rule, score, per_fold):
    found = scoring.summarize(VALUES, rule, SUBJECTS)
    assert found.score == pytest.approx(score)
    if per_fold and rule.first == "targets":
        np.testing.assert_allclose(found.per_fold, per_fold)
    if rule == Aggregation():
        np.testing.assert_allclose(found.per_fold, [(0.1 + 0.7) / 2, (0.3 + 1 / 3) / 2])
        assert np.isnan(found.per_target[2])


def test_nothing_defined_is_undefined():
    nothing = np.full((2, 3), np.nan)
    for rule in (Aggregation(), Aggregation(targets="median", undefined="skip")):
        found = scoring.summarize(nothing, rule, ["a", "a", "b"])
        assert np.isnan(found.score) and np.isnan(found.per_fold).all()


def test_subjects_weigh_the_same(rng):
    values = rng.standard_normal((5, 9))
    subjects = ["a"] * 2 + ["b"] * 7
    found = scoring.summarize(values, Aggregation(), subjects)
    assert found.score == pytest.approx((values[:, :2].mean() + values[:, 2:].mean()) / 2)
    pooled = scoring.summarize(values, Aggregation(subjects="pooled"), subjects)
    assert pooled.score == pytest.approx(values.mean())


# What does not go together


@pytest.mark.parametrize(
    "build,message",
    [
        (lambda: Folds(rule="random"), "folds.rule must be one of shuffled,.*got 'random'"),
        (lambda: Folds(rule="kfold", num=1), "folds.num must be >= 2 for 'kfold', got 1"),
        (lambda: Folds(rule="blocks", num=2), "folds.num must be >= 3 for 'blocks', got 2"),
        (lambda: Folds(rule="test_set", num=2), "for 'test_set' and no more, got 2"),
        (lambda: Folds(rule="kfold", num=3, gap=-1), "folds.gap must be >= 0, got -1"),
        (lambda: Folds(rule="shuffled", num=3, train_share=1.0), "train_share must lie in 0..1"),
        (lambda: Scaling(features="both"), "scaling.features must be one of as_given"),
        (lambda: Scaling(responses="training"), "scaling.responses must be one of as_given, each"),
        (lambda: Scaling(within_runs="all"), "scaling.within_runs must be one of none"),
        (lambda: Scaling(pca=-1), "scaling.pca must be >= 0"),
        (lambda: Scaling(features="training", intercept=False), "needs an intercept"),
        (lambda: Penalty(grid=()), "penalty.grid must ascend"),
        (lambda: Penalty(grid=(2.0, 1.0), choose="loo"), "penalty.grid must ascend"),
        (lambda: Penalty(grid=(0.0, 1.0), choose="loo"), "penalty.grid must be positive"),
        (lambda: Penalty(grid=(1.0, 2.0)), "penalty.choose must say how: there are 2 to choose"),
        (lambda: Penalty(grid=(0.0,), choose="loo"), "'loo' is not for least squares"),
        (lambda: Penalty(grid=(1.0, 2.0), choose="kfold"), "penalty.num is too small"),
        (lambda: Penalty(grid=(1.0, 2.0), choose="chunks", num=2), "chunk and penalty.num_chunks"),
        (
            lambda: Penalty(grid=(1.0, 2.0), choose="gcv", criterion="correlation"),
            "'gcv' is of squared errors",
        ),
        (lambda: Aggregation(targets="mode"), "aggregation.targets must be one of mean, median"),
        (lambda: Aggregation(first="targets"), "'targets' goes with pooled subjects"),
        (lambda: Protocol(name="x", source=""), "folds and penalty belong to kind 'encoding'"),
        (lambda: Protocol(name="x", source="", kind="average"), "parts belong to kind 'average'"),
    ],
)
def test_impossible_protocols_are_refused(unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"folds": Folds(rule="kfold", num=5)}, "inner blocks need outer folds of blocks"),
        ({"penalty": Penalty(grid=(1.0,))}, "nested layers need something inside that chooses"),
        (
            {"penalty": Penalty(grid=(1.0, 2.0), choose="loo", criterion="relative_error")},
            "a relative error needs inner test sets",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(protocols.find("jaxalign"), **changes)
