import dataclasses

import numpy as np
import protocol_oracle as oracle
import pytest

from jaxalign.core.scores import alignment, scoring
from jaxalign.core.scores.protocol import Aggregation, Folds, Penalty, Protocol, Scaling
from jaxalign.data.sets import alice, natural_stories, pereira_mean
from jaxalign.literature import protocols

N = 60

ENCODING = [name for name, own in protocols.PROTOCOLS.items() if own.kind == "encoding"]


def labels(rng, n, *, num_groups=24, num_runs=3):
    """Adjacent groups of unequal size, runs, and a test set."""
    edges = np.sort(rng.choice(np.arange(1, n), num_groups - 1, replace=False))
    groups = np.array([f"story {i}" for i in np.searchsorted(edges, np.arange(n), side="right")])
    return groups, np.arange(n) * num_runs // n, rng.random(n) < 0.2


def check_folds(name, n, groups, runs, test):
    """Compare outer and inner folds, index for index."""
    own, sizes = protocols.find(name), {}
    if own.penalty.choose == "chunks":
        sizes = {"chunk": 4, "num_chunks": 5}
        own = dataclasses.replace(own, penalty=dataclasses.replace(own.penalty, **sizes))
        sizes["times"] = own.penalty.num
    test = test if own.folds.rule == "test_set" else None
    found = scoring.make_folds(own, n, groups=groups, runs=runs, test=test)
    expected = oracle.folds(name, n, groups=groups, runs=runs, test=test, sizes=sizes)
    for fold, (train, tested, inner) in zip(found, expected, strict=True):
        for split, pair in zip((fold.outer, *fold.inner), ((train, tested), *inner), strict=True):
            np.testing.assert_array_equal(split.train, pair[0])
            np.testing.assert_array_equal(split.test, pair[1])


@pytest.mark.parametrize("n", [60, 243, 1317])
@pytest.mark.parametrize("name", ENCODING)
def test_folds_index_for_index(rng, name, n):
    groups, runs, test = labels(rng, n)
    check_folds(name, n, groups, runs, test)
    # Groups need not be adjacent; within runs their neighbours would leave nothing to train on.
    check_folds(name, n, rng.permutation(groups), None, test)


@pytest.mark.parametrize("with_runs", [False, True])
@pytest.mark.parametrize("name", [x for x in ENCODING if not x.startswith("brainscore-ridge")])
def test_folds_without_groups(rng, name, with_runs):
    _, runs, test = labels(rng, 200)
    check_folds(name, 200, None, runs if with_runs else None, test)


DRAWN = dataclasses.replace(
    protocols.find("jaxalign"), name="drawn", folds=Folds(rule="shuffled_groups", num=6, seed=1)
)


@pytest.mark.parametrize("own", [protocols.find("jaxalign"), DRAWN], ids=["blocks", "drawn"])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_own_folds_keep_presentations_of_a_stimulus_together(rng, own, share):
    """Of groups that divide them, what repeats a test stimulus is not trained on."""
    items = np.concatenate([np.arange(100), rng.permutation(100)])
    items = np.where(rng.random(200) < share, items, 100 + np.arange(200))
    groups = None if own is not DRAWN and share == 1 else np.arange(200) // 5
    if own is DRAWN and share == 1:
        groups = items // 2
    folds = scoring.make_folds(own, 200, groups=groups, items=items)
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            assert len(split.train) > 90
            assert not np.isin(items[split.test], items[split.train]).any()
    assert scoring.repeated(own, folds, items).num_repeated == 0
    assert np.unique(np.concatenate([x.outer.test for x in folds])).tolist() == list(range(200))


@pytest.mark.parametrize("name", [x for x in ENCODING if x != "jaxalign" and "huth" not in x])
def test_folds_of_others_are_refused_where_most_test_stimuli_are_trained_on(rng, name):
    own, n = protocols.find(name), 200
    twice = np.concatenate([np.arange(100), rng.permutation(100)])
    few = np.where(twice < 20, twice, 100 + np.arange(n))
    given = {"groups": np.arange(n) // 10, "runs": None}
    given["test"] = np.arange(n) >= 100 if own.folds.rule == "test_set" else None
    folds = scoring.make_folds(own, n, items=twice, **given)
    same = scoring.make_folds(own, n, items=few, **given)
    plain = scoring.make_folds(own, n, **given)
    for fold, other, third in zip(folds, same, plain, strict=True):
        np.testing.assert_array_equal(fold.outer.train, other.outer.train)
        np.testing.assert_array_equal(fold.outer.train, third.outer.train)
    with pytest.raises(ValueError, match=f"protocol {name} .* test samples .*: average the resp"):
        scoring.repeated(own, folds, twice)
    pairs = [(few[x.outer.train], few[x.outer.test]) for x in folds]
    expected = sum(sum(item in train for item in test) for train, test in pairs)
    assert scoring.repeated(own, folds, few).num_repeated == expected > 0


@pytest.fixture(scope="module")
def recorded(data_root):
    """Groups and runs of Pereira2018's sentences, Alice's TRs and the words of Natural Stories."""
    topic = pereira_mean.PereiraMean(root=data_root).groups()
    sentences = pereira_mean.PereiraMean(root=data_root).stimuli().stimulus_id
    words = np.array(natural_stories.load(data_root, "word").passage)
    return [
        (np.array([topic[x] for x in sentences]), None),
        (np.arange(alice.NUM_TRS) // 12, np.zeros(alice.NUM_TRS)),
        (words, words),
    ]


@pytest.mark.parametrize("name", ENCODING)
def test_folds_of_real_data_index_for_index(recorded, name):
    for groups, runs in recorded:
        n = len(groups)
        if name == "jaxalign" and n > 2000:
            continue  # distances of all pairs take the oracle minutes
        check_folds(name, n, groups, runs, np.arange(n) % 5 == 0)


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
    found = alignment.summarize(VALUES, rule, SUBJECTS)
    assert found.score == pytest.approx(score)
    if per_fold and rule.first == "targets":
        np.testing.assert_allclose(found.per_fold, per_fold)
    if rule == Aggregation():
        np.testing.assert_allclose(found.per_fold, [(0.1 + 0.7) / 2, (0.3 + 1 / 3) / 2])
        assert np.isnan(found.per_target[2])


def test_nothing_defined_is_undefined():
    nothing = np.full((2, 3), np.nan)
    for rule in (Aggregation(), Aggregation(targets="median", undefined="skip")):
        found = alignment.summarize(nothing, rule, ["a", "a", "b"])
        assert np.isnan(found.score) and np.isnan(found.per_fold).all()


def test_subjects_weigh_the_same(rng):
    values = rng.standard_normal((5, 9))
    subjects = ["a"] * 2 + ["b"] * 7
    found = alignment.summarize(values, Aggregation(), subjects)
    assert found.score == pytest.approx((values[:, :2].mean() + values[:, 2:].mean()) / 2)
    pooled = alignment.summarize(values, Aggregation(subjects="pooled"), subjects)
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
        ({"metric": "abs_pearson_r"}, "metric of kind 'encoding' must be one of pearson_r, r2"),
        ({"ceiling": "split_half"}, "ceiling of kind 'encoding' must be one of none, leave_one"),
        ({"metric": "r2"}, "ceiling 'leave_one_subject_out' is of correlations"),
        ({"metric": "r2", "ceiling": "none", "epsilon": 1e-8}, "epsilon belongs to norms"),
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
